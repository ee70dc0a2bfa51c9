"""Pictures that are not framed as the training pictures are told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from csvae_hub.editing import framing
from csvae_hub.editing.framing import framing_fault
from csvae_hub.images import Preprocessor

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


def test_nothing_is_said_without_a_detector(monkeypatch):
    framing._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert framing_fault(picture("astronaut-512.png"), Preprocessor()) == ""
