"""Editing the faces of photos: what is changed, what stays to the bit, and what is said where it can't be done."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub import FaceEditor
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.editing import Face
from csvae_hub.editing.alignment import aligned, fit
from csvae_hub.editing.blending import Paste
from csvae_hub.errors import FaceError, ImageError, MissingExtraError, NoFaceError, UnknownAttributeError
from csvae_hub.images import CELEBA_LANDMARKS, Preprocessor
from csvae_hub.models import create_model, list_models

FRAME = np.array(CELEBA_LANDMARKS)
ATTRIBUTES = ("Smiling", "Hat", "Young")
NEAR, FAR, TINY = FRAME * 0.5 + (5, 0), FRAME * 0.3 + (100, 40), FRAME / 10 + (10, 110)
CUT = FRAME * 0.4 + (135, 30)
ORIENTATION = 0x0112


class Fixed:
    """A detector that finds what it is told, in the order told."""

    def __init__(self, *landmarks):
        self.landmarks, self.seen = landmarks, []

    def detect(self, image):
        self.seen.append(image)
        return [Face((*points.min(0), *points.max(0)), points, 0.9) for points in self.landmarks]


def build(name="csvae", **changes):
    """A tiny model whose edits are strong enough to see."""
    torch.manual_seed(0)
    fields = {"attributes": ATTRIBUTES, "shape": (3, 16, 16), "z_dim": 8, "model": name}
    model = create_model(ModelConfig(**{**fields, "backbone": BackboneConfig(width=4, features=16), **changes}))
    with torch.no_grad():
        for parameter in (*model.parameters(), *(b for n, b in model.named_buffers() if n == "class_means")):
            parameter.add_(0.3 * torch.randn_like(parameter))
        for _ in range(3):
            model(torch.rand(20, *model.config.shape), torch.randint(2, (20, 3)).float())
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def editor(model):
    return FaceEditor(model, Fixed(FAR, NEAR))


def noise(mode="RGB", width=180, height=120):
    values = np.random.default_rng(3).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(values[..., 0] if mode == "L" else values)


def same(one, other):
    return np.array_equal(np.asarray(one), np.asarray(other))


def nearly(one, other):
    """The same but for rounding: batches of other sizes are added up in another order."""
    return np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1


def changed_box(one, other):
    """Left, top, right, bottom of what differs."""
    y, x = np.nonzero((np.asarray(one) != np.asarray(other)).reshape(one.height, one.width, -1).any(-1))
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def crop_box(landmarks):
    """The bounds of the crop of a face that lies upright."""
    corners = fit(FRAME, landmarks)([(15, 35), (163, 183)])
    return (*np.floor(corners[0]), *np.ceil(corners[1]))


# -- what comes back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("paste", get_args(Paste))
def test_the_face_alone_is_changed_and_mode_alpha_and_information_come_back(editor, mode, paste):
    photo = noise(mode)
    photo.info |= {"icc_profile": b"profile", "exif": b"Exif\0\0"}
    edited = editor.edit(photo, {"Smiling": 1.0}, paste=paste)
    assert (edited.mode, edited.size) == (photo.mode, photo.size)
    assert edited.info["icc_profile"] == b"profile"
    assert edited.info["exif"] == b"Exif\0\0"
    left, top, right, bottom = changed_box(photo, edited)
    x, y, x_end, y_end = crop_box(NEAR)
    assert x <= left < right <= x_end
    assert y <= top < bottom <= y_end
    if mode.endswith("A"):
        assert same(photo.getchannel("A"), edited.getchannel("A"))


@pytest.mark.parametrize("shape", [(120, 180), (120, 180, 1), (120, 180, 3), (120, 180, 4)])
def test_an_array_comes_back_as_an_array_and_the_given_one_is_left_alone(editor, shape):
    photo = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = photo.copy()
    edited = editor.set_attribute(photo, "Hat", 1.0)
    assert (edited.shape, edited.dtype) == (shape, np.uint8)
    assert np.array_equal(photo, before)
    assert not np.array_equal(edited, photo)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_comes_back_as_an_upright_picture(editor, tmp_path, kind):
    upright = noise()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    edited = editor.edit(kind(tmp_path / "a.png"), {"Hat": 1.0})
    assert same(edited, editor.edit(upright, {"Hat": 1.0}))
    assert edited.getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("mode", ["P", "CMYK", "1", "I;16"])
def test_other_modes_are_converted_as_images_are(editor, mode):
    values = np.arange(180 * 120, dtype=np.uint16).reshape(120, 180)
    photo = Image.fromarray(values) if mode == "I;16" else noise().convert(mode)
    edited = editor.edit(photo, {"Hat": 1.0})
    assert edited.mode == ("L" if mode in ("1", "I;16") else "RGB")
    assert edited.size == photo.size


def test_the_detector_is_shown_the_upright_photo_in_rgb(model):
    detector = Fixed(NEAR)
    FaceEditor(model, detector).open(noise("LA"))
    assert same(detector.seen[0], noise("LA").convert("RGB"))


# -- what is edited ----------------------------------------------------------------------------------------------


def test_the_crops_are_the_aligned_faces_and_the_latents_theirs(editor, model):
    opened = editor.open(noise(), face="all")
    assert opened.crops.shape == (2, 3, 16, 16)
    for crop, landmarks in zip(opened.crops, (NEAR, FAR), strict=True):
        expected = np.asarray(aligned(noise(), landmarks, model.preprocessor))
        assert np.array_equal((crop * 255).round().byte().movedim(0, -1), expected)
    assert torch.equal(opened.latents.z, model.encode(opened.crops).z)
    assert len(opened.faces) == len(opened.latents) == 2


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 16, 16)])
def test_the_change_of_the_decoded_face_is_added_to_the_photo(name, shape):
    model = build(name, shape=shape)
    landmarks = (FRAME - (15, 35)) * 64 / 148
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    opened = FaceEditor(model).open(grey, landmarks=landmarks)
    moved = model.edit(opened.latents, {"Hat": 1 - opened.latents.y[0, 1].item()})
    with torch.no_grad():
        change = (model.decode(moved) - model.decode(opened.latents)).expand(-1, 3, -1, -1)
    fine = torch.nn.functional.interpolate(change, (64, 64), mode="bicubic", antialias=True)[0]
    expected = (128 + 255 * fine).round().clamp(0, 255)[:, 12:52, 12:52].movedim(0, -1)
    found = np.asarray(opened.render(moved, paste="difference"), dtype=int)[12:52, 12:52]
    assert np.abs(found - expected.numpy()).max() <= 1
    assert np.abs(found - 128).max() > 2


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("paste", get_args(Paste))
def test_own_latents_change_no_pixel(name, paste):
    photo = noise()
    opened = FaceEditor(build(name), Fixed(NEAR, FAR)).open(photo, face="all")
    assert same(opened.render(opened.latents, paste=paste), photo)
    assert same(opened.edit({}, paste=paste), photo)
    assert opened.edit({}) is not photo


@pytest.mark.parametrize("name", list_models())
def test_true_and_false_leave_a_face_that_is_so_already_and_numbers_do_not(name):
    photo = noise()
    opened = FaceEditor(build(name), Fixed(NEAR)).open(photo)
    present = bool(opened.latents.y[0, 0] > 0.5)
    assert same(opened.edit({"Smiling": present}), photo)
    assert not same(opened.edit({"Smiling": not present}), photo)
    if name == "csvae":
        assert not same(opened.edit({"Smiling": float(present)}), photo)
        assert not same(opened.edit({"Smiling": "sample"}, generator=torch.Generator().manual_seed(0)), photo)


def test_a_face_that_is_so_already_keeps_its_latents_beside_one_that_is_not(editor):
    opened = editor.open(noise(), face="all")
    y = torch.tensor([[0.0, 1, 0], [1.0, 1, 0]])
    latents = replace(opened.latents, y=y)
    edited = editor.edit_latents(latents, {"Smiling": True, "Hat": True})
    assert torch.equal(edited.w[1], latents.w[1])
    assert torch.equal(edited.w[0, 1:], latents.w[0, 1:])
    assert not torch.equal(edited.w[0, 0], latents.w[0, 0])


def test_several_attributes_are_set_as_the_model_sets_them(editor, model):
    opened = editor.open(noise())
    values = {"Smiling": 0.3, "Hat": [1.0, -1.0]}
    assert same(opened.edit(values), opened.render(model.edit(opened.latents, values)))


def test_a_photo_as_a_value_gives_its_largest_face(editor, tmp_path):
    opened, other = editor.open(noise()), noise(width=200)
    other.save(tmp_path / "other.png")
    expected = opened.render(opened.latents.replace("Hat", editor.open(other).latents.w[:, 1]))
    for value in (other, np.asarray(other), tmp_path / "other.png", str(tmp_path / "other.png")):
        assert same(opened.edit({"Hat": value}), expected)


def test_the_decoded_face_itself_replaces_the_photos_without_detail(editor, model):
    landmarks = (FRAME - (15, 35)) * 64 / 148
    opened = editor.open(noise(width=64, height=64), landmarks=landmarks)
    moved = model.edit(opened.latents, {"Hat": 2.0})
    with torch.no_grad():
        face = torch.nn.functional.interpolate(model.decode(moved), (64, 64), mode="bicubic", antialias=True)[0]
    found = np.asarray(opened.render(moved, paste="whole"), dtype=int)[12:52, 12:52]
    assert np.abs(found - (255 * face.clamp(0, 1)[:, 12:52, 12:52]).movedim(0, -1).numpy()).max() <= 1


def test_a_preprocessor_of_other_landmarks_moves_the_crop(model):
    moved = build()
    moved.preprocessor = Preprocessor(size=16, landmarks=tuple((x + 20, y) for x, y in CELEBA_LANDMARKS))
    crops = [FaceEditor(m).open(noise(), landmarks=NEAR).crops for m in (model, moved)]
    assert not torch.equal(*crops)


# -- which faces -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("face", "expected"), [("largest", [NEAR]), (0, [NEAR]), (1, [FAR]), ("all", [NEAR, FAR])])
def test_faces_are_numbered_from_the_largest(editor, face, expected):
    opened = editor.open(noise(), face=face)
    assert np.array_equal([f.landmarks for f in opened.faces], expected)
    assert opened.skipped == ()


@pytest.mark.parametrize(("face", "expected"), [("largest", [NEAR]), (0, [FAR]), (1, [NEAR]), ("all", [FAR, NEAR])])
def test_given_landmarks_need_no_detector_and_keep_their_order(model, monkeypatch, face, expected):
    monkeypatch.setitem(sys.modules, "cv2", None)
    opened = FaceEditor(model).open(noise(), face=face, landmarks=np.stack([FAR, NEAR]))
    assert np.array_equal([f.landmarks for f in opened.faces], expected)
    assert [f.score for f in opened.faces] == [1.0] * len(expected)


def test_overlapping_faces_are_edited_one_after_another(model):
    editor, photo = FaceEditor(model, Fixed(NEAR, NEAR + (20, 5))), noise()
    both = editor.edit(photo, {"Hat": 1.0}, face="all", paste="difference")
    opened = editor.open(photo, face="all")
    first = editor.open(photo, face=0).edit({"Hat": 1.0}, paste="difference")
    second = FaceEditor(model).open(first, landmarks=opened.faces[1].landmarks)
    second.latents = opened.latents[1]
    assert nearly(both, second.edit({"Hat": 1.0}, paste="difference"))


def test_of_all_faces_those_that_cannot_be_edited_are_left_out_and_told(model):
    opened = FaceEditor(model, Fixed(TINY, CUT, NEAR)).open(noise(), face="all")
    assert np.array_equal([f.landmarks for f in opened.faces], [NEAR])
    reasons = {id(face.landmarks): reason for face, reason in opened.skipped}
    assert reasons[id(CUT)].startswith("the face is cut by the border")
    assert reasons[id(TINY)].startswith("the face is too small")


def test_a_list_is_edited_as_its_photos_are_and_goes_through_the_model_as_one_batch(model, monkeypatch):
    editor = FaceEditor(model, Fixed(NEAR, FAR))
    photos = [noise(), np.asarray(noise("RGBA", 200, 150)), noise("L")]
    alone = [editor.edit(photo, {"Hat": 1.0}, face="all") for photo in photos]
    batches = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda latents: batches.append(len(latents)) or decode(latents))
    together = editor.edit(photos, {"Hat": 1.0}, face="all")
    assert batches == [12]  # own and edited
    assert [type(photo) for photo in together] == [type(photo) for photo in photos]
    for one, other in zip(alone, together, strict=True):
        assert nearly(one, other)


def test_a_list_takes_landmarks_photo_by_photo(model):
    detector = Fixed(NEAR)
    editor = FaceEditor(model, detector)
    edited = editor.edit((noise(), noise()), {"Hat": 1.0}, landmarks=[FAR, None])
    assert len(detector.seen) == 1
    assert nearly(edited[0], editor.edit(noise(), {"Hat": 1.0}, landmarks=FAR))
    assert not same(edited[0], edited[1])


# -- what can't be done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "options", "error", "words"),
    [
        ([], {}, NoFaceError, r"^no face found in this photo of 180×120 pixels: give its five landmarks, edit it as a"),
        (
            [NEAR],
            {"face": 2},
            FaceError,
            "^face: expected a number below 1, since so many faces are found, got 2: choose 0$",
        ),
        ([NEAR], {"face": -1}, ValueError, "^face: expected 'largest', 'all' or a number from 0, got -1$"),
        ([NEAR], {"face": "first"}, ValueError, "^face: expected 'largest', 'all' or a number from 0, got 'first'$"),
        ([NEAR], {"face": True}, ValueError, "^face: expected 'largest', .* got True$"),
        ([TINY], {}, FaceError, "^the face is too small: expected eyes at least 6 pixels apart, got 3.9: take a photo"),
        (
            [CUT],
            {},
            FaceError,
            r"^the face is cut by the border of .* 180×120 pixels: it reaches \d+ pixels beyond the r",
        ),
        ([CUT, TINY], {}, FaceError, "this photo has other faces: choose one by its number$"),
        (
            [CUT, TINY],
            {"face": "all"},
            FaceError,
            "^none of 2 faces can be edited: face 0: the face is cut .* face 1: ",
        ),
        ([TINY], {"face": "all"}, FaceError, "^the face is too small"),
        ([NEAR[[1, 0, 2, 4, 3]]], {}, FaceError, "got them mirrored"),
        ([], {"landmarks": np.zeros((3, 2))}, FaceError, r"^landmarks: expected .* got shape \(3, 2\)"),
        ([], {"landmarks": [[1, 2], [3]]}, FaceError, "^landmarks: expected numbers of shape"),
        ([], {"landmarks": np.full((1, 5, 2), np.inf)}, FaceError, "^landmarks: expected finite numbers"),
        ([], {"landmarks": np.ones((5, 2))}, FaceError, "^landmarks: expected five points of a face, got all within"),
    ],
)
def test_what_can_not_be_edited_is_told(model, found, options, error, words):
    with pytest.raises(error, match=words):
        FaceEditor(model, Fixed(*found)).open(noise(), **options)


def test_errors_name_the_file_and_the_place_in_the_list(model, tmp_path):
    editor, path = FaceEditor(model, Fixed()), tmp_path / "a.png"
    noise().save(path)
    with pytest.raises(NoFaceError, match=f"^{path}: no face found"):
        editor.open(path)
    with pytest.raises(NoFaceError, match=rf"^photos\[1\]: {path}: no face found"):
        editor.edit([noise(), path], {"Hat": True}, landmarks=[NEAR, None])
    with pytest.raises(
        ImageError, match=rf"^photos\[0\]: {tmp_path / 'none.png'}: expected a picture file, got nothing"
    ):
        editor.edit([tmp_path / "none.png"], {"Hat": True})


@pytest.mark.parametrize(
    ("photos", "options", "error", "words"),
    [
        ([], {}, ImageError, "^expected at least one photo, got an empty list"),
        (
            [noise()],
            {"landmarks": [NEAR, NEAR]},
            FaceError,
            "^landmarks: expected an entry for each of 1 photos, got 2",
        ),
        (torch.zeros(3, 20, 20), {}, ImageError, r"^expected a path, a PIL image or a uint8 array .*, got Tensor$"),
        (np.zeros((20, 20, 3)), {}, ImageError, "^expected an array of uint8"),
    ],
)
def test_what_is_no_photo_is_told(editor, photos, options, error, words):
    with pytest.raises(error, match=words):
        editor.edit(photos, {"Hat": True}, **options)


def test_unknown_attributes_are_told_before_a_face_is_looked_for(model):
    with pytest.raises(UnknownAttributeError, match="did you mean 'Smiling'"):
        FaceEditor(model, Fixed()).edit(noise(), {"Smilin": True})


def test_latents_of_other_faces_are_refused(editor):
    opened = editor.open(noise(), face="all")
    with pytest.raises(ValueError, match="^expected latents of 2 faces, got 1$"):
        opened.render(opened.latents[0])


def test_a_model_of_vectors_is_refused():
    vectors = build(shape=(5,), backbone=BackboneConfig(name="mlp", width=8, features=16))
    with pytest.raises(ValueError, match="^expected a model of pictures, got one of vectors of 5 numbers$"):
        FaceEditor(vectors)


def test_without_opencv_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'csvae-hub\[align\]'"):
        FaceEditor(model).open(noise())


def test_errors_are_of_the_images_kind():
    assert issubclass(NoFaceError, FaceError)
    assert issubclass(FaceError, ImageError)
