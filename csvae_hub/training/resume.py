"""Checkpoints without pickle: one safetensors file and one JSON file in a folder that appears all at once."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from csvae_hub.config import to_dict
from csvae_hub.errors import ConfigError

if TYPE_CHECKING:
    from csvae_hub.training.trainer import Trainer

TENSORS = "tensors.safetensors"
PROGRESS = "progress.json"
FORMAT_VERSION = 2
KEPT = 2


def save_checkpoint(folder: Path, batches: int, tensors: dict[str, Tensor], progress: dict[str, Any]) -> Path:
    """Writes `folder/batch-<batches>` and removes all but the newest `KEPT` checkpoints.

    It is written under a temporary name and renamed when it is on the disk, so that a process killed at any moment
    leaves complete checkpoints only. `progress` is plain JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(".writing-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    writing = folder / f".writing-{os.getpid()}"
    writing.mkdir()
    # a copy each: safetensors refuses tensors that share memory, and channels-last ones
    copies = {key: torch.empty(t.shape, dtype=t.dtype).copy_(t.detach()) for key, t in tensors.items()}
    save_file(copies, writing / TENSORS, metadata={"format": "pt"})
    content = {"format_version": FORMAT_VERSION, "batches": batches, **progress}
    (writing / PROGRESS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in (TENSORS, PROGRESS):
        _to_disk(writing / name)
    target = folder / f"batch-{batches:09d}"
    if target.exists():
        shutil.rmtree(target)
    writing.rename(target)
    _to_disk(folder)
    for old in list_checkpoints(folder)[KEPT:]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first."""
    return sorted(folder.glob("batch-*"), reverse=True)


def load_latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and progress of the newest complete checkpoint; None where there is none.

    Warns of a damaged checkpoint by name and passes it over.
    """
    for path in list_checkpoints(folder):
        try:
            progress = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
            if progress["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format_version {progress['format_version']}, this version reads {FORMAT_VERSION}")
            return load_file(path / TENSORS), progress
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            warnings.warn(f"checkpoint {path} can't be read ({error}): trying the one before it", stacklevel=2)
    return None


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
    """Writes a checkpoint of modules, optimisers and random numbers after so many batches."""
    assert run.folder is not None
    tensors = module_tensors(run.objective, "objective") | module_tensors(run.average, "average")
    for name, optimizer in run.optimizers.items():
        tensors |= optimizer_tensors(optimizer, name)
    tensors["random.cpu"] = torch.get_rng_state()
    if run.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(run.device)
    progress = {"elapsed": run.elapsed, "identity": flat(identity(run))}
    save_checkpoint(run.folder / "checkpoints", batches, tensors, progress)


def restore_run(run: Trainer, resumed: bool) -> int:
    """Puts the newest checkpoint in place, or removes all where nothing is to be resumed; gives the batches done.

    Raises:
        ConfigError: the checkpoint is of another configuration or other data.
    """
    folder = None if run.folder is None else run.folder / "checkpoints"
    if folder is None or not folder.exists():
        return 0
    found = load_latest(folder) if resumed else shutil.rmtree(folder)
    if found is None:
        return 0
    tensors, progress = found
    check_identity(identity(run), progress["identity"], folder)
    if int(progress["batches"]) > run.rest_at:
        run.begin_rest(resumed=True)
    load_module_tensors(run.objective, "objective", tensors)
    load_module_tensors(run.average, "average", tensors)
    for name, optimizer in run.optimizers.items():
        load_optimizer_tensors(optimizer, name, tensors)
    torch.set_rng_state(tensors["random.cpu"])
    if run.device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], run.device)
    run.elapsed = float(progress["elapsed"])
    return int(progress["batches"])


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
