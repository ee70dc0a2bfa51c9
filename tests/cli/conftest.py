"""What the tests of the command line share: tiny models, pictures, photos with faces, and a way to run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from csvae_hub import cli
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import create_model

ATTRIBUTES = ("Eyeglasses", "Smiling")
ASTRONAUT = Path(__file__).resolve().parents[2] / "examples/astronaut-512.png"


def save_model(folder, name="csvae", **sizes):
    """A tiny untrained model of 16-pixel pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = BackboneConfig(width=4, depth=1, features=8)
        sizes = {"shape": (3, 16, 16), "z_dim": 4, **sizes}
        create_model(ModelConfig(ATTRIBUTES, name, backbone=backbone, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory):
    """Gives weights folders of tiny models: `make_model(name, **sizes)`."""
    return lambda name="csvae", **sizes: save_model(tmp_path_factory.mktemp("models") / name, name, **sizes)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten pictures in photos/, which lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos/deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{'deep/' if i % 2 else ''}{i}.png")
    return Path("photos")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A photo with a face, one with two, and one with none in photos/, which lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    with Image.open(ASTRONAUT) as opened:
        face = opened.convert("RGB").crop((96, 0, 352, 256))
    face.save("photos/one.png")
    two = Image.new("RGB", (400, 256), (90, 120, 150))
    two.paste(face, (0, 0))
    two.paste(face.resize((128, 128)), (264, 64))
    two.save("photos/two.jpg", quality=90)
    Image.new("RGB", (200, 150), (90, 120, 150)).save("photos/none.png")
    return Path("photos")


@pytest.fixture
def run():
    """Runs `csvae`: `run(*arguments, code=0)` gives click's result, whose exit code is as expected."""

    def run(*arguments, code=0):
        result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run
