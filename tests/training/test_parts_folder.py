"""A part is a file: the package trains without any, and with one that is put in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/part/total_variation.py"

TRAIN = """
import sys
from csvae_hub.training import load_recipe, train
name, folder, *overrides = sys.argv[1:]
recipe = load_recipe(name, dict(pair.split("=") for pair in overrides))
train(recipe, None, folder, quiet=True)
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package, to take files from and to put files in."""
    shutil.copytree(ROOT / "csvae_hub", tmp_path / "csvae_hub", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    return tmp_path / "csvae_hub"


def train(package, name, *overrides):
    folder = package.parent / "run"
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAIN, name, str(folder), *overrides]
    done = subprocess.run(command, env=environment, cwd=package.parent, capture_output=True, text=True)
    return done, folder


def test_the_paper_s_recipe_trains_without_the_parts_folder(package):
    shutil.rmtree(package / "training/parts")
    done, folder = train(package, "paper-swiss-roll", "trainer.epochs=1", "data.examples=512")
    assert done.returncode == 0, done.stderr
    assert (folder / "model/model.safetensors").is_file()


def test_without_its_file_a_part_is_an_error_that_names_it(package):
    shutil.rmtree(package / "training/parts")
    done, _ = train(package, "swiss-roll")
    assert "ConfigError: unknown part 'stronger_adversary'" in done.stderr


def test_a_term_of_one_s_own_is_one_file_and_a_table(package):
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 40
    shutil.copy(EXAMPLE, package / "training/parts")
    sizes = ("trainer.epochs=1", "trainer.batch_size=32", "data.examples=64", "trainer.precision=float32")
    done, folder = train(package, "paper-faces", "parts.total_variation.weight=3.0", *sizes)
    assert done.returncode == 0, done.stderr
    log = (folder / "log.jsonl").read_text(encoding="utf-8")
    assert '"total_variation"' in log
    assert '"weight": 3.0' in (folder / "model/training.json").read_text(encoding="utf-8")


def test_contributing_shows_the_part_as_it_is():
    assert EXAMPLE.read_text(encoding="utf-8") in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
