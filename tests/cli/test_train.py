from __future__ import annotations

import subprocess
import sys
import time

import pytest

from csvae_hub.models import CSVAE, create_model
from csvae_hub.training import list_recipes, load_recipe
from csvae_hub.training.recipes import prepare
from csvae_hub.training.rehearsal import as_toml, rehearse


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


def test_train_says_at_once_what_it_does(tmp_path):
    arguments = ["train", "--recipe", "swiss-roll", "-o", tmp_path / "run", "--set", "trainer.epochs=1"]
    command = [sys.executable, "-m", "csvae_hub", *map(str, arguments), "--set", "data.examples=200"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    assert found[0] == "csvae train: swiss-roll"
    assert found[1] == "reading the training examples of swiss-roll"
    assert found[2].startswith("training on 200 examples")
    assert found[-2].startswith("epoch 1, batch ")
    assert found[-1] == "finishing the model on 200 examples"


def test_the_first_line_comes_before_the_imports():
    code = (
        "import sys, click\n"
        "from csvae_hub import cli\n"
        "from csvae_hub.cli import train\n"
        "def echo(line, err=False): print(line, err, 'torch' in sys.modules); raise SystemExit\n"
        "train.echo = echo\n"
        "cli.main(['train', '-o', 'never'])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "csvae train: synthetic-faces True False\n"


@pytest.mark.parametrize("name", ["swiss-roll", "synthetic-faces"])
def test_a_dry_run_prints_a_recipe_that_can_be_followed_and_trains_nothing(run, tmp_path, name):
    changes = ["--set", "trainer.batch_size=8", "--set", "data.examples=40"]
    found = run("train", "--recipe", name, "-o", tmp_path / "run", *changes, "--dry-run")
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "same.toml"
    path.write_text(found.stdout)
    assert load_recipe(path) == load_recipe(name, {"trainer.batch_size": "8", "data.examples": "40"})
    said = dict(line[2:].split(": ") for line in found.stdout.splitlines() if line.startswith("# "))
    recipe = load_recipe(path)
    assert said["parameters"].startswith(f"{sum(p.numel() for p in create_model(recipe.model).parameters()):,} of")
    assert said["data"] == f"40 examples, {5 * recipe.trainer.epochs:,} batches in all"
    assert float(said["memory"].split()[0]) > 0.1


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_can_be_printed_and_read_again(tmp_path, name):
    path = tmp_path / "same.toml"
    path.write_text(as_toml(load_recipe(name)))
    assert load_recipe(path) == load_recipe(name)


def test_the_time_of_a_rehearsal_is_that_of_its_steps(monkeypatch):
    clock = iter([0.0, 5.0])
    trainer = prepare(load_recipe("swiss-roll", {"data.examples": "64"}), None, None, quiet=True)
    steps = []
    monkeypatch.setattr(trainer, "train_step", lambda x, y, batch: steps.append((len(x), batch)))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    found = rehearse(trainer)
    assert steps == [(trainer.config.batch_size, batch) for batch in range(12)]
    assert found["seconds_a_batch"] == 0.5
    assert found["seconds"] == 0.5 * trainer.last_batch
