"""The packaged model and detector on a real photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvae_hub import CSVAE, FaceEditor
from csvae_hub.editing import YuNet
from csvae_hub.errors import FaceError

PORTRAIT = Path(__file__).resolve().parents[2] / "examples/astronaut-512.png"


@pytest.fixture(scope="module")
def packaged():
    return FaceEditor(CSVAE.from_pretrained("celeba-64", device="cpu"), YuNet())


def test_the_packaged_model_edits_a_photo(packaged):
    opened = packaged.open(PORTRAIT)
    glasses = opened.edit({"Eyeglasses": True})
    values = [np.asarray(picture, dtype=float)[90:115, 190:260].mean() for picture in (Image.open(PORTRAIT), glasses)]
    assert values[0] - values[1] > 10  # it is darker around the eyes
    read = packaged.model.predict_attributes(opened.crops)
    assert read["Smiling"] > 0.5
    assert np.array_equal(opened.edit({"Smiling": True}), Image.open(PORTRAIT))


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((225, 0, 512, 512), r"cut by the border of this photo of 287×512 .* reaches \d+ pixels beyond the left: "),
        ((0, 0, 225, 512), "pixels beyond the right: "),
        ((0, 115, 512, 512), "pixels beyond the top: "),
        ((0, 0, 512, 130), "pixels beyond the bottom: "),
    ],
)
def test_a_face_that_the_photo_cuts_is_told(packaged, box, words):
    with pytest.raises(FaceError, match=words):
        packaged.open(Image.open(PORTRAIT).crop(box))


@pytest.mark.parametrize(("side", "error"), [(61, "the face is too small"), (20, "no face found")])
def test_a_face_of_a_dozen_pixels_is_told(packaged, side, error):
    with pytest.raises(FaceError, match=error):
        packaged.open(Image.open(PORTRAIT).resize((side, side)))


def test_the_edit_of_a_larger_photo_is_the_edit_made_larger(packaged):
    small = Image.open(PORTRAIT)
    large = small.resize((1536, 1536), Image.Resampling.BICUBIC)
    edited = packaged.edit(large, {"Eyeglasses": True}).resize((512, 512), Image.Resampling.BOX)
    expected = packaged.edit(small, {"Eyeglasses": True})
    difference = np.abs(np.asarray(edited, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99.5) < 25
