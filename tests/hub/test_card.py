"""Model cards: what the files of a folder say, in words and in front matter that the Hub's own classes read."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from csvae_hub import hub
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.errors import CardError, ConfigError, CorruptWeightsError, UnsafeWeightsError
from csvae_hub.hub.card import CLASSES, make_card, with_results
from csvae_hub.hub.card_tables import METRICS
from csvae_hub.models import create_model, list_models

ROOT = Path(__file__).resolve().parents[2]
CELEBA = hub.PACKAGED / "celeba-64"
FIELDS = {"license": "other", "license_name": "mine", "license_link": "https://example.org/x", "datasets": ["me/faces"]}


@pytest.fixture
def faces(tmp_path):
    """The packaged model without its own card."""
    return shutil.copytree(CELEBA, tmp_path / "faces", ignore=shutil.ignore_patterns("README.md"))


@pytest.fixture
def bare(tmp_path):
    """Weights of vectors and nothing else."""
    config = ModelConfig(attributes=("Above",), shape=(3,), z_dim=2, backbone=BackboneConfig(name="mlp", features=8))
    create_model(config).save_pretrained(tmp_path / "bare", dtype=torch.float16)
    return tmp_path / "bare"


def test_the_front_matter_says_what_the_files_and_the_author_say(faces):
    data = ModelCard(make_card(faces, "me/faces-64", FIELDS)).data
    assert {name: data.get(name) for name in FIELDS} == FIELDS
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("csvae-hub", "image-to-image", "faces-64")
    assert {"csvae-hub", "csvae"} <= set(data.tags)


def test_figures_are_evaluation_results_of_the_test_split(faces):
    evaluation = hub.read_json(faces / "evaluation.json")
    evaluation["photos"] = {"wished": 0.9, "worst": 0.8, "others": 0.1, "frechet_over_floor": 2.0}
    evaluation["truth"] = {"distance": 0.1}
    evaluation["groups"] = [{"accuracy": 0.7}]
    hub.write_json(faces / "evaluation.json", evaluation)
    data = ModelCard(make_card(faces, "me/faces-64", FIELDS)).data
    name, results = model_index_to_eval_results(data.to_dict()["model-index"])
    assert name == "faces-64"
    assert {(r.dataset_name, r.dataset_split, r.task_type) for r in results} == {("me/faces", "test", "image-to-image")}
    assert [r.metric_name for r in results] == [title for _, _, title in METRICS]
    assert results[0].metric_value == pytest.approx(evaluation["reconstruction"]["mse"], rel=1e-3)
    assert results[-1].metric_value == pytest.approx(evaluation["leakage"]["z"]["mlp"]["mean"], rel=1e-3)


def test_the_text_has_the_three_lines_the_picture_the_licence_and_the_limits(faces):
    text = ModelCard(make_card(faces, "me/faces-64", FIELDS)).text
    assert (
        "```python\nfrom csvae_hub import CSVAE\n"
        'model = CSVAE.from_pretrained("me/faces-64")\n'
        'model.set_attribute("face.jpg", "Eyeglasses", True).save("edited.png")\n```'
    ) in text
    assert "![Pictures made by the model](samples.png)" in text
    assert "**Licence of the weights**: [mine](https://example.org/x)." in text
    assert f"{sum(t.numel() for t in hub.load_tensors(faces).values()):,} numbers stored as float16" in text
    for title in ("What it is for", "What it is", "How it was made", "Measured", "Limits and bias"):
        assert f"\n## {title}\n" in text
    change = hub.read_json(faces / "evaluation.json")["attribute_change"]["attributes"]
    for name in hub.read_json(faces / "config.json")["attributes"]:
        assert f"| {name} | {100 * change[name]['to_present']['wished']:.1f} % |" in text
    assert "| celeba-64-edits | 26,578 | 9 | 64 | 0.0004 | bfloat16 | 0 | cpu | 23 |" in text
    assert "| backbone | `conv`, width 32, depth 1, features 512, film |" in text
    assert ("Black_Hair to present" in text) == (change["Black_Hair"]["to_present"]["wished"] < 0.75)


def test_what_no_file_says_is_called_not_stated(bare):
    card = ModelCard(make_card(bare, "me/roll"))
    assert card.data.to_dict().keys() == {"library_name", "tags"}
    assert "**Licence of the weights**: not stated. Ask their author" in card.text
    assert "Not stated: there is no training.json." in card.text
    assert "Not yet: `csvae eval` measures it." in card.text
    assert "Nothing was measured" in card.text
    assert "samples.png" not in card.text
    assert 'model.set_attribute(x, "Above", True)  # x: a float tensor (B, 3)' in card.text


def test_data_and_licence_come_from_training_json_but_a_path_of_the_author_s_does_not(bare):
    def card(**table):
        hub.write_json(bare / "training.json", {"trainer": {"epochs": 2}, "examples": 9, "data": table})
        return ModelCard(make_card(bare, "me/roll"))

    named = card(source="swiss-roll", license="cc0-1.0")
    assert (named.data.datasets, named.data.license) == (["swiss-roll"], "cc0-1.0")
    assert "Data: swiss-roll." in named.text
    assert "| 1 | 9 | 2 | – |" in named.text
    hidden = card(source="/home/alice/private/faces")
    assert hidden.data.datasets is None
    assert "alice" not in hidden.content
    assert "The data is not named." in hidden.text


def test_texts_from_files_can_t_break_out_of_their_place(tmp_path):
    names = ("a | b # c", "<script>", 'x"]) `', "- d: *e*")
    backbone = BackboneConfig(name="mlp", width=4, features=8)
    create_model(ModelConfig(attributes=names, shape=(3,), z_dim=2, backbone=backbone)).save_pretrained(tmp_path)
    evaluation = {"attribute_change": {"attributes": {}}, "judge": {"at_chance": ["d |\n# e"]}}
    hub.write_json(tmp_path / "evaluation.json", evaluation)
    card = ModelCard(make_card(tmp_path, "me/x", {"tags": ["a: b\n---\nlicense: mit"]}))
    assert card.data.license is None
    assert "<script>" not in card.text
    assert "\n# e" not in card.text
    assert r"A judge is at chance on d \| # e:" in card.text
    assert r"a \| b # c" in card.text
    (code,) = [block for block in card.text.split("```") if block.startswith("python")]
    compile(code.removeprefix("python"), "card", "exec")


def test_a_card_of_the_folder_s_own_is_kept_and_fields_are_set_in_it(bare):
    own = "---\nlicense: mit\nlanguage: en\n---\n\n# Mine\n"
    (bare / "README.md").write_text(own, encoding="utf-8")
    assert make_card(bare, "me/roll") == own
    changed = ModelCard(make_card(bare, "me/roll", {"license": "cc0-1.0"}))
    assert changed.data.to_dict() == {"license": "cc0-1.0", "language": "en"}
    assert changed.text == "\n# Mine\n"
    (bare / "README.md").write_text("# Mine\n", encoding="utf-8")
    added = ModelCard(make_card(bare, "me/roll"))
    assert added.data.library_name == "csvae-hub"
    assert added.text == "\n# Mine\n"


FRONTS = {
    "open": "a: [",
    "a list": "- a list",
    "code": "license: !!python/object:os.system {}",
    "results that are none": "model-index: 3",
    "a tab": "a: b\nlicense: \t@",
    "a key that is a list": "? [1]\n: 2",
    "a date that is none": "a: !!timestamp x",
    "deep lists": f"a: {'[' * 20_000}",
    "deep tables": f"a: {'{b: ' * 5_000}",
    "a long number": f"a: {'9' * 10_000}",
    "a megabyte": f"a: [{'b, ' * 400_000}c]",
}


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS.keys())
def test_front_matter_that_the_hub_would_not_read_is_named(bare, front):
    (bare / "README.md").write_text(f"---\n{front}\n---\n\n# Mine\n", encoding="utf-8")
    with pytest.raises(
        CardError, match=r"README\.md: expected front matter of YAML between two lines of ---, as the Hub"
    ):
        make_card(bare, "me/roll")


def test_a_card_is_read_up_to_a_bound(bare):
    with (bare / "README.md").open("wb") as file:
        file.write(b"---\nlicense: mit\n---\n")
        file.truncate(1 << 30)
    with pytest.raises(
        CorruptWeightsError, match=r"README\.md has 1073741824 bytes: expected a file of at most 2097152"
    ):
        make_card(bare, "me/roll")


STRANGE = (None, True, -1, 10**400, 1.7976931348623157e308, "<b>|`\n# h", [], ["a", 3, None], {}, {"a": 1})


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:20])
def test_any_json_beside_the_weights_makes_a_card(bare, value):
    def nodes(table, where=()):
        for key, inner in table.items():
            yield (*where, key)
            if isinstance(inner, dict):
                yield from nodes(inner, (*where, key))

    evaluation = {
        "data": {"test": {"count": 3}},
        "attributes": ["Above"],
        "reconstruction": {"mse": 0.1},
        "attribute_change": {"wished": 0.1, "attributes": {"Above": {"to_present": {"wished": 0.1, "others": 0.1}}}},
        "leakage": {"z": {"mlp": {"mean": 0.9, "attributes": {"Above": {"auc": 0.5}}}}},
        "judge": {"at_chance": ["Above"], "attributes": {"Above": {"accuracy": 0.5}}},
    }
    training = {
        "data": {"source": "x", "license": "mit"},
        "trainer": {"epochs": 1},
        "examples": 2,
        "device": "cpu",
        "elapsed_seconds": 60,
    }
    for name, content in (("evaluation.json", evaluation), ("training.json", training)):
        for *parents, last in nodes(content):
            changed = json.loads(json.dumps(content))
            inner = changed
            for key in parents:
                inner = inner[key]
            inner[last] = value
            (bare / name).write_text(json.dumps(changed))
            card = make_card(bare, "me/roll")
            assert "<b>" not in ModelCard(card).text
            assert "\n# h" not in ModelCard(card).text
            with_results(card, changed, "roll")
        (bare / name).unlink()


@pytest.mark.parametrize(
    ("field", "value"), [("z_dim", "<b>"), ("shape", ["|", 1, 1]), ("model", 3), ("attributes", 5), ("backbone", "x")]
)
def test_a_config_that_is_none_has_no_card(bare, field, value):
    config = hub.read_json(bare / "config.json")
    hub.write_json(bare / "config.json", {**config, field: value})
    with pytest.raises(ConfigError, match=f"^{field}"):
        make_card(bare, "me/roll")


def test_a_model_of_another_package_is_named_and_escaped(bare):
    config = hub.read_json(bare / "config.json")
    hub.write_json(bare / "config.json", {**config, "model": "x` | <b>\n# h"})
    text = ModelCard(make_card(bare, "me/roll")).text
    assert "<b>" not in text
    assert "\n# h" not in text
    assert r"`x\` \| &lt;b> # h`" in text


def test_a_card_that_is_a_link_elsewhere_is_refused(bare, tmp_path):
    (tmp_path / "secret").write_text("x")
    (bare / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeWeightsError, match=r"README\.md is a symbolic link"):
        make_card(bare, "me/roll")


def test_every_model_has_a_description():
    assert set(CLASSES) == set(list_models())


def test_a_new_evaluation_renews_front_matter_and_tables_and_leaves_the_words(faces):
    before = make_card(faces, "me/faces-64", FIELDS) + "\n## Thanks\n\nTo all.\n"
    evaluation = hub.read_json(faces / "evaluation.json")
    evaluation["attribute_change"]["wished"] = 0.12345
    evaluation["attribute_change"]["attributes"]["Smiling"]["to_absent"]["wished"] = 0.5
    evaluation["leakage"] = {}
    after = with_results(before, evaluation, "faces-64")
    values = {result.metric_name: result.metric_value for result in ModelCard(after).data.eval_results}
    assert values["Edits that a separate classifier takes for the wished class, mean"] == 0.1235
    assert "| Edits that a separate classifier takes for the wished class, mean | 12.3 % |" in after
    assert re.search(r"^\| Smiling \| \d\d\.\d % \| 50\.0 % \| 0\.\d{3} \| 0\.\d{3} \|$", after, re.MULTILINE)
    assert "| attribute | accuracy of the classifier |" in after
    for kept in ("# faces-64\n", "## How it was made\n", "## Thanks\n\nTo all.\n"):
        assert kept in after
    assert with_results(after, evaluation, "faces-64") == after
    assert with_results(after, hub.read_json(faces / "evaluation.json"), "faces-64") == with_results(
        before, hub.read_json(faces / "evaluation.json"), "faces-64"
    )


def test_the_script_that_makes_the_packaged_weights_renews_their_card(faces):
    renew_card = runpy.run_path(str(ROOT / "benchmarks/celeba.py"))["renew_card"]
    evaluation = hub.read_json(faces / "evaluation.json")
    renew_card(faces / "README.md", evaluation)  # there was none
    assert "# faces\n" in (faces / "README.md").read_text(encoding="utf-8")
    evaluation["reconstruction"]["psnr"] = 12.0
    (faces / "README.md").write_text((CELEBA / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    renew_card(faces / "README.md", evaluation)
    card = ModelCard.load(faces / "README.md")
    assert card.data.eval_results[1].metric_value == 12
    assert "| Reconstruction, PSNR in dB | 12 |" in card.text
    assert "**The test split was looked at once**" in card.text


@pytest.fixture
def packaged():
    return (CELEBA / "README.md").read_text(encoding="utf-8")


def test_the_packaged_card_says_what_was_measured(packaged):
    card = ModelCard(packaged)
    assert (card.data.library_name, card.data.pipeline_tag, card.data.license) == (
        "csvae-hub",
        "image-to-image",
        "other",
    )
    assert card.data.license_link.startswith("https://")
    assert with_results(packaged, hub.read_json(CELEBA / "evaluation.json"), "celeba-64") == packaged
    for words in (
        "csvae_hub import CSVAE",
        "(samples.png)",
        "**Licence of the weights**",
        "## Limits and bias",
        "Not for",
    ):
        assert words in card.text
    assert card.text.index("## Limits and bias") < card.text.index("## Measured")


def test_what_the_packaged_card_says_of_its_goals_is_what_was_measured(packaged):
    aims = runpy.run_path(str(ROOT / "benchmarks/celeba.py"))["aims"]
    table = aims("celeba-64", hub.read_json(CELEBA / "evaluation.json"))
    assert table in packaged
    assert table.count("\n") == 6


@pytest.fixture
def expressions(tmp_path):
    """Weights with a group, and its figures."""
    config = ModelConfig(
        attributes=("Happy", "Sad", "Hat"),
        shape=(1, 16, 16),
        z_dim=16,
        z_grid=4,
        backbone=BackboneConfig(width=4, features=8),
        exclusive=(("Happy", "Sad"),),
    )
    create_model(config).save_pretrained(tmp_path / "expressions")
    return tmp_path / "expressions"


def group_figures():
    judge = {"own_accuracy": 0.6543, "accuracy": 0.5, "to": {"Happy": 0.75, "Sad": 0.25}}
    z = {"base_rate": 0.55, "logistic": 0.5625, "mlp": 0.6}
    return {"members": ["Happy", "Sad"], "judges": {"resnet": judge}, "z": z}


def test_a_group_is_said_and_has_its_table(expressions):
    hub.write_json(expressions / "evaluation.json", {"groups": [group_figures()]})
    text = make_card(expressions, "me/expressions")
    assert "A picture has exactly one of Happy, Sad; an edit to one makes the others absent." in text
    assert "| z | 16 numbers at 4×4 places |" in text
    for row in ("| to | resnet |", "| Happy | 75.0 % |", "| Sad | 25.0 % |", "| mean | 50.0 % |"):
        assert row in text
    assert "| the judge's accuracy on real pictures | 65.4 % |" in text
    assert "logistic 56.2 %, mlp 60.0 %; its base rate is 55.0 %." in text


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:20])
def test_any_figures_of_a_group_make_a_card(expressions, value):
    def changed(path):
        figures = group_figures()
        inner = figures
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return figures

    paths = [["members"], ["judges"], ["judges", "resnet"], ["judges", "resnet", "to"], ["z"], ["z", "mlp"]]
    paths += [["judges", "resnet", "to", "Sad"], ["judges", "<b>\n# h"], ["judges", "resnet", "accuracy"]]
    for groups in ([changed(path) for path in paths], [value], value):
        (expressions / "evaluation.json").write_text(json.dumps({"groups": groups}))
        card = ModelCard(make_card(expressions, "me/expressions")).text
        assert "<b>" not in card
        assert "\n# h" not in card
