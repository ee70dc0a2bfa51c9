"""The similarity transform of five landmarks, and the antialiased warp to the crop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from csvae_hub.editing import alignment
from csvae_hub.editing.alignment import (
    Similarity,
    aligned,
    check_landmarks,
    fit,
    from_crop,
    template,
    to_crop,
    warped,
)
from csvae_hub.errors import FaceError
from csvae_hub.images import CELEBA_LANDMARKS, Preprocessor

P = Preprocessor(size=64)
FRAME = np.array(CELEBA_LANDMARKS)
NOISE = np.random.default_rng(0)


def similarity(degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    a = scale * np.exp(1j * np.deg2rad(degrees))
    return Similarity(np.array([[a.real, -a.imag], [a.imag, a.real]]), np.array(shift))


def centred(degrees, side, photo):
    """What makes a crop of 64 pixels of a square in the middle of a photo."""
    transform = similarity(degrees, 64 / side)
    return Similarity(transform.linear, 32 - transform.linear @ [photo / 2, photo / 2])


SIMILARITIES = st.builds(
    similarity, st.floats(-180, 180), st.floats(0.02, 50), st.tuples(st.floats(-5e3, 5e3), st.floats(-5e3, 5e3))
)


@given(SIMILARITIES)
def test_a_similarity_is_recovered_from_its_points(transform):
    found = fit(FRAME, transform(FRAME))
    assert found.linear == pytest.approx(transform.linear, abs=1e-7)
    assert found.shift == pytest.approx(transform.shift, abs=1e-5)
    assert found.scale == pytest.approx(transform.scale)


@given(SIMILARITIES)
def test_the_inverse_undoes_it(transform):
    assert transform.inverse()(transform(FRAME)) == pytest.approx(FRAME, abs=1e-6)
    assert transform(transform.inverse()(FRAME)) == pytest.approx(FRAME, abs=1e-6)


def umeyama(source, target):
    """The equations of the paper: by singular values, without a mirror image."""
    p, q = source - source.mean(0), target - target.mean(0)
    u, values, v = np.linalg.svd(q.T @ p)
    signs = np.diag([1, np.sign(np.linalg.det(u @ v))])
    linear = np.trace(np.diag(values) @ signs) / (p**2).sum() * u @ signs @ v
    return linear, target.mean(0) - linear @ source.mean(0)


@pytest.mark.parametrize("seed", range(5))
def test_the_closed_form_is_umeyamas(seed):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    linear, shift = umeyama(source, target)
    found = fit(source, target)
    assert found.linear == pytest.approx(linear)
    assert found.shift == pytest.approx(shift)


@pytest.mark.parametrize("size", [16, 48, 64])
def test_landmarks_in_a_crop_make_the_template_of_crops_like_it(size):
    points = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])
    landmarks = tuple(map(tuple, from_crop(points * size, size).tolist()))
    assert template(Preprocessor(size=size, landmarks=landmarks)) == pytest.approx(points * size)
    assert template(Preprocessor(size=128, landmarks=landmarks)) == pytest.approx(points * 128)
    assert from_crop(template(P), 64) == pytest.approx(FRAME)


@pytest.mark.parametrize("size", [16, 64, 128])
def test_a_picture_in_the_frame_gives_the_loaders_crop_to_the_bit(size):
    picture = Image.fromarray(NOISE.integers(0, 256, (218, 178, 3), dtype=np.uint8))
    expected = picture.crop((15, 35, 163, 183)).resize((size, size), Image.Resampling.BICUBIC)
    if size == 16:  # whole pixels are averaged first: the same but for rounding and the softer edge of the kernel
        found = np.asarray(aligned(picture, CELEBA_LANDMARKS, Preprocessor(size=size)), dtype=float)
        assert np.abs(found - np.asarray(expected)).mean() < 4
    else:
        assert aligned(picture, CELEBA_LANDMARKS, Preprocessor(size=size)).tobytes() == expected.tobytes()


def test_weights_with_other_landmarks_are_obeyed():
    shifted = Preprocessor(size=64, landmarks=tuple((x + 10, y) for x, y in CELEBA_LANDMARKS))
    assert template(shifted) - template(P) == pytest.approx(np.tile([10 * 64 / 148, 0], (5, 1)))


def slope(transform, size, photo):
    """A photo whose values are a linear function of the place, and what its crop must be."""
    y, x = np.mgrid[:photo, :photo] + 0.5
    steepness = 200 / photo
    values = 20 + steepness * np.stack([x, y, (x + y) / 2], -1)
    inner = transform.inverse()(np.stack(np.mgrid[:size, :size][::-1], -1) + 0.5)
    expected = 20 + steepness * np.stack([inner[..., 0], inner[..., 1], inner.sum(-1) / 2], -1)
    return Image.fromarray(values.round().astype(np.uint8)), expected


@pytest.mark.parametrize("degrees", [0, 10, 90, -135, 180])
@pytest.mark.parametrize("side", [20, 70, 128, 300, 1000])
def test_each_pixel_of_the_crop_is_the_photo_at_its_place(side, degrees):
    side_of_photo = side * 3 // 2
    transform = centred(degrees, side, side_of_photo)
    photo, expected = slope(transform, 64, side_of_photo)
    error = np.asarray(warped(photo, transform, 64)) - expected
    assert np.abs(error).max() < 1.8
    assert np.abs(error.mean((0, 1))).max() < 0.45  # Pillow rounds halves up, twice


@pytest.mark.parametrize("degrees", [0, 17, 45])
@pytest.mark.parametrize("side", [140, 300, 1000])
def test_what_is_finer_than_the_crop_is_averaged_not_aliased(side, degrees):
    checks = np.indices((side * 3 // 2, side * 3 // 2)).sum(0).astype(np.uint8) % 2 * 255
    crop = warped(Image.fromarray(checks), centred(degrees, side, len(checks)), 64)
    assert np.abs(np.asarray(crop, dtype=float) - 127.5).max() < 8


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_the_border_goes_on_beyond_the_photo(mode):
    photo = Image.new(mode, (60, 50), {"L": 77, "LA": (77, 0)}.get(mode, (77, 77, 77, 0)[: len(mode)]))
    crop = warped(photo, similarity(30, 0.5, (-10, 20)), 64)
    assert crop.mode == "RGB"
    assert set(crop.tobytes()) == {77}


def turned(points, degrees):
    return similarity(degrees)(points - points.mean(0)) + points.mean(0)


@pytest.mark.parametrize("degrees", [0, 25, 90, 180, -60])
def test_landmarks_of_a_face_are_good_whichever_way_it_lies(degrees):
    points = turned(FRAME, degrees)
    assert check_landmarks(points.tolist()) == pytest.approx(points)


@pytest.mark.parametrize(
    ("landmarks", "words"),
    [
        (FRAME[:4], r"^landmarks: expected five points \(x, y\), shape \(5, 2\), got shape \(4, 2\): give the eye at"),
        (FRAME.T, r"expected five points .* got shape \(2, 5\)"),
        ("face", r"^landmarks: expected five points \(x, y\), got 'face'"),
        (np.where(FRAME > 150, np.nan, FRAME), r"^landmarks: expected finite numbers, got \[\[69.4, 111.3\]"),
        (np.full((5, 2), 7.0), r"^landmarks: expected five points of a face, got all within a pixel of \(7.0, 7.0\)"),
        (
            FRAME[[1, 0, 2, 4, 3]],
            r"^landmarks: expected the eye at .*; got them mirrored: swap left and right, or x an",
        ),
        (FRAME[:, ::-1], "got them mirrored"),
        (
            FRAME[[0, 1, 3, 4, 2]],
            r"^landmarks: expected points that lie as in a face, got .*: give the eye at the pict",
        ),
    ],
)
def test_impossible_landmarks_are_told(landmarks, words):
    with pytest.raises(FaceError, match=words):
        check_landmarks(landmarks)


@pytest.mark.parametrize(
    ("landmarks", "words"),
    [
        (FRAME - (80, 0), r"by the border of this photo of 178×218 pixels: it reaches 34 pixels beyond the left: take"),
        (FRAME + (80, 0), r"it reaches 35 pixels beyond the right: "),
        (FRAME - (0, 120), r"it reaches 50 pixels beyond the top: "),
        (FRAME + (-75, 70), r"it reaches 29 pixels beyond the left and 35 pixels beyond the bottom: "),
        (FRAME / 8, r"^the face is too small: expected eyes at least 6 pixels apart, got 4.8.: take a photo of a high"),
    ],
)
def test_a_face_that_is_cut_or_tiny_is_told(landmarks, words):
    with pytest.raises(FaceError, match=words.replace("4.8.", r"4\.\d")):
        aligned(Image.new("RGB", (178, 218)), landmarks, P)


@pytest.mark.parametrize("shift", [(-46, 0), (45, 0), (0, -70), (0, 34)])
def test_a_crop_whose_background_alone_lies_outside_is_good(shift):
    crop = aligned(Image.new("RGB", (178, 218), "red"), FRAME + shift, P)
    assert crop.getcolors() == [(64 * 64, (255, 0, 0))]


def test_the_face_is_measured_in_the_photo():
    transform = similarity(20, 3, (100, 50))
    outline = alignment.face_outline(transform(FRAME))
    left, top, right, bottom = alignment.FACE_BOX
    assert transform.inverse()(outline) == pytest.approx(
        np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    )
    assert alignment.eyes_apart(transform(FRAME)) == pytest.approx(3 * 38.8)


def test_the_template_lies_where_the_crop_has_it():
    assert to_crop(FRAME, P)([(15, 35), (163, 183)]) == pytest.approx(np.array([(0, 0), (64, 64)]))
