"""Clips: a face is followed, its landmarks are smoothed, and the edit is the same in each frame."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from csvae_hub import CSVAE, FaceEditor
from csvae_hub.editing import Face, video
from csvae_hub.errors import ImageError

PHOTO = Path(__file__).resolve().parents[2] / "examples/astronaut-512.png"
LANDMARKS = np.array([(30.0, 40), (60, 40), (45, 58), (33, 72), (57, 72)])


class Detector:
    """Finds what it is told, frame by frame."""

    def __init__(self, frames):
        self.frames = iter(frames)

    def detect(self, image):
        return [Face((0, 0, 1, 1), points, 1.0) for points in next(self.frames)]


@pytest.fixture(scope="module")
def model():
    return CSVAE.from_pretrained("celeba-64", device="cpu")


def edited_by(editor, frames, ramp=0):
    track = video.smoothed(list(video.follow(editor, frames)), 25)
    return list(video.edit_frames(editor, frames, track, {"Eyeglasses": 1.5}, ramp=ramp))


def jitter(track):
    return float(np.square(np.diff(np.array(track), 2, axis=0)).mean() ** 0.5)


def test_smoothing_takes_noise_and_no_place_from_a_face_at_rest():
    noise = norm.rvs(size=(100, 5, 2), scale=0.5, random_state=0)
    track = list(LANDMARKS + noise)
    smooth = video.smoothed(track, 25)
    assert jitter(smooth) < jitter(track) / 5
    assert np.abs(np.mean(smooth, axis=0) - LANDMARKS).max() < 0.2
    still = video.smoothed([LANDMARKS] * 5, 25)
    np.testing.assert_allclose(still, [LANDMARKS] * 5)


def test_smoothing_does_not_lag_behind_a_face_that_moves():
    track = [LANDMARKS + (2.0 * i, -i) for i in range(60)]
    forwards = np.abs(np.array(video.one_euro(track, 25)) - track)[20:40].max()
    assert np.abs(np.array(video.smoothed(track, 25)) - track)[20:40].max() < forwards / 10


def test_smoothing_holds_for_any_size_of_face():
    track = [LANDMARKS + (0.3 * i + (-1) ** i * 0.5, 0) for i in range(20)]
    larger = video.smoothed([7 * points for points in track], 25)
    np.testing.assert_allclose(larger, [7 * points for points in video.smoothed(track, 25)])


def test_frames_without_a_face_part_the_track():
    track = [LANDMARKS, LANDMARKS + 1, None, None, LANDMARKS + 50, LANDMARKS + 51]
    smooth = video.smoothed(track, 25)
    assert [points is None for points in smooth] == [points is None for points in track]
    np.testing.assert_array_equal(smooth[:2], video.smoothed(track[:2], 25))
    np.testing.assert_array_equal(smooth[4:], video.smoothed(track[4:], 25))
    assert video.smoothed([None, None], 25) == [None, None]


def test_lost_face_is_held_for_a_while_and_the_nearest_is_followed(model):
    other = LANDMARKS + 100
    found = [[LANDMARKS], [other, LANDMARKS + 2], *[[]] * (video.HOLD + 2), [other]]
    track = list(video.follow(FaceEditor(model, Detector(found)), [grey()] * len(found)))
    np.testing.assert_array_equal(track[1], LANDMARKS + 2)
    assert all(points is track[1] for points in track[2 : 2 + video.HOLD])
    assert track[2 + video.HOLD : -1] == [None, None]
    np.testing.assert_array_equal(track[-1], other)


def grey(value=90):
    return np.full((110, 90, 3), value, dtype=np.uint8)


def test_lost_frames_keep_their_pixels_and_the_ramp_begins_at_none(model):
    frames = [grey(value) for value in (90, 100, 110, 120)]
    editor = FaceEditor(model, Detector([[LANDMARKS], [LANDMARKS], [LANDMARKS], [LANDMARKS - 60]]))  # then half outside
    edited = edited_by(editor, frames, ramp=2)
    moved = [np.abs(a.astype(int) - b).mean() for a, b in zip(edited, frames, strict=True)]
    assert moved[0] == moved[3] == 0
    assert 0 < moved[1] < moved[2]
    lost = FaceEditor(model, Detector([[]] * 4))
    assert all(a is b for a, b in zip(edited_by(lost, frames), frames, strict=True))


def astronaut(frames, size=224):
    """The astronaut, moving and turning slowly: frames, and what brings their pixels to those of the photo."""
    photo = Image.open(PHOTO).convert("RGB")
    clip = []
    for i in range(frames):
        cos, sin, centre = np.cos(0.008 * i), np.sin(0.008 * i), size / 2
        middle = np.array([260 - 1.5 * i, 200 + i])
        shift = middle - 1.5 * np.array([cos * centre - sin * centre, sin * centre + cos * centre])
        rows = (1.5 * cos, -1.5 * sin, shift[0], 1.5 * sin, 1.5 * cos, shift[1])
        clip.append(np.array(photo.transform((size, size), Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)))
    return clip


def test_astronaut_wears_glasses_through_a_clip(model):
    frames = astronaut(10)
    editor = FaceEditor(model)
    track = list(video.follow(editor, frames))
    smooth = video.smoothed(track, 25)
    assert jitter(smooth) < jitter(track) / 2
    edited = list(video.edit_frames(editor, frames, smooth, {"Eyeglasses": 1.5}))
    assert len(edited) == len(frames)
    for before, after, points in zip(frames, edited, smooth, strict=True):
        changed = np.abs(after.astype(int) - before).max(-1)
        eyes = np.hypot(*(points[1] - points[0]))
        y, x = changed.nonzero()
        assert np.hypot(x - points[2][0], y - points[2][1]).max() < 3.2 * eyes  # the crop's corners
        (left, right), (top, bottom) = ((int(v - eyes / 4), int(v + eyes / 4)) for v in points[0])
        assert changed[top:bottom, left:right].mean() > 10  # the eye


def test_several_attributes_and_a_sample_go_to_the_same_point_in_each_frame(model):
    frames, track = [grey()] * 3, [LANDMARKS] * 3
    editor = FaceEditor(model, Detector([]))
    edited = list(video.edit_frames(editor, frames, track, {"Eyeglasses": "sample", "Smiling": 2.0}))
    assert all(np.array_equal(a, b) for a, b in pairwise(edited))
    one = next(video.edit_frames(editor, frames[:1], track[:1], {"Smiling": 2.0}))
    assert not np.array_equal(edited[0], frames[0])
    assert not np.array_equal(edited[0], one)


@pytest.mark.parametrize("ending", ["", ".gif", ".png", ".webp", ".mp4"])
def test_clips_are_written_and_read_twice(tmp_path, ending):
    frames = [np.full((32, 48, 3), value, dtype=np.uint8) for value in (10, 120, 250)]
    assert video.write_clip(iter(frames), tmp_path / f"clip{ending}", 25) == 3
    clip = video.Clip.of(tmp_path / f"clip{ending}")
    assert (clip.fps, clip.count) == (25, 3)
    for _ in range(2):
        assert np.abs(np.array(list(clip), int) - np.array(frames, int)).max() <= (6 if ending == ".mp4" else 0)
    assert [path.name for path in tmp_path.iterdir()] == [f"clip{ending}"]


def test_a_clip_that_breaks_off_leaves_what_was_there(tmp_path):
    def broken():
        yield grey()
        raise RuntimeError("the source ended")

    (tmp_path / "clip.gif").write_bytes(b"before")
    with pytest.raises(RuntimeError, match="the source ended"):
        video.write_clip(broken(), tmp_path / "clip.gif", 25)
    assert (tmp_path / "clip.gif").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["clip.gif"]


def test_what_is_no_clip_is_named(tmp_path):
    for name in ("clip.gif", "clip.mp4"):
        (tmp_path / name).write_bytes(b"no clip")
        with pytest.raises(ImageError, match=f"{name}: expected a clip"):
            video.Clip.of(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="expected a folder of frames, got none"):
        video.Clip.of(tmp_path / "empty")
    with pytest.raises(ImageError, match="expected at least one frame, got none"):
        video.write_clip([], tmp_path / "new.gif", 25)
    with pytest.raises(ImageError, match="is there already"):
        video.write_clip([grey()], tmp_path / "empty", 25)
    with pytest.raises(ImageError, match="expected an ending that OpenCV writes"):
        video.write_clip([grey()], tmp_path / "clip.xyz", 25)
