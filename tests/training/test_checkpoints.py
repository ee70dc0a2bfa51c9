"""Checkpoints: whole or not there; one run a folder. As a script, a writer or a run to be killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from csvae_hub.errors import ConfigError
from csvae_hub.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(folder, batches, tensors, identity=None):
    return checkpoints.save_checkpoint(folder, tensors, checkpoints.Progress(batches, 0.1, identity or {}))


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
    loaded, progress = checkpoints.load_latest(tmp_path)
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value), name
    assert (progress.batches, progress.elapsed, progress.identity) == (12, 0.1, {"x": None})


def test_the_newest_are_kept(tmp_path):
    for batches in (5, 10, 100, 1000):
        save(tmp_path, batches, {"x": torch.tensor(batches)})
    assert names(tmp_path) == ["batch-000000100", "batch-000001000"]
    assert checkpoints.load_latest(tmp_path)[0]["x"] == 1000


def test_saving_the_same_batch_again_replaces_it(tmp_path):
    for value in (1, 2):
        save(tmp_path, 5, {"x": torch.tensor(value)})
    assert checkpoints.load_latest(tmp_path)[0]["x"] == 2


def test_there_is_none_in_an_empty_folder_or_no_folder(tmp_path):
    assert checkpoints.load_latest(tmp_path) is None
    assert checkpoints.load_latest(tmp_path / "nowhere") is None


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
        found = checkpoints.load_latest(tmp_path)
    assert (found[1].batches, found[1].identity) == (1, {"y": 1})
    assert (found[0]["x"] == 1).all()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kept", [1, 2])
def test_damaged_checkpoints_never_push_out_whole_ones(tmp_path, monkeypatch, damage, kept):
    save(tmp_path, 1, {"x": torch.full((100,), 1)})
    damaged(tmp_path, 2, damage)
    monkeypatch.setattr(checkpoints, "KEPT", kept)
    newest = save(tmp_path, 3, {"x": torch.full((100,), 3)})
    assert ("batch-000000001" in names(tmp_path)) == (kept == 2)
    flip(newest / "tensors.safetensors", -1)
    if kept == 2:
        with pytest.warns(UserWarning, match="can't be read"):
            assert checkpoints.load_latest(tmp_path)[1].batches == 1
    for batches in (4, 5):
        save(tmp_path, batches, {"x": torch.full((100,), batches)})
    assert names(tmp_path) == ["batch-000000004", "batch-000000005"][-kept:]


def test_a_checkpoint_that_the_disk_spoils_at_once_removes_none(tmp_path, monkeypatch):
    for batches in (1, 2):
        save(tmp_path, batches, {"x": torch.full((100,), batches)})
    write = checkpoints._write
    monkeypatch.setattr(checkpoints, "_write", lambda path, data: write(path, data[:-1] + b"?"))
    monkeypatch.setattr(checkpoints, "KEPT", 1)
    for batches in (3, 4, 5):
        save(tmp_path, batches, {"x": torch.full((100,), batches)})
    with pytest.warns(UserWarning, match="can't be read"):
        assert checkpoints.load_latest(tmp_path)[1].batches == 2


def test_checkpoints_of_format_2_are_read(tmp_path):
    path = save(tmp_path, 2, {"x": torch.zeros(3)}, {"y": 1})
    rewrite(path / "progress.json", format_version=2, sha256=...)
    assert checkpoints.load_latest(tmp_path)[1].identity == {"y": 1}


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
    assert checkpoints.load_latest(tmp_path)[1].batches == 2


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
    assert checkpoints.load_latest(tmp_path) is None
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
        tensors, progress = checkpoints.load_latest(tmp_path)
        assert progress.batches > newest
        newest = progress.batches
        assert (tensors["x"] == newest).all()


# -- one run a folder ---------------------------------------------------------------------------------------------


def test_a_run_that_fails_leaves_its_folder_free(tmp_path):
    with pytest.raises(ZeroDivisionError), checkpoints.locked(tmp_path / "new"):
        raise ZeroDivisionError
    with checkpoints.locked(tmp_path / "new"), checkpoints.locked(None), checkpoints.locked(tmp_path / "other"):
        pass


def test_a_disk_that_is_full_during_a_run_is_named(tmp_path):
    words = rf"no room for the files of the run in {tmp_path} \(No space left.*same command"
    with pytest.raises(OSError, match=words), checkpoints.locked(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "log.jsonl")
    with pytest.raises(OSError, match="^no disk$"), checkpoints.locked(tmp_path):
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
            checkpoints.locked(tmp_path),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / checkpoints.LOCK).exists()
    with checkpoints.locked(tmp_path):
        pass


def hold(folder):
    with checkpoints.locked(folder):
        (folder / "held").touch()
        time.sleep(600)


def endless_writer(folder, start):
    for number in range(start + 1, start + 10_000):
        save(folder, number, {"x": torch.full((100_000,), number)})


if __name__ == "__main__":
    folder, argument = Path(sys.argv[1]), sys.argv[2]
    hold(folder) if argument == "hold" else endless_writer(folder, int(argument))
