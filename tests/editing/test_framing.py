"""Pictures that are not framed as the training pictures are told."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from csvae_hub.editing import framing
from csvae_hub.editing.framing import framing_fault
from csvae_hub.errors import FramingWarning, ImageError
from csvae_hub.images import Preprocessor
from csvae_hub.models import CSVAE

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def picture(name):
    return Image.open(EXAMPLES / name).convert("RGB")


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("width", [0, 100])
def test_an_aligned_face_is_as_expected(size, width):
    aligned = picture("astronaut.png")
    wide = Image.new("RGB", (aligned.width + 2 * width, aligned.height), "grey")
    wide.paste(aligned, (width, 0))
    assert framing_fault(wide, Preprocessor(size=size)) == ""


def test_a_face_elsewhere_and_none_are_told_with_the_way_out():
    elsewhere = framing_fault(picture("astronaut-512.png"), Preprocessor())
    assert elsewhere.startswith("the face lies ")
    none = framing_fault(Image.new("RGB", (200, 200), "grey"), Preprocessor())
    assert none.startswith("no face is found in this picture")
    for words in (elsewhere, none):
        assert "FaceEditor finds faces in photos and aligns them" in words


def test_set_attribute_of_a_file_warns_and_of_anything_else_does_not(tmp_path):
    model = CSVAE.from_pretrained("celeba-64", device="cpu")
    path = str(EXAMPLES / "astronaut-512.png")
    with pytest.warns(FramingWarning, match=r"astronaut-512\.png: the face lies .* FaceEditor") as caught:
        model.set_attribute(path, "Eyeglasses", True)
    assert caught[0].filename == __file__
    Image.new("RGB", (200, 200), "grey").save(tmp_path / "grey.png")
    with pytest.warns(FramingWarning, match="no face is found"):
        model.edit(tmp_path / "grey.png", {"Smiling": True})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_attribute(EXAMPLES / "astronaut.png", "Eyeglasses", True)
        model.set_attribute(Image.open(path), "Eyeglasses", True)
        model.set_attribute([path], "Eyeglasses", True)
        picture("astronaut-512.png").crop((0, 0, 64, 64)).save(tmp_path / "crop.png")
        model.set_attribute(tmp_path / "crop.png", "Eyeglasses", True)
    with pytest.raises(ImageError):
        model.set_attribute(tmp_path / "none.png", "Eyeglasses", True)


def test_nothing_is_said_without_a_detector(monkeypatch):
    framing._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert framing_fault(picture("astronaut-512.png"), Preprocessor()) == ""
