"""`csvae video`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from csvae_hub.cli import main
from csvae_hub.editing import video

PHOTO = Path(__file__).resolve().parents[2] / "examples/astronaut-512.png"


@pytest.fixture
def clip(tmp_path):
    photo = Image.open(PHOTO).convert("RGB").resize((256, 256))
    video.write_clip([np.array(photo)] * 3, tmp_path / "clip", 25)
    return tmp_path / "clip"


def run(*arguments):
    return CliRunner().invoke(main, ["video", *map(str, arguments), "--model", "celeba-64", "--device", "cpu"])


def test_a_clip_is_edited_step_by_step(clip, tmp_path):
    done = run(clip, "Eyeglasses=2", "Smiling=0", "-o", tmp_path / "edited.webp", "--ramp", 2)
    assert (done.exit_code, done.stdout) == (0, f"3 frames written to {tmp_path / 'edited.webp'}\n"), done.output
    moved = [
        np.abs(after.astype(int) - before).sum()
        for after, before in zip(video.Clip.of(tmp_path / "edited.webp"), video.Clip.of(clip), strict=True)
    ]
    assert moved[0] == 0
    assert 0 < moved[1] < moved[2]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["Eyeglasses", "-o", "x.gif"], 2, "Eyeglasses: expected NAME=VALUE, such as Smiling=1"),
        (["Hat=1", "-o", "x.gif"], 1, "'Hat'"),
        (["Smiling=1", "Smiling=0", "-o", "x.gif"], 2, "'Smiling' is given twice"),
        (["Smiling=1,2,3", "-o", "x.gif"], 2, "expected 2 coordinates, got 3"),
    ],
)
def test_wrong_use_is_answered_in_words(clip, monkeypatch, tmp_path, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    done = run(clip, *arguments)
    assert said in done.output
    assert done.exit_code in (status, 2)
    assert not (tmp_path / "x.gif").exists()


def test_the_input_and_a_folder_that_is_there_are_not_written_over(clip, tmp_path):
    done = run(clip, "Smiling=1", "-o", clip)
    assert (done.exit_code, "is the input" in done.output) == (2, True)
    (tmp_path / "there").mkdir()
    done = run(clip, "Smiling=1", "-o", tmp_path / "there")
    assert (done.exit_code, "is there already" in done.output) == (2, True)


def test_a_clip_without_a_face_is_told(tmp_path):
    video.write_clip([np.full((64, 64, 3), level, np.uint8) for level in (90, 120)], tmp_path / "clip.gif", 25)
    done = run(tmp_path / "clip.gif", "Smiling=1", "-o", tmp_path / "edited.gif")
    assert (done.exit_code, "no face in any of 2 frames" in done.output) == (1, True)
    assert not (tmp_path / "edited.gif").exists()
