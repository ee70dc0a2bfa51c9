"""The line that a run shows, on terminals and elsewhere."""

from __future__ import annotations

import io
import os
import re
import sys
import time

import pytest

from csvae_hub.training.progress_line import CLEAR, DecodingLine, ProgressLine, Reports

ENTRY = {"kind": "batch", "epoch": 2, "images_per_second": 512.0, "loss": 9.0, "kl_z": 3.0, "kl_w.Smiling": 1.0}
TERMS = {
    "classifier": 0.5,
    "adversary": 2.0,
    "reconstruction": 1234.5,
    "kl_z": 3.0,
    "kl_w": 1.0,
    "negative_entropy": -2.0,
}
TABLE = """\
  reconstruction                              1234 nats
  KL of w                                        1 nats
  KL of z                                        3 nats
  minus the adversary's entropy                 -2 nats
  adversary's cross entropy                      2 nats
  cross entropy of q(y | x)                    0.5 nats
  weighted sum                                   9"""


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


def test_a_bar_with_time_left_and_speed_stands_over_a_table_of_the_terms_in_words_and_nats(terminal, monkeypatch):
    stderr = terminal()
    line = started()
    monkeypatch.setattr(time, "monotonic", lambda at=line.started + 60: at)
    line.take("batch", 25, {**ENTRY, **TERMS})
    assert stderr.written() == f"{CLEAR}███░░░░░░░░░ 25%, 0:03:00 left, 512 examples a second\n{TABLE}"


def test_the_table_is_drawn_over_the_one_before_and_the_newest_grid_below(terminal, monkeypatch, tmp_path):
    stderr = terminal()
    line = started()
    line.take("batch", 25, {**ENTRY, **TERMS})
    line.show_grid(tmp_path / "grids/epoch-002.png")
    line.take("batch", 50, {**ENTRY, **TERMS})
    first, second = stderr.written().split(CLEAR)[1:]
    assert first.endswith("\x1b[7A")  # to the bar, from the last of seven lines below it
    assert second.splitlines()[1:] == [*TABLE.splitlines(), f"newest grid: {tmp_path}/grids/epoch-002.png"]


def test_on_a_low_terminal_the_bar_stays(terminal, monkeypatch):
    stderr = terminal()
    monkeypatch.setenv("LINES", "4")
    line = started()
    line.take("batch", 25, {**ENTRY, **TERMS})
    assert stderr.written().count("\n") == 2
    assert "25%" in stderr.written()


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
    assert max(map(len, stderr.written().removeprefix(CLEAR).splitlines())) == 39


def test_what_else_is_said_stands_above_it_and_the_cursor_ends_below(terminal):
    stderr = terminal()
    line = started()
    line.take("batch", 25, ENTRY)
    line.say("warning: a\x1b[2Jb")
    line.take("epoch", 50, {"kind": "epoch", "epoch": 2, "valid_mse": 0.5, "seconds": 3})
    line.close()
    screen = stderr.written()[len(CLEAR) :].split(CLEAR)
    (warning, epoch), live = screen[1].splitlines(), screen[2]
    assert warning == r"warning: a\x1b[2Jb"
    assert epoch == "epoch 2, batch 50 of 100; squared error on validation data 0.5"
    assert live.startswith("██████░░░░░░ 50%, ")
    assert live.endswith("\n")


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
        r"epoch 2, batch 25 of 100, 0:00:00 left, 512 examples a second; nats: KL of z 3; weighted sum 9\n",
        stderr.written(),
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
    assert max(map(len, stderr.written().removeprefix(CLEAR).splitlines())) == 32
    os.close(slave)


def test_where_there_is_no_terminal_a_new_grid_is_named_at_once(capsys, tmp_path):
    started().show_grid(tmp_path / "epoch-001.png")
    assert capsys.readouterr().err == f"newest grid: {tmp_path}/epoch-001.png\n"


def test_decoding_is_told_in_place_on_a_terminal(terminal, monkeypatch):
    stderr, clock = terminal(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = DecodingLine(quiet=False)
    for count in range(64, 1001, 64):
        clock[0] += 0.1
        line(count, 960)
    frames = stderr.written().split(CLEAR)[1:]
    assert 5 <= len(frames) <= 7
    assert frames[1].startswith("decoding pictures into the cache, which is done once: 256 of 960, 0:00:01 left")
    assert [frame.endswith("\n") for frame in frames] == [False] * (len(frames) - 1) + [True]


def test_decoding_is_told_twice_a_minute_elsewhere_and_of_each_source_at_once(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = DecodingLine(quiet=False)
    for total in (None, 640):
        for count in range(64, 641, 64):
            clock[0] += 10
            line(count, total)
    said = [text.partition("once: ")[2] for text in capsys.readouterr().err.splitlines()]
    assert said[:4] == ["64", "256", "448", "640"]
    assert said[4].startswith("64 of 640, ")
    assert said[-1] == "640 of 640, 0:00:00 left"
    DecodingLine(quiet=True)(1, 1)
    assert capsys.readouterr().err == ""


def test_work_between_two_batches_says_after_two_seconds_and_then_twice_a_minute_how_long_it_takes(monkeypatch):
    now, lines = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    report = Reports("fitting", lines.append)
    for step in range(1, 101):
        now[0] += 1
        report(step, 100)
    assert lines == [
        "fitting: step 2 of 100, 0:01:38 left",
        "fitting: step 32 of 100, 0:01:08 left",
        "fitting: step 62 of 100, 0:00:38 left",
        "fitting: step 92 of 100, 0:00:08 left",
        "fitting: step 100 of 100, 0:00:00 left",
    ]
