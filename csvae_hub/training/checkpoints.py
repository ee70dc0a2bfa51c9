"""Checkpoints without pickle: one safetensors file and one JSON file in a folder that appears all at once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from csvae_hub.config import from_dict, shown, to_dict
from csvae_hub.errors import ConfigError

TENSORS = "tensors.safetensors"
PROGRESS = "progress.json"
LOCK = ".lock"
FORMAT_VERSION = 3
KEPT = 2
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Progress:
    """The content of progress.json.

    batches: done so far.
    elapsed: seconds of training.
    identity: the values that a resumed run must have in common.
    sha256: of the tensors' file and of the other fields. Checkpoints of format 2 have none.
    """

    batches: int
    elapsed: float
    identity: dict[str, Any]
    format_version: int = FORMAT_VERSION
    sha256: str = ""

    def digest(self, tensors: bytes) -> str:
        """The value that `sha256` must have beside these tensors."""
        others = json.dumps({**to_dict(self), "sha256": ""}, sort_keys=True)
        return hashlib.sha256(tensors + others.encode()).hexdigest()


@contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Keeps other runs out of a folder. The system releases the lock when the process ends, however it ends.

    Raises:
        ConfigError: another run is training there.
        OSError: the disk was full meanwhile.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{folder}: expected a folder in which no other run is training, got one that has a run:"
            " wait for its end, stop it, or give another folder"
        ) from None
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"there is no room for the files of the run in {folder} ({error.strerror}): its checkpoints are kept;"
            " make room, and the same command resumes"
        ) from error
    finally:
        lock.release()


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> Path:
    """Writes `folder/batch-<batches>` and removes what is older than the newest `KEPT` whole checkpoints.

    It is written under a temporary name and renamed when it is on the disk, so that a process killed at any moment
    leaves complete checkpoints only.

    Raises:
        OSError: it can't be written. The other checkpoints stay, and nothing half-written.
    """
    # a copy each: safetensors refuses tensors that share memory, and channels-last ones
    copies = {key: torch.empty(t.shape, dtype=t.dtype).copy_(t.detach()) for key, t in tensors.items()}
    data = save(copies, metadata={"format": "pt"})
    content = {**to_dict(progress), "sha256": progress.digest(data)}
    writing, target = folder / f".writing-{os.getpid()}", folder / _name(progress.batches)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".writing-*"):
            _remove(left_over)
        writing.mkdir()
        _write(writing / TENSORS, data)
        _write(writing / PROGRESS, (json.dumps(content, indent=2) + "\n").encode())
        if target.exists():
            _remove(target)
        writing.rename(target)
        if os.name != "nt":  # Windows opens no folders
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    except OSError as error:
        raise OSError(
            f"the checkpoint {target} can't be written ({error.strerror or error}): the ones before it are kept. Make"
            " room or give the right to write, and the same command resumes"
        ) from error
    finally:
        _remove(writing)
    whole = [path for path in list_checkpoints(folder) if _is_whole(path)]
    for old in list_checkpoints(folder) if whole[KEPT - 1 :] else []:
        if old < whole[KEPT - 1]:
            _remove(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first, damaged ones too."""
    return sorted(folder.glob("batch-*"), reverse=True)


def load_latest(folder: Path) -> tuple[dict[str, Tensor], Progress] | None:
    """Tensors and progress of the newest whole checkpoint; None where there is none.

    Warns of a damaged checkpoint by name and passes it over.
    """
    for path in list_checkpoints(folder):
        try:
            data, progress = _read(path)
            return load(data), progress
        except _DAMAGE as error:
            warnings.warn(f"checkpoint {path} can't be read ({error}): trying the one before it", stacklevel=2)
    return None


def _name(batches: int) -> str:
    return f"batch-{batches:09d}"


_DAMAGE = (OSError, ValueError, RecursionError, SafetensorError)


def _read(path: Path) -> tuple[bytes, Progress]:
    """The tensors' file and the progress of a checkpoint; raises one of `_DAMAGE` where it isn't whole."""
    content = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
    version = content.get("format_version") if isinstance(content, dict) else None
    if version not in (2, FORMAT_VERSION):
        raise ValueError(f"format_version {shown(version)}, this version reads 2 and {FORMAT_VERSION}")
    progress = from_dict(Progress, content, PROGRESS)
    data = (path / TENSORS).read_bytes()
    if path.name != _name(progress.batches):
        raise ValueError(f"it says {progress.batches} batches")
    if (version != 2 or progress.sha256) and progress.sha256 != progress.digest(data):
        raise ValueError("its checksum differs: it was changed or damaged after it was written")
    return data, progress


def _is_whole(path: Path) -> bool:
    try:
        load(_read(path)[0])
    except _DAMAGE:
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    """Removes a folder or a file as far as that goes."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()
