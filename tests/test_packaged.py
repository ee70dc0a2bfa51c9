"""The weights that come with the package: the three lines, without a network."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from csvae_hub import CSVAE, hub, list_models
from csvae_hub.training import load_recipe

PHOTO = Path(__file__).resolve().parents[1] / "examples/astronaut.png"
FOLDER = hub.PACKAGED / "celeba-64"

THREE_LINES = """
import socket

def refused(*arguments, **options):
    raise OSError("no network here")

socket.socket.connect = socket.create_connection = refused
from csvae_hub import CSVAE
model = CSVAE.from_pretrained("celeba-64")
model.set_attribute({photo!r}, "Eyeglasses", True).save({target!r})
"""


@pytest.fixture(scope="module")
def model():
    return CSVAE.from_pretrained("celeba-64", device="cpu")


def test_the_three_lines_work_without_a_network(tmp_path):
    target = tmp_path / "edited.png"
    code = THREE_LINES.format(photo=str(PHOTO), target=str(target))
    subprocess.run([sys.executable, "-c", code], check=True)
    with Image.open(PHOTO) as photo, Image.open(target) as edited:
        assert edited.size == photo.size
        assert edited.tobytes() != photo.convert(edited.mode).tobytes()


def test_it_is_listed_and_small():
    assert "celeba-64" in list_models(pretrained=True)
    assert (FOLDER / hub.WEIGHTS).stat().st_size <= 15_000_000
    assert {"config.json", "preprocessor.json", "training.json", "evaluation.json", "README.md", "samples.png"} <= {
        file.name for file in FOLDER.iterdir()
    }


def test_it_is_the_model_of_its_recipe(model):
    recipe = load_recipe("celeba-64").model
    # a flow was fitted behind it afterwards, for which there was no adversary any more
    assert replace(model.config, flow=0, adversary=recipe.adversary) == recipe
    assert model.config.flow == 96


def test_it_reads_the_photo(model):
    read = {name: float(p) > 0.5 for name, p in model.predict_attributes(PHOTO).items()}
    assert read["Smiling"]
    assert not read["Eyeglasses"]
    assert not read["Wearing_Hat"]


@pytest.mark.parametrize("name", ["Eyeglasses", "Smiling", "Male", "Wearing_Hat"])
def test_it_takes_its_own_edit_for_the_wished_class(model, name):
    with torch.no_grad():
        latents = model.encode(PHOTO)
        on, off = (model.decode(model.set_attribute(latents, name, value)) for value in (True, False))
    assert model.predict_attributes(on)[name] > 0.5
    assert model.predict_attributes(off)[name] < 0.5


def test_saved_and_loaded_again_it_gives_the_same_pixels_to_the_bit(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = CSVAE.from_pretrained(tmp_path, device="cpu")
    with torch.no_grad():
        latents = model.encode(PHOTO)
        assert torch.equal(again.decode(again.encode(PHOTO)), model.decode(latents))
