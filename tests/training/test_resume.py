"""Checkpoints: whole or not there, and a run goes on from them to the same bits. As a script, a writer to be killed."""

from __future__ import annotations

import errno
import json
import os
import runpy
import shutil
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
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(folder, batches, tensors, identity=None):
    return resume.save_checkpoint(folder, tensors, resume.Progress(batches, 0.1, identity or {}))


def flip(path, place, bit=0):
    """Changes one bit of a file, as a failing disk does."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_tensors_and_progress_come_back_as_they_were(tmp_path):
    shared = torch.randn(4, 4)
    tensors = {
        "a": shared,
        "the same memory": shared[:2],
        "channels last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(7),
        "bytes": torch.get_rng_state(),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(3).bfloat16(),
    }
    save(tmp_path, 12, tensors, {"x": None})
    loaded, progress = resume.load_latest(tmp_path)
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value), name
    assert (progress.batches, progress.elapsed, progress.identity) == (12, 0.1, {"x": None})


def test_the_newest_are_kept(tmp_path):
    for batches in (5, 10, 100, 1000):
        save(tmp_path, batches, {"x": torch.tensor(batches)})
    assert names(tmp_path) == ["batch-000000100", "batch-000001000"]
    assert resume.load_latest(tmp_path)[0]["x"] == 1000


def test_saving_the_same_batch_again_replaces_it(tmp_path):
    for value in (1, 2):
        save(tmp_path, 5, {"x": torch.tensor(value)})
    assert resume.load_latest(tmp_path)[0]["x"] == 2


def test_there_is_none_in_an_empty_folder_or_no_folder(tmp_path):
    assert resume.load_latest(tmp_path) is None
    assert resume.load_latest(tmp_path / "nowhere") is None


DAMAGES = {
    "truncated": lambda tensors, progress: tensors.write_bytes(tensors.read_bytes()[:-100]),
    "no tensors": lambda tensors, progress: tensors.unlink(),
    "no progress": lambda tensors, progress: progress.unlink(),
    "no folder": lambda tensors, progress: (shutil.rmtree(tensors.parent), tensors.parent.write_bytes(b"")),
    "a folder as a file": lambda tensors, progress: (progress.unlink(), progress.mkdir()),
    "a bit of a number": lambda tensors, progress: flip(tensors, -1),
    "a bit of a name": lambda tensors, progress: flip(tensors, tensors.read_bytes().index(b'"x"') + 1),
    "a bit of the batches": lambda tensors, progress: flip(progress, progress.read_bytes().index(b'"batches": 2') + 11),
    "a bit of the seconds": lambda tensors, progress: flip(progress, progress.read_bytes().index(b"0.1")),
    "a bit of the checksum's name": lambda tensors, progress: flip(progress, progress.read_bytes().index(b"sha256")),
    "another's tensors": lambda tensors, progress: shutil.copy(
        tensors.parents[1] / "batch-000000001" / tensors.name, tensors
    ),
    "no json": lambda tensors, progress: progress.write_text("{"),
    "no text": lambda tensors, progress: progress.write_bytes(b"\xff"),
    "deep nesting": lambda tensors, progress: progress.write_text("[" * 100_000),
    "newer": lambda tensors, progress: rewrite(progress, format_version=99),
    "older": lambda tensors, progress: rewrite(progress, format_version=1),
    "a version of another kind": lambda tensors, progress: rewrite(progress, format_version=[2]),
    "a list": lambda tensors, progress: progress.write_text("[]"),
    "no identity": lambda tensors, progress: rewrite(progress, identity=...),
    "no elapsed time": lambda tensors, progress: rewrite(progress, elapsed=...),
    "an identity of another kind": lambda tensors, progress: rewrite(progress, identity=3),
    "batches of another kind": lambda tensors, progress: rewrite(progress, batches="2"),
    "further fields": lambda tensors, progress: rewrite(progress, more=1),
    "the checksum of nothing": lambda tensors, progress: rewrite(progress, sha256=""),
    **{
        f"format 2, {name}": lambda tensors, progress, change=change: rewrite(
            progress, format_version=2, sha256=..., **change
        )
        for name, change in {"no identity": {"identity": ...}, "batches": {"batches": 3}}.items()
    },
}


def rewrite(path, **changes):
    """Changes fields of a JSON file; `...` takes one out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def damaged(folder, batches, damage):
    path = save(folder, batches, {"x": torch.full((100,), batches)}, {"y": 1})
    DAMAGES[damage](path / "tensors.safetensors", path / "progress.json")
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, damage):
    save(tmp_path, 1, {"x": torch.full((100,), 1)}, {"y": 1})
    damaged(tmp_path, 2, damage)
    with pytest.warns(UserWarning, match=r"batch-000000002 can't be read \(.+\): trying the one before it"):
        found = resume.load_latest(tmp_path)
    assert (found[1].batches, found[1].identity) == (1, {"y": 1})
    assert (found[0]["x"] == 1).all()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kept", [1, 2])
def test_damaged_checkpoints_never_push_out_whole_ones(tmp_path, monkeypatch, damage, kept):
    save(tmp_path, 1, {"x": torch.full((100,), 1)})
    damaged(tmp_path, 2, damage)
    monkeypatch.setattr(resume, "KEPT", kept)
    newest = save(tmp_path, 3, {"x": torch.full((100,), 3)})
    assert ("batch-000000001" in names(tmp_path)) == (kept == 2)
    flip(newest / "tensors.safetensors", -1)
    if kept == 2:
        with pytest.warns(UserWarning, match="can't be read"):
            assert resume.load_latest(tmp_path)[1].batches == 1
    for batches in (4, 5):
        save(tmp_path, batches, {"x": torch.full((100,), batches)})
    assert names(tmp_path) == ["batch-000000004", "batch-000000005"][-kept:]


def test_a_checkpoint_that_the_disk_spoils_at_once_removes_none(tmp_path, monkeypatch):
    for batches in (1, 2):
        save(tmp_path, batches, {"x": torch.full((100,), batches)})
    write = resume._write
    monkeypatch.setattr(resume, "_write", lambda path, data: write(path, data[:-1] + b"?"))
    monkeypatch.setattr(resume, "KEPT", 1)
    for batches in (3, 4, 5):
        save(tmp_path, batches, {"x": torch.full((100,), batches)})
    with pytest.warns(UserWarning, match="can't be read"):
        assert resume.load_latest(tmp_path)[1].batches == 2


def test_checkpoints_of_format_2_are_read(tmp_path):
    path = save(tmp_path, 2, {"x": torch.zeros(3)}, {"y": 1})
    rewrite(path / "progress.json", format_version=2, sha256=...)
    assert resume.load_latest(tmp_path)[1].identity == {"y": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("room", [0, 100, 20_000])
def test_a_full_disk_leaves_the_checkpoints_before_and_says_so(tmp_path, room):
    import resource

    for batches in (1, 2):
        save(tmp_path, batches, {"x": torch.full((100,), batches)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # the same for a process as a disk that is full
    try:
        with pytest.raises(
            OSError, match=r"batch-000000003 can't be written \(.+\): the ones before it are kept\. Make"
        ):
            save(tmp_path, 3, {"x": torch.full((100_000,), 3)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["batch-000000001", "batch-000000002"]
    assert resume.load_latest(tmp_path)[1].batches == 2


@pytest.mark.parametrize("step", ["fsync", "mkdir", "rename"])
def test_any_failure_to_write_leaves_nothing_half_written(tmp_path, monkeypatch, step):
    def fails(*arguments, **options):
        raise OSError(5, "Input/output error")

    save(tmp_path, 1, {"x": torch.zeros(1)})
    monkeypatch.setattr(os if step == "fsync" else Path, step, fails)
    with pytest.raises(OSError, match=r"batch-000000002 can't be written \(Input/output error\)"):
        save(tmp_path, 2, {"x": torch.zeros(1)})
    assert names(tmp_path) == ["batch-000000001"]


def test_what_a_killed_writer_left_is_ignored_and_removed(tmp_path):
    (tmp_path / ".writing-1").mkdir()
    assert resume.load_latest(tmp_path) is None
    save(tmp_path, 1, {"x": torch.zeros(1)})
    assert names(tmp_path) == ["batch-000000001"]


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    newest = 0
    for wait in (0.003, 0.013):
        process = subprocess.Popen([sys.executable, __file__, str(tmp_path), str(newest)], env=environment)
        try:
            deadline = time.monotonic() + 60
            while not any(int(path.name[6:]) > newest + 2 for path in tmp_path.glob("batch-*")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(wait)
        finally:
            process.kill()
            process.wait()
        tensors, progress = resume.load_latest(tmp_path)
        assert progress.batches > newest
        newest = progress.batches
        assert (tensors["x"] == newest).all()


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
    save(tmp_path, 3, tensors)
    loaded, _ = resume.load_latest(tmp_path)
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


# -- one run a folder ---------------------------------------------------------------------------------------------


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


def test_a_run_that_fails_leaves_its_folder_free(tmp_path):
    with pytest.raises(ZeroDivisionError), resume.locked(tmp_path / "new"):
        raise ZeroDivisionError
    with resume.locked(tmp_path / "new"), resume.locked(None), resume.locked(tmp_path / "other"):
        pass


def test_a_disk_that_is_full_during_a_run_is_named(tmp_path):
    words = rf"no room for the files of the run in {tmp_path} \(No space left.*same command"
    with pytest.raises(OSError, match=words), resume.locked(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "log.jsonl")
    with pytest.raises(OSError, match="^no disk$"), resume.locked(tmp_path):
        raise OSError("no disk")


def test_a_killed_run_s_lock_blocks_nobody(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path), "hold"], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "held").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with (
            pytest.raises(ConfigError, match="wait for its end, stop it, or give another folder"),
            resume.locked(tmp_path),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / resume.LOCK).exists()
    with resume.locked(tmp_path):
        pass


# -- runs: one that was stopped and one that was left alone end in the same weights -----------------------------------

CONFIG = TrainerConfig(epochs=3, batch_size=8)
ADVERSARY = {"stronger_adversary": {"steps": 2, "memory": 3}}
REST = {"rest": {"weight": 1.0}}
RUNS = {
    "the paper": {},
    "a critic and an eraser": {"parts": {"critic": {}, "eraser": {}, "balanced": {}, **ADVERSARY}, "erase": True},
    "a flow and a rest": {"parts": {"confusion": {}, "invariance": {}, "flow": {}, **ADVERSARY, **REST}, "flow": 8},
    "a critic in a rest": {"parts": {"critic": {}, "eraser": {}, **ADVERSARY, **REST}, "erase": True},
    "a grid": {"parts": {"critic": {}, **ADVERSARY}, "z_grid": 4, "z_dim": 32},
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
    tensors, progress = resume.load_latest(path.parent)
    for name in ("random.cpu", "objective.model.q_y.0.bias", "average.q_y.0.bias"):
        assert name in tensors
        resume.save_checkpoint(path.parent, {k: v for k, v in tensors.items() if k != name}, progress)
        with pytest.raises(ConfigError, match=r"doesn't fit the modules of this run \(.*another version\? Train in"):
            trainer("the paper", tmp_path).fit()


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


def hold(folder):
    with resume.locked(folder):
        (folder / "held").touch()
        time.sleep(600)


def endless_writer(folder, start):
    for number in range(start + 1, start + 10_000):
        save(folder, number, {"x": torch.full((100_000,), number)})


if __name__ == "__main__":
    folder, argument = Path(sys.argv[1]), sys.argv[2]
    if argument == "hold":
        hold(folder)
    endless_writer(folder, int(argument)) if argument.isdigit() else slow_run(folder, argument)
