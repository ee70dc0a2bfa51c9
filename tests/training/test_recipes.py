"""Recipes: TOML in, strictly; and a run that follows one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from csvae_hub.errors import ConfigError, DataError, TrainingError
from csvae_hub.models import list_models
from csvae_hub.training import recipes
from csvae_hub.training.parts import critic, rest, stronger_adversary
from csvae_hub.training.recipes import Recipe, find_part, list_recipes, load_recipe, objective_of, train
from csvae_hub.training.steps import NoOptions, Part

SMALL = """
[model]
attributes = ["Smiling", "Bald"]
shape = [3, 16, 16]
z_dim = 4
backbone = { name = "conv", width = 8, features = 16 }

[objective]
kl_w = 2.0

[trainer]
epochs = 2
batch_size = 8

[parts.critic]
weight = 2.0

[parts.stronger_adversary]
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def faces(tmp_path):
    """A folder of 24 pictures of noise, a quarter of them for validation, with a table."""
    from PIL import Image

    folder = tmp_path / "faces"
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["file,split,Bald,Smiling,Young"]
    for i in range(24):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
        lines.append(f"{i}.png,{'valid' if i % 4 == 3 else 'train'},{i % 2},{i // 2 % 2},1")
    (folder / "attributes.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("name", list_recipes())
def test_packaged_recipes_are_whole(name):
    recipe = load_recipe(name)
    assert recipe.trainer.epochs > 1
    assert recipe.model.attributes


@pytest.mark.parametrize("name", list_recipes())
def test_packaged_recipes_build_their_objective(name, data):
    recipe = load_recipe(name)
    examples = data(8, recipe.model.shape)
    examples.labels = np.zeros((8, len(recipe.model.attributes)), np.float32)
    objective = objective_of(recipe, examples)
    x, y = torch.rand(4, *recipe.model.shape), torch.zeros(4, len(recipe.model.attributes))
    loss, step = objective.generative_step(x, y)
    loss.backward()
    assert loss.isfinite()
    assert [part.__class__ for part in objective.parts] == [find_part(name) for name in recipe.parts]
    for game in objective.minimisations:
        assert all(term.isfinite() for term in game.losses(step))


def test_every_part_has_options_and_is_used_by_a_recipe():
    names = sorted(path.stem for path in recipes.PARTS.glob("[a-z]*.py"))
    used = {name for recipe in list_recipes() for name in load_recipe(recipe).parts}
    for name in names:
        assert issubclass(find_part(name), Part)
        assert find_part(name).__module__.endswith(f".parts.{name}")
        find_part(name).Options()
    assert used == set(names)


def test_options_that_are_made_already_are_kept_and_the_caller_s_table_is_left_as_it_is():
    options, table = critic.Options(weight=2.0), {"weight": 3.0}
    given = {"critic": options, "rest": table}
    recipe = Recipe(load_recipe("celeba-64").model, parts=given)
    assert recipe.parts == {"critic": options, "rest": rest.Options(weight=3.0)}
    assert given == {"critic": options, "rest": table}


def test_celeba_64_has_its_attributes_in_order():
    assert load_recipe("celeba-64").model.attributes == (
        "Bangs",
        "Black_Hair",
        "Blond_Hair",
        "Eyeglasses",
        "Male",
        "Mouth_Slightly_Open",
        "No_Beard",
        "Smiling",
        "Wearing_Hat",
        "Young",
    )


def test_overrides_are_tomls_values_or_text(small):
    overrides = {
        "trainer.epochs": "3",
        "trainer.learning_rate": "5e-4",
        "trainer.schedule": "constant",
        "model.attributes": '["A"]',
        "model.backbone.width": "16",
        "model.learn_priors": "true",
        "data.source": "some/folder",
        "parts.balanced": "{}",
        "parts.critic.weight": "5",
        "parts.rest.weight": "1",
    }
    recipe = load_recipe(small, overrides)
    assert (recipe.trainer.epochs, recipe.trainer.learning_rate) == (3, 5e-4)
    assert (recipe.trainer.schedule, recipe.model.attributes) == ("constant", ("A",))
    assert (recipe.model.backbone.width, recipe.model.backbone.features) == (16, 16)
    assert recipe.model.learn_priors
    assert recipe.data.source == "some/folder"
    assert recipe.parts == {
        "balanced": NoOptions(),
        "critic": critic.Options(weight=5.0),
        "rest": rest.Options(weight=1.0),
        "stronger_adversary": stronger_adversary.Options(),
    }


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"trainer.epoch": "3"}, r"unknown key 'trainer\.epoch': did you mean 'epochs'\?"),
        ({"trainr.epochs": "3"}, r"unknown key 'trainr': did you mean 'trainer'\?"),
        ({"trainer.epochs": "many"}, r"trainer\.epochs: expected int, got 'many'"),
        ({"trainer.epochs": "0"}, r"epochs: expected 1 or more, got 0"),
        ({"epochs": "3"}, r"'epochs': expected TABLE\.FIELD=VALUE such as trainer\.epochs=3"),
        ({"trainer.epochs.x": "3"}, r"'trainer\.epochs\.x': 'epochs' is a value, not a table: it has no field 'x'"),
        ({"guide.width": "0"}, r"unknown key 'guide': remove it\. Known here: model, objective, trainer, data, parts"),
        ({"parts.critik.weight": "1"}, r"unknown part 'critik': did you mean 'critic'\? Known: balanced, critic, "),
        ({"parts.critik": "1"}, r"unknown part 'critik': did you mean 'critic'\? Known: balanced, critic, eraser"),
        ({"parts._common.x": "1"}, r"unknown part '_common':.* Known: balanced, critic, eraser, flow, rest"),
        ({"parts.critic.wait": "1"}, r"unknown key 'parts\.critic\.wait': did you mean 'weight'\?"),
        ({"parts.critic.weight": "much"}, r"parts\.critic\.weight: expected float, got 'much'"),
        ({"parts.critic": "true"}, r"parts\.critic: expected an object of named fields, got bool"),
        ({"parts.critic.weight": "-1"}, r"parts\.critic\.weight: expected a number of 0 or more, got -1.0"),
        ({"parts.rest.weight": "nan"}, r"parts\.rest\.weight: expected a number of 0 or more, got nan"),
        ({"parts.critic.weight": "inf"}, r"parts\.critic\.weight: expected a number of 0 or more, got inf"),
        ({"parts.rest.weight": "-1"}, r"parts\.rest\.weight: expected a number of 0 or more, got -1.0"),
        ({"parts.balanced.weight": "1"}, r"unknown key 'parts\.balanced\.weight': remove it"),
        ({"parts.rest.epochs": "0"}, r"parts\.rest\.epochs: expected 1 or more, got 0"),
        ({"data.examples": "0"}, r"data\.examples: expected 1 or more, got 0"),
    ],
)
def test_a_wrong_override_is_named(small, overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_recipe(small, overrides)


def test_an_unknown_recipe_is_answered_with_the_nearest_and_all():
    with pytest.raises(
        ConfigError,
        match=r"no recipe 'celeba64': did you mean 'celeba-64'\? Expected one of celeba-128, celeba-64, expressions-",
    ):
        load_recipe("celeba64")


def test_a_recipe_has_the_fields_of_the_one_that_it_extends(small, tmp_path):
    path = tmp_path / "more.toml"
    path.write_text(
        f"extends = {json.dumps(str(small))}\n[model]\nbackbone = {{ width = 16 }}\n[trainer]\nepochs = 7\n"
    )
    base, recipe = load_recipe(small), load_recipe(path, {"trainer.seed": "3"})
    assert (recipe.trainer.epochs, recipe.trainer.seed, recipe.model.backbone.width) == (7, 3, 16)
    assert (recipe.trainer.batch_size, recipe.model.backbone.features) == (8, 16)
    assert (recipe.model.attributes, recipe.parts, recipe.objective) == (
        base.model.attributes,
        base.parts,
        base.objective,
    )


def test_a_recipe_that_extends_itself_or_nothing_is_refused(tmp_path):
    path = tmp_path / "round.toml"
    path.write_text(f"extends = {json.dumps(str(path))}\n")
    with pytest.raises(ConfigError, match="extends itself by way of"):
        load_recipe(path)
    path.write_text('extends = "celeba64"\n')
    with pytest.raises(ConfigError, match="no recipe 'celeba64': did you mean 'celeba-64'"):
        load_recipe(path)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "broken.toml"
    for text in ("[model", "a = " + "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"broken\.toml is no TOML"):
            load_recipe(path)
    path.write_text("extends = 3")
    with pytest.raises(ConfigError, match=r"broken\.toml: extends: expected the name or path of a recipe, got 3"):
        load_recipe(path)


def test_one_picture_is_too_few_and_the_error_says_so(small, faces, tmp_path):
    (faces / "attributes.csv").write_text("file,Bald,Smiling\n0.png,1,0\n")
    with pytest.raises(ConfigError, match="^train_data: expected two examples or more, for batch norm, got 1"):
        train(load_recipe(small), faces, tmp_path / "run", cache_dir=tmp_path / "cache", quiet=True)


def test_a_run_that_diverges_names_terms_and_batch(small, faces, tmp_path):
    recipe = load_recipe(small, {"trainer.learning_rate": "1e30"})
    with pytest.raises(
        TrainingError,
        match=r"^loss = nan, .*kl_w = nan.* adversary = nan.* in batch 2, made of \d+\.png.*: expected finite numbers",
    ):
        train(recipe, faces, tmp_path / "run", cache_dir=tmp_path / "cache", quiet=True)


def test_train_leaves_a_model_that_loads_and_says_what_it_was_made_of(small, faces, tmp_path):
    model = train(load_recipe(small), faces, tmp_path / "run", cache_dir=tmp_path / "cache", quiet=True)
    loaded = type(model).from_pretrained(tmp_path / "run" / "model", device=model.device)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert loaded.attributes == ("Smiling", "Bald")
    training = json.loads((tmp_path / "run" / "model" / "training.json").read_text())
    assert training["examples"] == 18
    assert training["objective"]["kl_w"] == 2.0
    assert training["parts"] == {"critic": {"weight": 2.0}, "stronger_adversary": {"steps": 1, "memory": 8}}
    assert training["trainer"]["seed"] == 0
    assert "initial" not in training
    assert training["model"]["attributes"] == ["Smiling", "Bald"]
    assert (tmp_path / "run" / "grids" / "epoch-002.png").is_file()


def test_a_second_start_gives_the_same_weights(small, faces, tmp_path):
    run, options = tmp_path / "run", {"cache_dir": tmp_path / "cache", "quiet": True}
    first = train(load_recipe(small), faces, run, **options)
    shutil.rmtree(run / "checkpoints")
    second = train(load_recipe(small), faces, run, **options)
    third = train(load_recipe(small), faces, run, resume=False, **options)
    for model in (second, third):
        assert all(
            torch.equal(a, b) for a, b in zip(first.state_dict().values(), model.state_dict().values(), strict=True)
        )


def test_a_rest_over_all_epochs_starts_from_weights(small, faces, tmp_path):
    options = {"cache_dir": tmp_path / "cache", "quiet": True}
    all_rest = load_recipe(small, {"trainer.epochs": "2", "parts.rest.epochs": "2"})
    words = r"^parts\.rest\.epochs: expected fewer than trainer\.epochs, 2 .*; as many from initial weights, got 2$"
    with pytest.raises(ConfigError, match=words):
        train(all_rest, tmp_path / "not read", tmp_path / "run", **options)
    first = train(load_recipe(small), faces, tmp_path / "first", **options)
    second = train(all_rest, faces, tmp_path / "second", initial=tmp_path / "first" / "model", **options)
    assert all(torch.equal(a, b) for a, b in zip(first.q_z.parameters(), second.q_z.parameters(), strict=True))


def test_a_run_can_start_from_weights_of_the_same_model(small, faces, tmp_path):
    options = {"cache_dir": tmp_path / "cache", "quiet": True}
    first = train(load_recipe(small), faces, tmp_path / "first", **options)
    still = {"trainer.epochs": "1", "trainer.learning_rate": "1e-12"}
    second = train(
        load_recipe(small, still), faces, tmp_path / "second", initial=tmp_path / "first" / "model", **options
    )
    record = json.loads((tmp_path / "second" / "model" / "training.json").read_text())
    assert record["initial"] == str(tmp_path / "first" / "model")
    for name, parameter in first.backbone.named_parameters():
        torch.testing.assert_close(dict(second.backbone.named_parameters())[name], parameter)
    other = load_recipe(small, {"model.z_dim": "5"})
    with pytest.raises(ConfigError, match=r"model\.z_dim: expected 4 as in the initial weights .*first.*, got 5"):
        train(other, faces, tmp_path / "third", initial=tmp_path / "first" / "model", **options)


def test_a_table_without_splits_is_all_trained_on(small, faces, tmp_path):
    table = faces / "attributes.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("\n".join(",".join([file, *cells]) for file, _, *cells in lines) + "\n")
    recipe = load_recipe(small)
    train(recipe, faces, tmp_path / "run", cache_dir=tmp_path / "cache", quiet=True)
    assert json.loads((tmp_path / "run" / "model" / "training.json").read_text())["examples"] == 24
    assert not (tmp_path / "run" / "grids").exists()


def test_the_swiss_roll_needs_no_folder(tmp_path):
    recipe = load_recipe("swiss-roll", {"trainer.epochs": "1", "data.examples": "600"})
    model = train(recipe, None, tmp_path / "run", quiet=True)
    assert model.config.shape == (3,)
    assert json.loads((tmp_path / "run" / "model" / "training.json").read_text())["examples"] == 600


def test_data_must_be_named_by_someone(small, tmp_path):
    with pytest.raises(ConfigError, match="data: expected a folder of pictures or the name of a data set, got none"):
        train(load_recipe(small), None, tmp_path / "run")


def test_data_of_another_shape_is_refused(tmp_path):
    recipe = load_recipe("swiss-roll", {"model.shape": "[4]", "data.examples": "50"})
    with pytest.raises(ConfigError, match=r"model\.shape: expected \(3,\), that of the data, got \(4,\)"):
        train(recipe, None, tmp_path / "run")


def test_a_run_says_that_it_decodes_and_names_the_grid(small, faces, tmp_path, capsys):
    train(load_recipe(small, {"trainer.epochs": "1"}), faces, tmp_path / "run", cache_dir=tmp_path / "cache")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"reading the training examples of {faces}"
    decoded = [line for line in said if line.startswith("decoding pictures into the cache, which is done once: ")]
    assert [re.search(r"(\d+) of (\d+)", line).groups() for line in decoded] == [("18", "18"), ("6", "6")]
    (grid,) = (line.removeprefix("newest grid: ") for line in said if line.startswith("newest grid: "))
    assert Path(grid) == tmp_path / "run/grids/epoch-001.png"
    assert Path(grid).is_file()
    assert (tmp_path / "run/best/model.safetensors").is_file()


def test_recipes_travel_with_the_package():
    assert Path(recipes.__file__).parent / "recipes" == recipes.FOLDER


EXPRESSIONS = """
[model]
attributes = ["Happy", "Sad", "Angry", "Hat"]
exclusive = [["Happy", "Sad", "Angry"]]
shape = [1, 24, 24]
z_dim = 4
backbone = { width = 4, features = 16, film = true }

[trainer]
epochs = 2
batch_size = 6

[parts.critic]

[parts.rest]
epochs = 1
weight = 1.0

[parts.stronger_adversary]

[parts.balanced]
"""


@pytest.mark.parametrize("kind", list_models())
def test_grey_pictures_of_exclusive_attributes_are_trained_on_from_a_folder(tmp_path, kind):
    from PIL import Image

    folder = tmp_path / "expressions"
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["file,Happy,Sad,Angry,Hat"]
    for i in range(18):
        Image.fromarray(random.integers(0, 256, (24, 24), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
        lines.append(f"{i}.png,{int(i % 3 == 0)},{int(i % 3 == 1)},{int(i % 3 == 2)},{i % 2}")
    (folder / "attributes.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "small.toml").write_text(EXPRESSIONS)
    recipe = load_recipe(tmp_path / "small.toml", {"model.model": kind})
    model = train(recipe, folder, tmp_path / "run", cache_dir=tmp_path, quiet=True)
    x = torch.rand(2, 1, 24, 24)
    assert model.set_attribute(x, "Sad", True).shape == x.shape
    assert model.predict_attributes(x)["Hat"].shape == (2,)
    lines[1] = "0.png,1,1,0,0"
    (folder / "attributes.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"^0\.png: expected one of Happy, Sad, Angry, got Happy and Sad"):
        train(recipe, folder, tmp_path / "again", cache_dir=tmp_path, quiet=True)
    masked = load_recipe(tmp_path / "small.toml", {"model.model": kind, "data.mask": "true"})
    train(masked, folder, tmp_path / "again", cache_dir=tmp_path, quiet=True)
