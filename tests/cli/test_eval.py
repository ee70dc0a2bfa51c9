from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.cli.eval import draw
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import SyntheticFaces, load_data
from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation import AttributeClassifier, evaluate
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
    """Weights of a csvae and of a vae of drawn faces, and a judge that knows nothing."""
    root, names = tmp_path_factory.mktemp("models"), SyntheticFaces(1).attributes
    for name in ("csvae", "vae"):
        member(name, names).save_pretrained(root / name)
    judge = AttributeClassifier(names, width=2)
    torch.nn.init.zeros_(judge.head[-1].weight)
    judge.save(root / "judge")
    return root


@pytest.fixture(autouse=True)
def here(folders, monkeypatch):
    monkeypatch.chdir(folders)


@pytest.fixture
def measure(run):
    return lambda *arguments, code=0: run("eval", *arguments, code=code)


def test_one_model_is_measured_as_evaluate_does(measure, folders, tmp_path):
    output = tmp_path / "new/evaluation.json"
    shown = measure("csvae", *DRAWN, "--judge", "judge", "--seed", 3, "-o", output)
    model = member("csvae", SyntheticFaces(1).attributes)
    splits = [
        load_data("synthetic-faces", split=s, image_size=16, examples=40, seed=7) for s in ("train", "valid", "test")
    ]
    expected = evaluate(model, *splits, AttributeClassifier.load("judge"), seed=3)
    assert json.loads(output.read_text()) == expected
    assert "| Wearing_Hat |" in shown.stdout
    assert "leakage" in shown.stderr


def test_models_are_compared_and_drawn(measure, tmp_path):
    output, plots = tmp_path / "both.json", tmp_path / "plots"
    shown = measure("csvae", *DRAWN, "--judge", "judge", "--compare", "./vae", "-o", output, "--plots", plots)
    results = json.loads(output.read_text())["models"]
    assert {name: result["model"] for name, result in results.items()} == {"csvae": "csvae", "./vae": "vae"}
    rows = [line.split(" | ")[0] for line in shown.stdout.strip().splitlines()]
    assert rows == ["| model", "| ---", "| csvae", "| ./vae"]
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

    def load_data(spec, *, attributes, split, image_size, examples, seed):
        called[split] = (spec, attributes, image_size)
        return split

    def evaluate(model, train_data, valid_data, test_data, judge, *, seed, progress):
        progress("training the judge")
        called["evaluate"] = (model.attributes, train_data, valid_data, test_data, judge, seed)
        return {"seed": seed}

    monkeypatch.setattr("csvae_hub.data.load_data", load_data)
    monkeypatch.setattr("csvae_hub.evaluation.evaluate", evaluate)
    monkeypatch.setattr("csvae_hub.evaluation.markdown_table", lambda result: f"| seed | {result['seed']} |")
    output = tmp_path / "new/evaluation.json"
    result = run("eval", weights, "--data", "faces", "--seed", 3, "-o", output)
    assert called["test"] == ("faces", ("Eyeglasses", "Smiling"), 16)
    assert called["evaluate"] == (("Eyeglasses", "Smiling"), "train", "valid", "test", None, 3)
    assert json.loads(output.read_text()) == {"seed": 3}
    assert "| seed | 3 |" in result.stdout
    assert "training the judge" in result.stderr


def test_eval_names_data_that_is_not_there(run, weights, tmp_path):
    result = run("eval", weights, "--data", tmp_path / "nowhere", "-o", tmp_path / "evaluation.json", code=1)
    assert "nowhere: expected swiss-roll, synthetic-faces, a folder with images/ and attributes.csv" in result.stderr
