"""A run goes on from its checkpoint to the same bits. As a script, a run to be killed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from csvae_hub import erasure
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import ConfigError
from csvae_hub.training import resume
from csvae_hub.training.checkpoints import Progress, load_latest, save_checkpoint
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_optimiser_goes_on_as_if_it_had_not_stopped(tmp_path, channels_last):
    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 1))
        if channels_last:
            model.to(memory_format=torch.channels_last)
        return model, torch.optim.Adam(model.parameters(), 0.01)

    def step(model, optimizer):
        model(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    images = torch.randn(8, 3, 4, 4)
    (model, optimizer), (other, other_optimizer) = make(), make()
    for _ in range(3):
        step(model, optimizer)
    tensors = resume.module_tensors(model, "model") | resume.optimizer_tensors(optimizer, "adam")
    save_checkpoint(tmp_path, tensors, Progress(3, 0.1, {}))
    loaded, _ = load_latest(tmp_path)
    resume.load_module_tensors(other, "model", loaded)
    resume.load_optimizer_tensors(other_optimizer, "adam", loaded)
    for _ in range(3):
        step(model, optimizer)
        step(other, other_optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    moments = other_optimizer.state[other[0].weight]["exp_avg"]
    assert moments.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_a_queue_takes_the_saved_size_and_a_parameter_refuses_another():
    class Queue(nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.register_buffer("rows", torch.arange(float(rows)))

    full, empty = Queue(5), Queue(0)
    resume.load_module_tensors(empty, "q", resume.module_tensors(full, "q"))
    assert torch.equal(empty.rows, full.rows)
    with pytest.raises(RuntimeError, match="size mismatch"):
        resume.load_module_tensors(nn.Linear(2, 2), "m", resume.module_tensors(nn.Linear(3, 2), "m"))


def test_another_run_s_checkpoint_is_refused_and_the_field_named(tmp_path):
    then = {"trainer": {"epochs": 3, "betas": (0.9, 0.99)}, "parts": {}}
    resume.check_identity(then, resume.flat(then), tmp_path)
    for now, words in (
        (
            {**then, "trainer": {"epochs": 4, "betas": (0.9, 0.99)}},
            r"^trainer\.epochs: .* made with 3, this run has 4: ",
        ),
        (
            {**then, "parts": {"critic": {"weight": 1.0}}},
            r"^parts\.critic\.weight: .* made with None, this run has 1",
        ),
        ({"trainer": {"betas": (0.9, 0.99)}}, r"^trainer\.epochs: .* made with 3, this run has None: keep the value"),
    ):
        with pytest.raises(ConfigError, match=words):
            resume.check_identity(now, resume.flat(then), tmp_path)


# -- runs: one that was stopped and one that was left alone end in the same weights -----------------------------------

CONFIG = TrainerConfig(epochs=3, batch_size=8)
ADVERSARY = {"stronger_adversary": {"steps": 2, "memory": 3}}
REST = {"rest": {"weight": 1.0}}
RUNS = {
    "the paper": {},
    "a critic and an eraser": {"parts": {"critic": {}, "eraser": {}, "balanced": {}, **ADVERSARY}, "erase": True},
    "a flow and a rest": {"parts": {"flow": {}, **ADVERSARY, **REST}, "flow": 8},
    "a critic in a rest": {"parts": {"critic": {}, "eraser": {}, **ADVERSARY, **REST}, "erase": True},
    "a grid": {"parts": {"critic": {}, **ADVERSARY}, "z_grid": 4, "z_dim": 32},
    "a grid that is erased": {"parts": {"critic": {}, "eraser": {}, **REST}, "erase": True, "z_grid": 4, "z_dim": 32},
    "cond-vae-info": {"kind": "cond-vae-info", "parts": {"critic": {}, "flow": {}, **ADVERSARY, **REST}, "flow": 8},
    "cond-vae": {"kind": "cond-vae", "parts": {"critic": {}, **REST}},
    "vae": {"kind": "vae", "parts": {"critic": {}, **REST}},
}
STOPS = [
    *(("a flow and a rest", stop) for stop in (7, 10, 12)),
    *((name, 12 if "rest" in run.get("parts", {}) else 7) for name, run in RUNS.items()),
]


@pytest.fixture
def trainer(build, data):
    def make(name, folder, **options):
        return Trainer(build(**RUNS[name]), CONFIG, data(), None, folder, quiet=True, **options)

    return make


@pytest.fixture(scope="module")
def wholes():
    """What each run ends in when it is left alone."""
    return {}


def whole(wholes, trainer, name):
    if name not in wholes:
        run = trainer(name, None)
        wholes[name] = run.fit().state_dict(), run.objective.state_dict()
    return wholes[name]


def assert_equal_to_the_bit(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():  # NaN, a label that is missing, counts as equal
        assert value.shape == b[name].shape, name
        assert value.contiguous().numpy().tobytes() == b[name].contiguous().numpy().tobytes(), name


@pytest.mark.parametrize(("name", "stop"), sorted(set(STOPS)))
def test_a_run_that_was_stopped_before_at_or_in_the_rest_goes_on_to_the_same_bits(
    tmp_path, trainer, wholes, monkeypatch, name, stop
):
    run = trainer(name, tmp_path, checkpoint_minutes=0.0)
    step = run.train_step

    def breaks(x, y, batch):
        if batch == stop:
            raise KeyboardInterrupt
        return step(x, y, batch)

    monkeypatch.setattr(run, "train_step", breaks)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    resumed = trainer(name, tmp_path)
    model = resumed.fit()
    assert_equal_to_the_bit(model.state_dict(), whole(wholes, trainer, name)[0])
    assert_equal_to_the_bit(resumed.objective.state_dict(), whole(wholes, trainer, name)[1])


@pytest.mark.parametrize("name", ["a critic and an eraser", "a flow and a rest"])
def test_a_run_killed_in_mid_epoch_goes_on_to_the_same_bits(tmp_path, trainer, wholes, name):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path), name], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not any(6 < int(path.name[6:]) < 10 for path in tmp_path.glob("checkpoints/batch-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.07)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    resumed = trainer(name, tmp_path)
    assert_equal_to_the_bit(resumed.fit().state_dict(), whole(wholes, trainer, name)[0])
    assert_equal_to_the_bit(resumed.objective.state_dict(), whole(wholes, trainer, name)[1])
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e["batch"] for e in entries if e["kind"] == "epoch"] == [5, 10, 15]
    batches = [e["batch"] for e in entries if e["kind"] == "batch"]
    assert batches == sorted(set(batches))


def test_modules_of_another_version_are_named(tmp_path, trainer):
    trainer("the paper", tmp_path).fit()
    (path,) = (tmp_path / "checkpoints").iterdir()
    tensors, progress = load_latest(path.parent)
    for name in ("random.cpu", "objective.model.q_y.0.bias", "average.q_y.0.bias"):
        assert name in tensors
        save_checkpoint(path.parent, {k: v for k, v in tensors.items() if k != name}, progress)
        with pytest.raises(ConfigError, match=r"doesn't fit the modules of this run \(.*another version\? Train in"):
            trainer("the paper", tmp_path).fit()


def test_a_second_run_in_a_folder_is_refused_and_the_first_goes_on(tmp_path, trainer, monkeypatch):
    first, second = trainer("the paper", tmp_path), trainer("the paper", tmp_path)
    step = first.train_step

    def meanwhile(x, y, batch):
        for resumed in (True, False):
            with pytest.raises(ConfigError, match=f"^{tmp_path}: expected a folder in which no other run is training"):
                second.fit(resumed)
        return step(x, y, batch)

    monkeypatch.setattr(first, "train_step", meanwhile)
    first.fit()
    second.fit()


class SlowData(AttributeData):
    """Gives its batches slowly, so that there is time to be killed."""

    def batch(self, indices):
        time.sleep(0.1)
        return super().batch(indices)


def slow_run(folder, name):
    helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    erasure.STEPS = 20
    data = helpers["_data"]()
    slow = SlowData(data.images, data.labels, data.attributes)
    Trainer(helpers["_build"](**RUNS[name]), CONFIG, slow, None, folder, quiet=True, checkpoint_minutes=0.0).fit()


if __name__ == "__main__":
    slow_run(Path(sys.argv[1]), sys.argv[2])
