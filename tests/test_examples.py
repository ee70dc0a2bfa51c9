"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm, t

from csvae_hub import CSVAE, FaceEditor
from csvae_hub.data import SyntheticFaces
from csvae_hub.editing import Face

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


augmentation, plain_loop, video = load("augmentation"), load("plain_loop"), load("video")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150


# -- augmentation -------------------------------------------------------------------------------------------------


def test_augmentation_runs_and_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    output = tmp_path / "found.json"
    options = ["--seeds", "0", "--faces", "64", "--model-epochs", "1", "--runs", str(tmp_path), "-o", str(output)]
    monkeypatch.setattr(sys, "argv", ["examples/augmentation.py", *options])
    augmentation.main()
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["command"] == " ".join(["python", "examples/augmentation.py", *options])
    assert output.with_suffix(".md").read_text(encoding="utf-8") in capsys.readouterr().out
    (run,) = found["runs"].values()
    assert all(0 <= share <= 1 for figures in run.values() for shares in figures.values() for share in shares)
    assert run["nothing"]["kept"] != run["CSVAE of correlated faces, whole"]["kept"]


def test_groups_part_the_faces():
    data = SyntheticFaces(200, 0, 16, correlations={("Smiling", "Eyeglasses"): 0.9})
    groups = augmentation.groups(data)
    assert sorted(np.concatenate(groups).tolist()) == list(range(200))
    smiles, glasses = data.labels[:, 3], data.labels[:, 1]
    for rows, cell in zip(groups, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        assert set(zip(smiles[rows], glasses[rows], strict=True)) == {cell}
    assert min(len(groups[1]), len(groups[2])) < max(len(groups[0]), len(groups[3])) / 3


def test_changed_data_gives_edited_pictures_and_one_attribute():
    data = SyntheticFaces(8, 0, 16)
    changed = augmentation.Changed(data, lambda images, rows: images + rows.view(-1, 1, 1, 1))
    rows = torch.tensor([3, 1])
    images, labels = changed.batch(rows)
    assert torch.equal(images, data.batch(rows)[0] + rows.view(-1, 1, 1, 1))
    assert torch.equal(labels, data.select(["Smiling"]).batch(rows)[1])


def test_table_has_the_interval_of_student():
    runs = [{"nothing": {"groups": [share, 1.0]}} for share in (0.2, 0.5, 0.6)]
    low, high = t.interval(0.95, 2, np.mean([20, 50, 60]), np.std([20, 50, 60], ddof=1) / 3**0.5)
    *_, row = augmentation.table(runs).splitlines()
    assert row.split(" | ")[2] == f"{(low + high) / 2:.1f} ± {(high - low) / 2:.1f} %"


# -- plain loop ---------------------------------------------------------------------------------------------------


def test_the_plain_loop_is_plain():
    text = (EXAMPLES / "plain_loop.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert "Trainer" not in text
    for page, words in (("examples/README.md", "lines in all"), ("docs/training.md", "lines.\n")):
        assert f"{len(text.splitlines())} {words}" in (EXAMPLES.parent / page).read_text(encoding="utf-8")


def test_the_plain_loop_reads_its_options_before_it_trains():
    command = [sys.executable, str(EXAMPLES / "plain_loop.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "required: -o/--output" in done.stderr


def test_the_plain_loop_trains_every_parameter_of_both_minimisations_and_lowers_the_loss(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    built = []
    create = plain_loop.create_model
    monkeypatch.setattr(plain_loop, "create_model", lambda config: built.append(create(config)) or built[0])
    steps = []
    monkeypatch.setattr(torch.optim.Adam, "step", counted(torch.optim.Adam.step, steps))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = plain_loop.train(faces=128, epochs=6)
    first = [int(id(optimizer) != id(steps[0])) for optimizer in steps]
    assert first == [0, 1] * 12  # the model's and the adversary's in turn, on two batches an epoch
    losses = [float(line.split("reconstruction ")[1].split(",")[0]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    fresh = create(model.config)
    assert not model.training
    assert not torch.equal(model.class_means, fresh.class_means)
    model.save_pretrained(tmp_path)
    loaded = CSVAE.from_pretrained(tmp_path, device="cpu")
    images = SyntheticFaces(4, 1, 32).batch(range(4))[0]
    assert torch.equal(loaded.reconstruct(images), model.reconstruct(images))


def counted(step, steps):
    """The step of an optimiser, noted; its own parameters have gradients then, and no other's."""

    def noting(self, *arguments):
        steps.append(self)
        for optimizer in steps[-2:]:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            assert all((grad is not None) == (optimizer is self) for grad in grads)
        return step(self, *arguments)

    return noting


# -- video --------------------------------------------------------------------------------------------------------

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
    edited = list(video.edit_frames(editor, frames, "Eyeglasses", 1.5, ramp=2))
    moved = [np.abs(a.astype(int) - b).mean() for a, b in zip(edited, frames, strict=True)]
    assert moved[0] == moved[3] == 0
    assert 0 < moved[1] < moved[2]
    lost = FaceEditor(model, Detector([[]] * 4))
    assert all(a is b for a, b in zip(video.edit_frames(lost, frames, "Eyeglasses", 1.5), frames, strict=True))


def astronaut(frames, size=224):
    """The astronaut, moving and turning slowly: frames, and what brings their pixels to those of the photo."""
    photo = Image.open(EXAMPLES / "astronaut-512.png").convert("RGB")
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
    editor = FaceEditor(model, Detector([points] for points in track))
    edited = list(video.edit_frames(editor, frames, "Eyeglasses", 1.5))
    assert len(edited) == len(frames)
    for before, after, points in zip(frames, edited, smooth, strict=True):
        changed = np.abs(after.astype(int) - before).max(-1)
        eyes = np.hypot(*(points[1] - points[0]))
        y, x = changed.nonzero()
        assert np.hypot(x - points[2][0], y - points[2][1]).max() < 3.2 * eyes  # the crop's corners
        (left, right), (top, bottom) = ((int(v - eyes / 4), int(v + eyes / 4)) for v in points[0])
        assert changed[top:bottom, left:right].mean() > 10  # the eye


@pytest.mark.parametrize("ending", ["", ".gif", ".png", ".webp", ".mp4"])
def test_clips_are_written_and_read(tmp_path, ending):
    frames = [np.full((32, 48, 3), value, dtype=np.uint8) for value in (10, 120, 250)]
    video.write_clip(frames, tmp_path / f"clip{ending}", 25)
    read, fps = video.read_clip(tmp_path / f"clip{ending}")
    assert fps == 25
    np.testing.assert_allclose(
        np.array(read, dtype=int), np.array(frames, dtype=int), atol=6 if ending == ".mp4" else 0
    )


def test_video_runs_from_the_command_line(tmp_path, monkeypatch, capsys):
    video.write_clip(astronaut(2), tmp_path / "clip", 25)
    options = [str(tmp_path / "clip"), "Eyeglasses=1.5", "-o", str(tmp_path / "edited.webp")]
    monkeypatch.setattr(sys, "argv", ["examples/video.py", *options])
    video.main()
    assert "2 frames written" in capsys.readouterr().out
    edited, _ = video.read_clip(tmp_path / "edited.webp")
    assert all(not np.array_equal(a, b) for a, b in zip(edited, astronaut(2), strict=True))
