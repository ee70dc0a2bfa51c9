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
    assert np.percentile(difference, 99.5) < 30


def variant(name: str) -> Image.Image:
    photo = Image.open(PORTRAIT).convert("RGB")
    if name == "turned":
        return photo.rotate(25, Image.Resampling.BICUBIC, expand=True)
    if name == "grey":
        return photo.convert("L")
    if name == "alpha":
        photo.putalpha(Image.linear_gradient("L").resize(photo.size))
        return photo
    if name == "large":
        return photo.resize((4000, 4000), Image.Resampling.BICUBIC)
    twice = Image.new("RGB", (1024, 512))
    twice.paste(photo, (0, 0))
    twice.paste(photo, (512, 0))
    return twice


@pytest.mark.parametrize("name", ["turned", "grey", "alpha", "large", "twice"])
def test_a_photo_as_people_have_them_is_edited_within_its_crops_alone(packaged, name):
    photo = variant(name)
    opened = packaged.open(photo, face="all")
    assert len(opened.faces) == (2 if name == "twice" else 1)
    edited = opened.edit({"Eyeglasses": 1.0})
    assert (edited.size, edited.mode) == (photo.size, photo.mode)
    changed = np.asarray(edited) != np.asarray(photo)
    rows, columns = np.nonzero(changed.any(-1) if changed.ndim == 3 else changed)
    places = np.stack([columns, rows], 1) + 0.5
    within = [((t(places) > 0) & (t(places) < opened.crops.shape[-1])).all(1) for t in opened.aligned.transforms]
    assert all(of_face.sum() > 2_000 for of_face in within)
    assert np.any(within, axis=0).all()
    for unchanged in (opened.render(opened.latents), opened.edit({"Smiling": True})):
        assert np.array_equal(unchanged, photo)
