from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import CSVAE


def test_help_does_not_import_torch():
    program = (
        "import sys\nfrom csvae_hub.cli import main\n"
        "try: main(['edit', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'PIL', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "NAME=VALUE" in shown
    assert shown.splitlines()[-1] == "[]"


def test_list_and_info_name_what_a_model_knows(run, weights, monkeypatch):
    monkeypatch.setattr("csvae_hub.hub.PACKAGED", weights.parent)
    assert run("list").stdout == "tiny  csvae  3×16×16  Eyeglasses, Smiling\n"
    assert json.loads(run("list", "--json").stdout)["tiny"]["attributes"] == ["Eyeglasses", "Smiling"]
    shown = run("info", "tiny").stdout
    assert "attributes  Eyeglasses, Smiling" in shown
    assert "latents     z 4, w 2 × 2" in shown
    assert json.loads(run("info", weights, "--json").stdout)["config"]["z_dim"] == 4


def test_models_of_vectors_are_not_for_pictures(run, folder):
    backbone = BackboneConfig(name="mlp", width=4, depth=1, features=4)
    CSVAE(ModelConfig(("Above",), shape=(3,), z_dim=2, backbone=backbone)).save_pretrained("roll")
    result = run("edit", folder, "Above=1", "-o", "out", "--model", "roll", code=2)
    assert "roll is a model of vectors of 3 numbers, not of pictures" in result.stderr


def test_train_follows_a_recipe_with_overrides(run, tmp_path):
    overrides = ["--set", "trainer.epochs=1", "--set", "data.examples=200"]
    result = run("train", "--recipe", "swiss-roll", "-o", tmp_path / "run", *overrides)
    assert f"trained: {tmp_path / 'run/model'}" in result.stdout
    assert CSVAE.from_pretrained(tmp_path / "run/model").attributes == ("Above",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "trainer.epochs"], "--set trainer.epochs: expected KEY=VALUE, such as trainer.epochs=3"),
        (["--set", "trainer.epoch=3"], "did you mean 'epochs'?"),
        (["--recipe", "swiss-rol"], "did you mean 'swiss-roll'?"),
    ],
)
def test_train_refuses_unknown_names(run, tmp_path, arguments, message):
    result = run("train", "--recipe", "swiss-roll", "-o", tmp_path / "run", *arguments, code=2)
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_eval_writes_the_figures_and_prints_a_table(run, weights, tmp_path, monkeypatch):
    called = {}

    def load_data(spec, *, attributes, split, image_size, examples, seed):
        called[split] = (spec, attributes, image_size)
        return split

    def evaluate(model, train_data, valid_data, test_data, judges, *, seed, put_back, photos, progress):
        progress("training the judges")
        called["evaluate"] = (model.attributes, train_data, valid_data, test_data, judges, seed, photos)
        return {"seed": seed}

    monkeypatch.setattr("csvae_hub.data.load_data", load_data)
    monkeypatch.setattr("csvae_hub.evaluation.evaluate", evaluate)
    monkeypatch.setattr("csvae_hub.evaluation.markdown_table", lambda result: f"| seed | {result['seed']} |")
    output = tmp_path / "new/evaluation.json"
    result = run("eval", weights, "--data", "faces", "--seed", 3, "-o", output)
    assert called["test"] == ("faces", ("Eyeglasses", "Smiling"), 16)
    assert called["evaluate"] == (("Eyeglasses", "Smiling"), "train", "valid", "test", None, 3, 300)
    assert json.loads(output.read_text()) == {"seed": 3}
    assert "| seed | 3 |" in result.stdout
    assert "training the judges" in result.stderr


def test_eval_names_data_that_is_not_there(run, weights, tmp_path):
    result = run("eval", weights, "--data", tmp_path / "nowhere", "-o", tmp_path / "evaluation.json", code=1)
    assert "nowhere: expected swiss-roll, synthetic-faces, a folder with images/ and attributes.csv" in result.stderr


def test_env_names_versions(run):
    shown = run("env").stdout
    assert f"torch {torch.__version__.partition('+')[0]}" in shown
    assert "python 3." in shown


def test_every_command_is_there(run):
    shown = run("--help").stdout
    commands = {line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line.strip()}
    assert commands >= {"edit", "sweep", "map", "list", "info", "train", "eval", "push", "download", "demo", "env"}
