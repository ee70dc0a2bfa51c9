from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.classifier import ARCHITECTURES, AttributeClassifier
from csvae_hub.cli.eval import draw
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import SyntheticFaces, load_data
from csvae_hub.data.base import AttributeData
from csvae_hub.editing.aligned import put_back
from csvae_hub.evaluation import Judges, evaluate
from csvae_hub.models import create_model

DRAWN = ("--data", "synthetic-faces", "--examples", 40, "--data-seed", 7)


def member(name, attributes):
    """An untrained model of the family for 16×16 pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = BackboneConfig(width=4, features=8)
        return create_model(ModelConfig(tuple(attributes), name, shape=(3, 16, 16), z_dim=4, backbone=backbone)).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Weights of a csvae and of a vae of drawn faces, and judges that know nothing."""
    root, names = tmp_path_factory.mktemp("models"), SyntheticFaces(1).attributes
    for name in ("csvae", "vae"):
        member(name, names).save_pretrained(root / name)
    judges = [AttributeClassifier(names, architecture=name, width=4, size=16) for name in ARCHITECTURES]
    for judge in judges:
        torch.nn.init.zeros_(judge.head[-1].weight)
    Judges(judges).save(root / "judges")
    return root


@pytest.fixture(autouse=True)
def here(folders, monkeypatch):
    monkeypatch.chdir(folders)


@pytest.fixture
def measure(run):
    return lambda *arguments, code=0: run("eval", *arguments, code=code)


def test_one_model_is_measured_as_evaluate_does(measure, folders, tmp_path):
    output = tmp_path / "new/evaluation.json"
    shown = measure("csvae", *DRAWN, "--judges", "judges", "--seed", 3, "--photos", 8, "-o", output)
    model = member("csvae", SyntheticFaces(1).attributes)
    splits = [
        load_data("synthetic-faces", split=s, image_size=16, examples=40, seed=7) for s in ("train", "valid", "test")
    ]
    expected = evaluate(model, *splits, Judges.load("judges"), seed=3, put_back=put_back, photos=8)
    assert json.loads(output.read_text()) == expected
    assert "| Wearing_Hat |" in shown.stdout
    assert "leakage" in shown.stderr


def test_judges_are_trained_into_a_folder_that_is_not_there_and_taken_from_it_again(measure, tmp_path):
    folder, outputs = tmp_path / "kept", [tmp_path / "one.json", tmp_path / "two.json"]
    first, second = (
        measure("csvae", *DRAWN, "--judges", folder, "--photos", 0, "-o", output).stderr for output in outputs
    )
    assert first.startswith("reading csvae, and of synthetic-faces the splits train, valid and test")
    assert "epoch 14 of 14" in first
    assert "0 min left" in first
    assert "epoch" not in second
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    Judges.load(folder)


def test_models_are_compared_and_drawn(measure, tmp_path):
    output, plots = tmp_path / "both.json", tmp_path / "plots"
    options = ("--judges", "judges", "--photos", 0, "-o", output, "--plots", plots)
    shown = measure("csvae", *DRAWN, "--compare", "./vae", *options)
    results = json.loads(output.read_text())["models"]
    assert {name: result["model"] for name, result in results.items()} == {"csvae": "csvae", "./vae": "vae"}
    rows = [line.split(" | ")[0] for line in shown.stdout.strip().splitlines()]
    assert rows[:4] == ["| model", "| ---", "| csvae", "| ./vae"]
    assert all(result["photos"] is None for result in results.values())
    assert "no planes-vae.png: expected subspaces of two numbers, got a model without subspaces" in shown.stderr
    drawn = sorted(path.name for path in plots.iterdir())
    traversals = [f"traversal-csvae-{name}.png" for name in results["csvae"]["attributes"]]
    assert drawn == sorted(["planes-csvae.png", *traversals])
    assert "no edits-against-leakage.png: csvae: expected the share of wished edits" in shown.stderr
    for name in drawn:
        with Image.open(plots / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_photos_are_not_drawn_over_a_plane(tmp_path):
    names = ("Left", "Right")
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (9, 3, 16, 16), dtype=np.uint8), rng.integers(0, 2, (9, 2)).astype(np.float32)
    model, lines = member("csvae", names), []
    draw(
        tmp_path,
        {"a": model},
        {"a": {"leakage": {"z": {"mlp": {"max": 0.5}}}, "attribute_change": {"wished": 1.0}}},
        AttributeData(x, labels, names),
        lines.append,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edits-against-leakage.png", "planes-a.png"]
    assert lines == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["csvae", "--compare", "csvae"], "csvae is given twice: give each model once"),
        (["csvae", "--compare", "other"], "other: expected the attributes of csvae, Beard, Eyeglasses"),
        (["csvae", "--device", "abacus"], "--device abacus: expected cpu, cuda or cuda:N"),
        (["csvae", "--examples", 0], "Invalid value for '--examples'"),
    ],
)
def test_wrong_use_ends_with_2_and_writes_nothing(measure, folders, tmp_path, arguments, message):
    member("vae", ("Left", "Right")).save_pretrained(folders / "other")
    shown = measure(
        *arguments, *([] if "--examples" in arguments else DRAWN[2:]), *DRAWN[:2], "-o", tmp_path / "e.json", code=2
    )
    assert message in shown.stderr
    assert not (tmp_path / "e.json").exists()


def test_eval_writes_the_figures_and_prints_a_table(run, weights, tmp_path, monkeypatch):
    called = {}

    def load_data(spec, *, attributes, split, image_size, examples, seed, channels):
        called[split] = (spec, attributes, image_size)
        return split

    def evaluate(model, train_data, valid_data, test_data, judges, *, seed, progress, put_back, photos):
        progress("training the judges")
        called["evaluate"] = (model.attributes, train_data, valid_data, test_data, judges, seed, photos)
        return {"seed": seed}

    monkeypatch.setattr("csvae_hub.data.load_data", load_data)
    monkeypatch.setattr("csvae_hub.evaluation.evaluate", evaluate)
    monkeypatch.setattr("csvae_hub.hub.card_tables.figures", lambda result, names: f"| seed | {result['seed']} |")
    output, model = tmp_path / "new/evaluation.json", shutil.copytree(weights, tmp_path / "model")
    result = run("eval", model, "--data", "faces", "--seed", 3, "-o", output)
    assert called["test"] == ("faces", ("Eyeglasses", "Smiling"), 16)
    assert called["evaluate"] == (("Eyeglasses", "Smiling"), "train", "valid", "test", None, 3, 300)
    assert json.loads(output.read_text()) == {"seed": 3}
    assert "| seed | 3 |" in result.stdout
    assert "training the judges" in result.stderr


def test_eval_names_data_that_is_not_there(run, weights, tmp_path):
    result = run("eval", weights, "--data", tmp_path / "nowhere", "-o", tmp_path / "evaluation.json", code=1)
    assert "nowhere: expected swiss-roll, synthetic-faces, a folder with images/ and attributes.csv" in result.stderr


@pytest.fixture
def quick(monkeypatch, weights, tmp_path):
    """A model of its own, measured at once: the figures are canned."""
    result = {"model": "csvae", "reconstruction": {"mse": 0.25}, "attribute_change": {"wished": 0.5}}
    monkeypatch.setattr("csvae_hub.data.load_data", lambda spec, **options: None)
    monkeypatch.setattr("csvae_hub.evaluation.evaluate", lambda *splits, **options: result)
    monkeypatch.setattr(
        "csvae_hub.evaluation.compare", lambda models, *splits, **options: dict.fromkeys(models, result)
    )
    monkeypatch.setattr("csvae_hub.evaluation.comparison_table", str)
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(weights, tmp_path / "model")


def test_the_figures_go_to_the_weights_folder_and_to_the_hub(run, quick):
    shown = run("eval", quick, "--data", "faces", "-o", "figures.json")
    assert f"{quick}: the figures are in {quick / 'evaluation.json'}" in shown.stderr
    assert (quick / "evaluation.json").read_text() == Path("figures.json").read_text()
    assert "| Reconstruction, mean squared error of values in [0, 1] | 0.25 |" in run("info", quick).stdout
    sent = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csvae_hub.hub.upload.upload", lambda folder, *_, **__: sent.update(read(folder)) or SENT)
        run("push", quick, "alice/hats")
    assert sent["evaluation.json"] == (quick / "evaluation.json").read_bytes()


SENT = SimpleNamespace(pr_url=None, commit_url="https://hub/commit")


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_compared_models_keep_their_figures(run, quick):
    other = shutil.copytree(quick, "other")
    run("eval", "model", "--compare", "other", "--data", "faces", "-o", "figures.json")
    for folder in (quick, other):
        assert json.loads((Path(folder) / "evaluation.json").read_text())["reconstruction"] == {"mse": 0.25}


def test_packaged_models_and_those_of_the_hub_stay_as_they_are(run, quick, monkeypatch):
    monkeypatch.setattr("csvae_hub.hub.folder.PACKAGED", quick.parent)
    cached = Path("hub/models--alice--hats/snapshots") / ("0" * 40)
    shutil.copytree(quick, cached)
    for name in ("model", "./model", str(cached)):
        shown = run("eval", name, "--data", "faces", "-o", "figures.json")
        assert f"{name}: the figures are in figures.json only, since this is a packaged model" in shown.stderr
        assert not (Path(name) / "evaluation.json").exists()
        Path("figures.json").unlink()


def test_no_figures_are_written_where_a_link_leads(run, quick):
    Path("precious").write_text("{}")
    (quick / "evaluation.json").symlink_to("../precious")
    assert "is a symbolic link" in run("eval", quick, "--data", "faces", "-o", "figures.json", code=1).stderr
    assert Path("precious").read_text() == "{}"
    assert not Path("figures.json").exists()


def test_a_folder_that_can_not_be_written_to_is_named(run, quick):
    (quick / "evaluation.json").mkdir()
    shown = run("eval", quick, "--data", "faces", "-o", "figures.json")
    assert f"{quick}: the figures are in figures.json only: " in shown.stderr
