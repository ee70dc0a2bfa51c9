"""The line that a run shows, on terminals and elsewhere."""

from __future__ import annotations

import io
import os
import re
import sys
import time

import pytest

from csvae_hub.training.progress_line import CLEAR, ProgressLine

ENTRY = {"kind": "batch", "epoch": 2, "images_per_second": 512.0, "loss": 9.0, "kl_z": 3.0, "kl_w.Smiling": 1.0}


class Terminal(io.TextIOWrapper):
    """A stderr that says that it is a terminal."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self):
        return True

    def written(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def terminal(monkeypatch):
    """Puts a terminal of a width in the place of stderr."""

    def make(columns=200, **options):
        stderr = Terminal(**options)
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        return stderr

    return make


def started(last_batch=100, quiet=False):
    line = ProgressLine(last_batch, quiet)
    line.start(0)
    return line


def test_the_live_line_tells_the_share_the_time_left_the_speed_and_the_terms_in_words(terminal, monkeypatch):
    stderr = terminal()
    line = started()
    monkeypatch.setattr(time, "monotonic", lambda at=line.started + 60: at)
    line.take("batch", 25, ENTRY)
    assert stderr.written() == f"{CLEAR}███░░░░░░░░░ 25%, 0:03:00 left, 512 examples a second; loss 9, KL of z 3"


def test_it_is_renewed_while_batches_go_by_but_not_on_each(terminal, monkeypatch):
    stderr = terminal()
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = started()
    for batch in range(1, 101):
        clock[0] += 0.01
        line.renew(batch)
    frames = stderr.written().split(CLEAR)[1:]
    assert len(frames) == 4  # a quarter of a second each
    assert [int(re.search(r"(\d+)%", frame)[1]) for frame in frames] == sorted({1, 26, 51, 76})


def test_it_fits_the_terminal(terminal):
    stderr = terminal(columns=40)
    line = started()
    line.take("batch", 25, ENTRY)
    assert len(stderr.written().removeprefix(CLEAR)) == 39


def test_what_else_is_said_stands_above_it_and_the_cursor_ends_below(terminal):
    stderr = terminal()
    line = started()
    line.take("batch", 25, ENTRY)
    line.say("warning: a\x1b[2Jb")
    line.take("epoch", 50, {"kind": "epoch", "epoch": 2, "valid_mse": 0.5, "seconds": 3})
    line.close()
    _, warning, epoch, live = (text for text in re.split(rf"\n|{re.escape(CLEAR)}", stderr.written()) if text)
    assert warning == r"warning: a\x1b[2Jb"
    assert epoch == "epoch 2, batch 50 of 100; squared error on validation data 0.5"
    assert live.startswith("██████░░░░░░ 50%, ")
    assert stderr.written().endswith(f"{live}\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_has_no_blocks_gets_other_signs(terminal, encoding):
    stderr = terminal(encoding=encoding)
    line = started()
    line.take("batch", 25, ENTRY)
    assert stderr.written().startswith(f"{CLEAR}###--------- 25%, ")


def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    stderr = terminal()
    monkeypatch.setenv("TERM", "dumb")
    line = started()
    line.renew(1)
    line.take("batch", 25, ENTRY)
    line.close()
    assert re.fullmatch(
        r"epoch 2, batch 25 of 100, 0:00:00 left, 512 examples a second; loss 9, KL of z 3\n", stderr.written()
    )


def test_quiet_is_quiet_on_a_terminal_too(terminal):
    stderr = terminal()
    line = started(quiet=True)
    line.renew(1)
    line.take("batch", 25, ENTRY)
    line.say("warning")
    line.close()
    assert stderr.written() == ""


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_the_width_is_that_of_the_terminal_behind_stderr(terminal, monkeypatch):
    import fcntl
    import struct
    import termios

    _, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 33, 0, 0))
    stderr = terminal(columns=200)
    monkeypatch.setattr(stderr, "fileno", lambda: slave, raising=False)
    started().take("batch", 25, ENTRY)
    assert len(stderr.written().removeprefix(CLEAR)) == 32
    os.close(slave)
