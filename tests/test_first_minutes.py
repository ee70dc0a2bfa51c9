"""The benchmark of a newcomer's first minutes: it reads what a run says, and compares."""

from __future__ import annotations

import sys

import pytest

from csvae_hub.training.progress_line import ProgressLine


@pytest.fixture
def first(script):
    return script("first_minutes")


def test_it_reads_the_line_of_a_run(first, monkeypatch):
    class Terminal:
        said, encoding = "", "utf-8"

        def isatty(self):
            return True

        def write(self, text):
            self.said += text

        def flush(self):
            pass

        def fileno(self):
            raise OSError

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    line = ProgressLine(100, quiet=False)
    line.start(0)
    line.started -= 30
    line.renew(25)
    assert first.LEFT.findall(sys.stderr.said) == [("25", "0", "01", "30")]


def test_the_time_left_after_each_minute_is_beside_the_true_one(first):
    frames = [(2.0 + second, 200 - second) for second in range(188)]  # it says ten seconds too many
    found = first.after_minutes(frames, end=192.0)
    assert [row["at"] for row in found] == [62.0, 122.0, 182.0]
    assert [(row["said"], row["true"]) for row in found] == [(140, 130.0), (80, 70.0), (20, 10.0)]
    assert found[0]["said_of_true"] == pytest.approx(140 / 130)
    assert first.after_minutes([], 10.0) == []
