"""The benchmark of many aligned pictures: its loop holds one batch, its clock leaves out the drawing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from csvae_hub import CSVAE

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def many(script):
    return script("many")


def test_the_loop_edits_every_picture_and_asks_for_one_batch_at_a_time(many):
    model, asked = CSVAE.from_pretrained("celeba-64", device="cpu"), []
    pictures = list(many.drawn(5, 64, batch=2))
    assert [len(batch) for batch in pictures] == [2, 2, 1]
    for i, edited in enumerate(many.edit_all(model, (asked.append(batch) or batch for batch in pictures))):
        assert len(asked) == i + 1
        wished = model.set_attribute(pictures[i].float() / 255, "Smiling")
        torch.testing.assert_close(edited, (wished * 255).round().byte())


def test_the_clock_leaves_out_the_making_of_batches(many):
    def slow():
        for i in range(3):
            time.sleep(0.1)
            yield i

    clock = many.Clock()
    for _ in clock.outside(slow()):
        time.sleep(0.01)
    assert 0.03 <= clock.wall < 0.3


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are those of Linux")
def test_its_short_form_finds_the_same_peak_for_more_pictures(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "many.py"), "--quick", "-o", str(tmp_path / "many.json")]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads((tmp_path / "many.json").read_text(encoding="utf-8"))
    assert list(found["pictures"]) == ["64", "256"]
    assert found["most_over_least"]["peak_bytes"] < 1.05
    for one in found["pictures"].values():
        assert 0 < one["processor_seconds_a_picture"] < 1
        assert one["bare_over_ours"] > 0.2
