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
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from csvae_hub.config import from_dict, shortened, shown, to_dict
from csvae_hub.errors import ConfigError, TrainingError
from csvae_hub.hub.tensors import is_finite

if TYPE_CHECKING:
    from csvae_hub.training.trainer import Trainer

TENSORS = "tensors.safetensors"
PROGRESS = "progress.json"
LOCK = ".lock"
FORMAT_VERSION = 3
KEPT = 2
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Progress:
    """What progress.json says of a checkpoint.

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


def check_identity(now: Mapping[str, Any], then: Mapping[str, Any], folder: Path) -> None:
    """Refuses a checkpoint of another configuration or other data.

    Raises:
        ConfigError: a field differs; the error names it.
    """
    now, then = flat(now), flat(then)
    for name in sorted(now.keys() | then.keys()):
        before, value = then.get(name), now.get(name)
        if before != value:
            raise ConfigError(
                f"{name}: the checkpoint in {folder} was made with {before!r}, this run has {value!r}: "
                "keep the value, or train in another folder, or without resuming"
            )


def flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested tables as plain JSON values under dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return json.loads(json.dumps(found))


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an optimiser as flat tensors named `<prefix>.<parameter's number>.<name>`."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{name}": value for i, values in state.items() for name, value in values.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave; learning rates and other options stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            number, name = key[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:  # in the parameter's memory format, as the optimiser made it
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Parameters and persistent buffers, named `<prefix>.<key>`."""
    return {f"{prefix}.{key}": value for key, value in module.state_dict().items()}


def load_module_tensors(module: nn.Module, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Puts back what `module_tensors` gave, in place; a buffer takes the saved size, since a queue grows.

    Raises:
        RuntimeError: keys or the shapes of parameters differ.
    """
    start = len(prefix) + 1
    state = {key[start:]: value for key, value in tensors.items() if key.startswith(prefix + ".")}
    for key, buffer in module.named_buffers():
        if key in state and buffer.shape != state[key].shape:
            buffer.resize_(state[key].shape)
    module.load_state_dict(state)


def identity(run: Trainer) -> dict[str, Any]:
    """The values that a resumed run must have in common with the one before."""
    return {**run.record, "trainer": to_dict(run.config), "data_fingerprint": run.train_data.fingerprint}


def save_run(run: Trainer, batches: int) -> None:
    """Writes a checkpoint of modules, optimisers and random numbers after so many batches, if the run has a folder.

    Raises:
        TrainingError: the weights are no longer finite.
    """
    broken = [name for name, parameter in run.objective.named_parameters() if not is_finite(parameter.detach())]
    if broken:
        raise not_finite(f"the weights {broken[0]} after batch {batches}")
    if run.folder is None:
        return
    tensors = module_tensors(run.objective, "objective") | module_tensors(run.average, "average")
    for name, optimizer in run.optimizers.items():
        tensors |= optimizer_tensors(optimizer, name)
    tensors["random.cpu"] = torch.get_rng_state()
    if run.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(run.device)
    save_checkpoint(run.folder / "checkpoints", tensors, Progress(batches, run.elapsed, flat(identity(run))))


def not_finite(got: str) -> TrainingError:
    """The error for a run that holds NaN or infinity."""
    return TrainingError(
        f"{got}: expected finite numbers; lower the learning rate, and train in another folder or without resuming"
    )


def restore_run(run: Trainer, resumed: bool) -> int:
    """Puts the newest checkpoint in place, or removes all where nothing is to be resumed; gives the batches done.

    Raises:
        ConfigError: the checkpoint is of another configuration, other data or another version's modules.
    """
    folder = None if run.folder is None else run.folder / "checkpoints"
    if folder is None or not folder.exists():
        return 0
    found = load_latest(folder) if resumed else shutil.rmtree(folder)
    if found is None:
        return 0
    tensors, progress = found
    check_identity(identity(run), progress.identity, folder)
    if progress.batches > run.rest_at:
        run.begin_rest(resumed=True)
    try:
        load_module_tensors(run.objective, "objective", tensors)
        load_module_tensors(run.average, "average", tensors)
        for name, optimizer in run.optimizers.items():
            load_optimizer_tensors(optimizer, name, tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if run.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], run.device)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        said = shortened(" ".join(str(error).split()))
        raise ConfigError(
            f"the checkpoint in {folder} doesn't fit the modules of this run ({said}): was it made by another version?"
            " Train in another folder, or without resuming"
        ) from error
    run.elapsed = progress.elapsed
    return progress.batches


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
