"""`csvae train` on a pseudo-terminal, and ended by SIGTERM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal and signals of POSIX")
CLEAR = "\r\x1b[J"


def start(folder, *overrides, **streams):
    options = [f"--set={override}" for override in overrides]
    command = [sys.executable, "-m", "csvae_hub", "train", "--recipe", "paper-swiss-roll", "-o", str(folder), *options]
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, **streams)


def read(master):
    """All that a terminal was sent, until the other side is closed."""
    found = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux's way to say that it is closed
            part = b""
        if not part:
            return found.decode().replace("\r\n", "\n")
        found += part


def test_a_terminal_shows_a_bar_over_a_table(tmp_path):
    master, slave = os.openpty()
    process = start(tmp_path / "run", "data.examples=2560", "trainer.epochs=20", stderr=slave)
    os.close(slave)
    sent = read(master)
    os.close(master)
    assert process.communicate(timeout=60)[0].decode() == f"trained: {tmp_path / 'run/model'}\n"
    assert process.returncode == 0
    frames = [text for text in sent.split(CLEAR) if re.match("[█░]{12} ", text)]
    shares = [int(re.search(r"(\d+)%", frame)[1]) for frame in frames]
    assert len(frames) >= 20
    assert shares == sorted(shares)
    assert shares[-1] == 100
    bar, *table = frames[-2].splitlines()
    assert re.search(r"^█+░* +\d+%, 0:00:\d\d left, \d+ examples a second$", bar)
    words = ["reconstruction", "KL of w", "KL of z", "minus the adversary's entropy", "adversary's cross entropy"]
    assert [re.match(r"  (.+?) +[-\d.e+]+ nats$", row)[1] for row in table[:5]] == words
    assert all(len(row) < 80 for frame in frames for row in frame.splitlines())
    assert len(re.findall(r"^(?:.*\x1b\[J)?epoch ", sent, re.MULTILINE)) == 20
    assert sent.endswith("\n")  # the prompt gets a line of its own


def test_sigterm_ends_the_command_with_status_143_and_the_same_command_resumes(tmp_path):
    options = ("data.examples=2560", "trainer.epochs=30")
    process = start(tmp_path, *options, stderr=subprocess.PIPE)
    log, deadline = tmp_path / "log.jsonl", time.monotonic() + 60
    while not (log.is_file() and log.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    out, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert out == b""
    assert said.decode().splitlines()[-1].startswith("stopped by SIGTERM: the checkpoint in ")
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    resumed = start(tmp_path, *options, stderr=subprocess.PIPE)
    assert resumed.communicate(timeout=120)[0].decode() == f"trained: {tmp_path / 'model'}\n"
    batches = [int(number) for number in re.findall(r'"batch", "batch": (\d+)', log.read_text())]
    assert batches == sorted(set(batches))
    assert int(checkpoint.name[6:]) in batches
