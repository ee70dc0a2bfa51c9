"""The largest face of a photo is found without the search for all; which face it is does not change by that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvae_hub import FaceEditor
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.editing import YuNet, detection
from csvae_hub.errors import FaceError
from csvae_hub.models import create_model

PHOTO = Image.open(Path(__file__).resolve().parents[2] / "examples/astronaut-512.png").convert("RGB")


@pytest.fixture(scope="module")
def detector():
    return YuNet()


def placed(faces, canvas=(1000, 1000), noisy=False):
    """The photo at several sides and places on a plain or a noisy canvas."""
    picture = Image.new("RGB", canvas, (90, 120, 70))
    if noisy:
        noise = np.random.default_rng(0).integers(0, 256, (canvas[1] // 8, canvas[0] // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize(canvas, Image.Resampling.BICUBIC)
    for side, left, top in faces:
        picture.paste(PHOTO.resize((side, side), Image.Resampling.LANCZOS), (left, top))
    return picture


SCENES = {
    "one, large": placed([(1000, 0, 0)]),
    "one, of 300 pixels": placed([(300, 600, 50)], noisy=True),
    "one, small": placed([(150, 20, 800)]),
    "one in a large photo": placed([(900, 2500, 1100)], (4000, 3000)),
    "two of about a size": placed([(430, 0, 200), (450, 500, 350)]),
    "the larger one below": placed([(250, 40, 40), (600, 380, 380)], noisy=True),
    "many": placed([(500, 0, 0), (400, 520, 40), (300, 60, 600), (350, 560, 560)]),
    "turned": PHOTO.rotate(25, Image.Resampling.BICUBIC),
    "on its head": PHOTO.resize((900, 900)).rotate(180),
    "grey": PHOTO.convert("L"),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_the_largest_face_alone_is_the_first_of_all(detector, scene):
    first = detector.detect(scene)[0]
    alone = detector.largest(scene)
    if alone is None:  # to be told by `detect`: it must be a small one
        assert first.size * detection.QUICK_SIDE / max(scene.size) < 1.5 * detection.QUICK_SMALL
        return
    assert np.hypot(*(alone.landmarks - first.landmarks).T).max() < 0.02 * first.size
    assert alone.size == pytest.approx(first.size, rel=0.05)


def test_a_sure_face_that_stands_as_expected_needs_no_second_look(detector, monkeypatch):
    looks = []
    seen = detector._seen
    monkeypatch.setattr(detector, "_seen", lambda *given, **more: looks.append(1) or seen(*given, **more))
    few, turn = {}, detection._turn
    for near in (detection.NEAR, -1.0):  # none is near enough for the second
        monkeypatch.setattr(detection, "NEAR", near)
        looks.clear()
        few[near] = detector.largest(SCENES["one, large"]), len(looks)
    (face, count), (exact, more) = few.values()
    assert more == count + 1 == 2 + len(detection.FINE_VIEWS)
    assert np.hypot(*(face.landmarks - exact.landmarks).T).max() < 0.02 * exact.size
    assert turn(face, face) == pytest.approx(0, abs=1e-9)
    monkeypatch.setattr(detection, "SURE", 1.1)  # and one that is not sure is looked at again and turned
    looks.clear()
    detector.largest(SCENES["one, large"])
    assert len(looks) == 2 + len(detection.FINE_VIEWS) + len(detection.TURNED_VIEWS)


def test_a_face_that_is_small_in_the_quick_look_is_left_to_the_search_for_all(detector, monkeypatch):
    scene = placed([(185, 500, 500)])
    assert detector.largest(scene) is None
    monkeypatch.setattr(detection, "QUICK_SMALL", 0)  # the quick look does see it
    assert detector.largest(scene).size == pytest.approx(detector.detect(scene)[0].size, rel=0.05)


def test_the_largest_face_is_told_at_once_but_for_small_ones(detector):
    told = {name for name, scene in SCENES.items() if detector.largest(scene) is not None}
    assert told >= set(SCENES) - {"one, small", "one, of 300 pixels", "one in a large photo"}
    assert detector.largest(Image.new("RGB", (300, 200))) is None


def test_a_photo_is_searched_finely_only_where_its_largest_face_does_not_tell(detector, monkeypatch):
    sides = []
    searched = detector._found_at

    def watched(image, scale, quick=False):
        sides.append(scale)
        return searched(image, scale, quick=quick)

    monkeypatch.setattr(detector, "_found_at", watched)
    config = ModelConfig(("Smiling",), shape=(3, 16, 16), z_dim=4, backbone=BackboneConfig(width=4, features=8))
    editor = FaceEditor(create_model(config), detector)
    (face,) = editor.align(SCENES["many"]).faces
    assert sides == [0.32]
    every = editor.align(SCENES["many"], face="all").faces
    assert len(every) == 4
    assert sides == [0.32, 0.64]
    assert np.abs(face.landmarks - every[0].landmarks).max() < 0.02 * face.size
    with pytest.raises(FaceError, match="cut by the border.*other faces"):
        editor.align(placed([(600, -225, 0), (350, 600, 600)]))
