"""Editors by a model's name, copied, pickled, and with many faces in a photo."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvae_hub import FaceEditor
from csvae_hub.editing import Face, YuNet, detection
from csvae_hub.editing.batches import BatchEditor
from csvae_hub.editing.detection import MAX_FACES
from csvae_hub.errors import UnknownModelError

PORTRAIT = Path(__file__).resolve().parents[2] / "examples/astronaut-512.png"


@pytest.fixture(scope="module")
def editor():
    return FaceEditor("celeba-64")


def test_a_model_is_taken_by_its_name(editor):
    assert "Smiling" in editor.model.attributes
    assert not editor.model.training
    with pytest.raises(UnknownModelError, match="did you mean 'celeba-64'"):
        FaceEditor("celeba-46")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_used_editor_and_an_open_photo_can_be_copied(editor, copied):
    opened = editor.open(PORTRAIT)
    expected = np.asarray(opened.edit({"Eyeglasses": 1.0}))
    other = copied(editor)
    assert np.array_equal(other.detect(PORTRAIT)[0].landmarks, editor.detect(PORTRAIT)[0].landmarks)
    assert np.array_equal(copied(opened).edit({"Eyeglasses": 1.0}), expected)


def test_a_photo_alone_is_edited_in_place_with_the_same_pixels(editor):
    with Image.open(PORTRAIT) as opened:
        photo = opened.convert("RGB")
    expected = editor.edit(photo, {"Eyeglasses": 1.0})
    assert np.array_equal(photo, Image.open(PORTRAIT).convert("RGB"))
    batches, pair = BatchEditor(editor, {"Eyeglasses": 1.0}, "largest", True), [photo.copy(), photo.copy()]
    of_two = batches.edit([batches.prepare(each) for each in pair])
    assert all(np.array_equal(each, photo) for each in pair)
    ready = batches.prepare(photo)
    assert ready.picture is photo
    (alone,) = batches.edit([ready])
    assert alone.picture is photo
    assert np.array_equal(alone.picture, expected)
    assert all(np.abs(np.asarray(two.picture, int) - np.asarray(expected, int)).max() <= 1 for two in of_two)


def test_a_face_seen_twice_is_one(monkeypatch):
    """The second time upside down, with its landmarks elsewhere in the same box."""
    detector = YuNet()
    with Image.open(PORTRAIT) as opened:
        photo = opened.convert("RGB")
    (face,) = detector.detect(photo)
    middle = np.array([(face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2])
    again = Face(tuple(np.array(face.box) + 5), 2 * middle - face.landmarks, face.score - 0.1)
    beside = Face(tuple(np.array(face.box) + 0.8 * face.size), face.landmarks + 0.8 * face.size, face.score - 0.2)
    monkeypatch.setattr(detector, "_searched", lambda image: [again, face, beside])
    monkeypatch.setattr(detector, "_looked_at_again", lambda image, found: found)
    assert {found.score for found in detector.detect(photo)} == {face.score, beside.score}


def test_the_hundred_largest_of_thousands_of_faces_are_looked_at(editor, monkeypatch):
    points = np.array([(24, 30), (40, 30), (32, 40), (26, 48), (38, 48)], dtype=float)
    many = [
        Face((60.0 * (i % 50), 60.0 * (i // 50), 60.0 * (i % 50) + 50, 60.0 * (i // 50) + 40 + i / 200), points, 0.9)
        for i in range(2_000)
    ]
    many = [Face(face.box, points + face.box[:2], 0.9) for face in many]
    seen = []
    monkeypatch.setattr(detection.YuNet, "_searched", lambda self, image: many)
    monkeypatch.setattr(detection.YuNet, "_looked_at_again", lambda self, image, face: seen.append(face) or face)
    opened = editor.align(Image.new("RGB", (3_100, 2_500)), face="all")
    assert len(seen) == len(opened.faces) + len(opened.skipped) == MAX_FACES
    assert min(face.size for face in seen) >= sorted(face.size for face in many)[-MAX_FACES]
    assert opened.notes == ("at most 100 faces of a photo are edited, the largest ones: there may be others",)
    assert editor.align(Image.new("RGB", (3_100, 2_500)), face=0).notes == ()
