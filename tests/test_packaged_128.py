"""The weights for photos."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvae_hub import CSVAE, FaceEditor, hub, list_models
from csvae_hub.plotting import square_of
from csvae_hub.training import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples/astronaut-512.png"
FOLDER = hub.PACKAGED / "celeba-128"


@pytest.fixture(scope="module")
def editor():
    return FaceEditor(CSVAE.from_pretrained("celeba-128", device="cpu"))


def test_they_are_listed_small_and_of_their_recipe(editor):
    assert "celeba-128" in list_models(pretrained=True)
    sizes = {folder.name: (folder / hub.WEIGHTS).stat().st_size for folder in hub.PACKAGED.iterdir() if folder.is_dir()}
    assert sizes.pop("expressions-48") <= 4_000_000
    assert sum(sizes.values()) <= 26_000_000
    recipe, config = load_recipe("celeba-128").model, editor.model.config
    assert (config.attributes, config.shape, config.z_grid) == (recipe.attributes, recipe.shape, recipe.z_grid)
    assert {"README.md", "training.json", "samples.png", "preprocessor.json"} <= {p.name for p in FOLDER.iterdir()}


def test_the_point_that_the_docs_give_lies_in_the_plane_that_the_map_draws(editor):
    absent, present = editor.model.class_means[editor.model.index("Eyeglasses")].tolist()
    given = set()
    for file in ("README.md", "docs/get-started.md", "docs/photos.md", "csvae_hub/cli/edit.py", "csvae_hub/cli/map.py"):
        text = (ROOT / file).read_text(encoding="utf-8")
        given |= set(re.findall(r'Eyeglasses(?:=|": \[)(-?\d\.\d), ?(-?\d\.\d)', text))
    assert given
    for point in given:
        for at, (low, high) in zip(map(float, point), square_of(absent, present), strict=True):
            assert low <= at <= high


def test_their_figures_are_those_of_the_docs():
    figures = hub.read_json(FOLDER / "evaluation.json")
    assert figures["data"]["test"]["count"] == 1516
    assert hub.read_json(ROOT / "docs/results/celeba-128-valid.json")["split"] == "valid"
    for name in ("docs/results/celeba-128.md", "csvae_hub/weights/celeba-128/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for part in ("attribute_change", "photos"):
            for key, goal in (("wished", 0.85), ("worst", 0.65)):
                assert figures[part][key] >= goal
                assert f" {100 * figures[part][key]:.1f} % |" in text


@pytest.mark.parametrize(
    ("name", "value"), [("Eyeglasses", True), ("Mouth_Slightly_Open", False), ("Male", 1.0), ("No_Beard", False)]
)
def test_an_edit_of_a_photo_shows_and_stays_in_its_place(editor, name, value):
    photo = Image.open(PHOTO).convert("RGB")
    before, after = (np.asarray(p.convert("RGB"), int) for p in (photo, editor.set_attribute(photo, name, value)))
    change = np.abs(after - before).max(2)
    assert (change > 40).sum() > 150  # it shows
    assert (change == 0).mean() > 0.9  # most of the photo is the photo, to the bit
    taken = editor.open(editor.set_attribute(photo, name, value))
    read = editor.model.posterior_y(taken.crops).mean[0, editor.model.index(name)].item()
    assert (read > 0.5) == value
