"""A run that gets SIGTERM saves a checkpoint, says so and ends with status 143. As a script, a run to be ended."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from csvae_hub import erasure
from csvae_hub.data.base import AttributeData
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.interruption import sigterm_stops
from csvae_hub.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
CONFIG = TrainerConfig(epochs=4, batch_size=8)
PARTS = {"critic": {}, "eraser": {}, "balanced": {}, "stronger_adversary": {"steps": 2, "memory": 3}}
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without a signal")


@pytest.fixture
def trainer(build, data):
    def make(folder, **options):
        return Trainer(build(parts=PARTS, erase=True), CONFIG, data(), None, folder, **options)

    return make


def tensors(run):
    return {**run.objective.state_dict(), **{f"average.{k}": v for k, v in run.average.state_dict().items()}}


def assert_equal_to_the_bit(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.contiguous().numpy().tobytes() == b[name].contiguous().numpy().tobytes(), name


@POSIX
def test_a_run_that_gets_sigterm_keeps_the_batch_that_it_is_in_and_goes_on_to_the_same_bits(tmp_path, trainer):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    log, deadline = tmp_path / "log.jsonl", time.monotonic() + 60
    while not (log.is_file() and '"epoch", "batch": 5,' in log.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "Traceback" not in said
    checkpoints = tmp_path / "checkpoints"
    assert said.endswith(f"stopped by SIGTERM: the checkpoint in {checkpoints} is saved; the same command resumes\n")
    (checkpoint,) = checkpoints.iterdir()
    assert 5 <= int(checkpoint.name[6:]) < 20
    assert not (tmp_path / "model").exists()

    resumed, whole = trainer(tmp_path, quiet=True), trainer(None, quiet=True)
    resumed.fit()
    whole.fit()
    assert_equal_to_the_bit(tensors(resumed), tensors(whole))


def send(run, at, monkeypatch):
    """Lets SIGTERM come in a batch, counted from 0."""
    step = run.train_step

    def train_step(x, y, batch):
        if batch == at:
            signal.raise_signal(signal.SIGTERM)
        return step(x, y, batch)

    monkeypatch.setattr(run, "train_step", train_step)


def test_the_handler_from_before_is_put_back(tmp_path, trainer, monkeypatch):
    came = []
    before = signal.signal(signal.SIGTERM, lambda *signal: came.append(signal))
    mine = signal.getsignal(signal.SIGTERM)
    try:
        trainer(None, quiet=True).fit()
        assert signal.getsignal(signal.SIGTERM) is mine
        run = trainer(tmp_path, quiet=True)
        send(run, 3, monkeypatch)
        with pytest.raises(SystemExit) as ended:
            run.fit()
        assert ended.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is mine
        run = trainer(None, quiet=True)
        monkeypatch.setattr(run, "train_step", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.fit()
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == []
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["batch-000000004"]


@pytest.mark.parametrize("at", [0, 19])
def test_sigterm_in_the_first_and_in_the_last_batch(tmp_path, trainer, monkeypatch, at):
    run = trainer(tmp_path, quiet=True)
    send(run, at, monkeypatch)
    with pytest.raises(SystemExit):
        run.fit()
    assert not (tmp_path / "model").exists()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"batch-{at + 1:09d}"]
    trainer(tmp_path, quiet=True).fit()  # the folder is free again
    assert (tmp_path / "model").is_dir()


def test_without_a_folder_it_says_that_nothing_is_kept(trainer, monkeypatch, capsys):
    run = trainer(None)
    send(run, 2, monkeypatch)
    with pytest.raises(SystemExit):
        run.fit()
    assert capsys.readouterr().err.endswith("stopped by SIGTERM: nothing is kept, since the run has no folder\n")


def test_a_thread_leaves_the_handler_alone(trainer):
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with sigterm_stops(lambda: None, lambda: None, []):
            seen.append(signal.getsignal(signal.SIGTERM))
        trainer(None, quiet=True).fit()
        seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, before]


class SlowData(AttributeData):
    """Gives its batches slowly, so that there is time to be ended."""

    def batch(self, indices):
        time.sleep(0.2)
        return super().batch(indices)


def slow_run(folder):
    helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    erasure.STEPS = 20
    data = helpers["_data"]()
    slow = SlowData(data.images, data.labels, data.attributes)
    Trainer(helpers["_build"](parts=PARTS, erase=True), CONFIG, slow, None, folder).fit()


if __name__ == "__main__":
    slow_run(Path(sys.argv[1]))
