from __future__ import annotations

import json

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from csvae_hub.classifier import ARCHITECTURES, AttributeClassifier
from csvae_hub.cli_eval import eval_command
from csvae_hub.data import SyntheticFaces, load_data
from csvae_hub.editing.aligned import put_back
from csvae_hub.evaluation import Judges, evaluate

DRAWN = ("--data", "synthetic-faces", "--examples", 40, "--data-seed", 7)


@pytest.fixture(scope="module")
def folders(make_member, tmp_path_factory):
    """Weights of a csvae and of a vae of drawn faces, and judges that know nothing."""
    root, names = tmp_path_factory.mktemp("models"), SyntheticFaces(1).attributes
    for name in ("csvae", "vae"):
        make_member(name, names).save_pretrained(root / name)
    members = [AttributeClassifier(names, architecture=name, width=4, size=16) for name in ARCHITECTURES]
    for member in members:
        torch.nn.init.zeros_(member.head[-1].weight)
    Judges(members).save(root / "judges")
    return root


@pytest.fixture(autouse=True)
def here(folders, monkeypatch):
    monkeypatch.chdir(folders)


def run(*arguments, code=0):
    @click.group()
    def main():
        pass

    main.add_command(eval_command)
    result = CliRunner().invoke(main, ["eval", *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_one_model_is_measured_as_evaluate_does(make_member, folders, tmp_path):
    output = tmp_path / "new/evaluation.json"
    shown = run("csvae", *DRAWN, "--judges", "judges", "--seed", 3, "--photos", 8, "-o", output)
    model = make_member("csvae", SyntheticFaces(1).attributes)
    splits = [
        load_data("synthetic-faces", split=s, image_size=16, examples=40, seed=7) for s in ("train", "valid", "test")
    ]
    expected = evaluate(model, *splits, Judges.load("judges"), seed=3, put_back=put_back, photos=8)
    assert json.loads(output.read_text()) == expected
    assert "| Wearing_Hat |" in shown.stdout
    assert "leakage" in shown.stderr


def test_models_are_compared_and_drawn(tmp_path):
    output, plots = tmp_path / "both.json", tmp_path / "plots"
    shown = run(
        "csvae", *DRAWN, "--judges", "judges", "--compare", "./vae", "-o", output, "--plots", plots, "--photos", 0
    )
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


def test_photos_are_not_drawn_over_a_plane(make_member, make_halves, tmp_path):
    from csvae_hub.cli_eval import draw

    model, lines = make_member("csvae"), []
    draw(
        tmp_path,
        {"a": model},
        {"a": {"leakage": {"z": {"mlp": {"max": 0.5}}}, "attribute_change": {"wished": 1.0}}},
        make_halves(9, 0),
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
def test_wrong_use_ends_with_2_and_writes_nothing(make_member, folders, tmp_path, arguments, message):
    make_member("vae", ("Left", "Right")).save_pretrained(folders / "other")
    shown = run(
        *arguments, *([] if "--examples" in arguments else DRAWN[2:]), *DRAWN[:2], "-o", tmp_path / "e.json", code=2
    )
    assert message in shown.stderr
    assert not (tmp_path / "e.json").exists()
