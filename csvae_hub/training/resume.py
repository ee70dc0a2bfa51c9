"""A run that goes on: its modules, optimisers and random numbers into a checkpoint, and out of it."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from csvae_hub.config import shortened, to_dict
from csvae_hub.errors import ConfigError, TrainingError
from csvae_hub.hub.tensors import is_finite
from csvae_hub.models import AttributeModel
from csvae_hub.training.checkpoints import Progress, load_latest, save_checkpoint
from csvae_hub.training.progress_line import say

if TYPE_CHECKING:
    from csvae_hub.training.trainer import Trainer

BY = "made_by."
"""Entries of a checkpoint's identity that begin so are not compared."""
NAMED = 5
"""Examples of a batch that an error names; the log has all."""


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
    found = {**run.record, "trainer": to_dict(run.config), "data_fingerprint": run.train_data.fingerprint}
    return found if run.processes.clip_norm is None else {**found, "clip_norm": run.processes.clip_norm}


def shares(run: Trainer) -> dict[str, int]:
    """The processes that share a batch, and in how many parts each takes it; both may change when a run goes on."""
    return {"processes": run.processes.count, "parts_of_a_batch": run.processes.accumulation}


def resumed_by_others(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Says that a run goes on in another number of processes or parts."""
    then = ", ".join(f"{name.replace('_', ' ')}: {number}" for name, number in before.items())
    here = " and ".join(map(str, now.values()))
    return f"the checkpoint was made by {then}; now they are {here}: the run goes on, though not to the same bits"


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
    tensors |= run.processes.scaler_tensors() | run.looks.tensors()
    tensors["random.cpu"] = torch.get_rng_state()
    if run.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(run.device)
    by = {BY + name: number for name, number in shares(run).items()}
    save_checkpoint(run.folder / "checkpoints", tensors, Progress(batches, run.elapsed, flat(identity(run)) | by))


def finish_run(run: Trainer) -> AttributeModel:
    """The averaged model, finished by the parts and on all examples, in eval mode; it is written to `folder/model`.

    That of the best epoch is finished alike and written to `folder/best`. Then the callbacks are told of the end.
    """
    say(f"finishing the model on {len(run.train_data)} examples", run.quiet)
    best, model = run.looks.best_model(), _finished(run, run.average)
    if run.folder is not None:
        _write_models(run, run.folder, model, best)
    run.callbacks.call("at_end", run, model)
    return model


def _write_models(run: Trainer, folder: Path, model: AttributeModel, best: AttributeModel | None) -> None:
    about = {"examples": len(run.train_data), "elapsed_seconds": round(run.elapsed, 1)}
    versions = {name: version(name) for name in ("csvae-hub", "torch", "accelerate", "safetensors", "numpy")}
    about |= {"device": str(run.device), **shares(run), "versions": {"python": platform.python_version(), **versions}}
    model.save_pretrained(folder / "model", extra={"training.json": {**identity(run), **about}})
    if best is not None:
        about["best"] = {"epoch": run.looks.epoch, "valid_mse": run.looks.error}
        with torch.random.fork_rng():
            best = _finished(run, best)
        best.save_pretrained(folder / "best", extra={"training.json": {**identity(run), **about}})


def _finished(run: Trainer, model: AttributeModel) -> AttributeModel:
    model = model.eval().to(memory_format=torch.contiguous_format)
    for fit in run.objective.at_end:
        fit(model, run.all_examples())
    model.finalize(run.all_examples())
    return model


def interrupted(run: Trainer) -> str:
    """Says that SIGTERM ended a run, and what is left of it."""
    if run.folder is None:
        return "stopped by SIGTERM: nothing is kept, since the run has no folder"
    return f"stopped by SIGTERM: the checkpoint in {run.folder / 'checkpoints'} is saved; the same command resumes"


def not_finite(got: str, examples: Sequence[str] = ()) -> TrainingError:
    """The error for a run that holds NaN or infinity, where known with the examples of the batch."""
    more = f" and {len(examples) - NAMED} more" if len(examples) > NAMED else ""
    made_of = f", made of {', '.join(examples[:NAMED])}{more}" if examples else ""
    error = TrainingError(
        f"{got}{made_of}: expected finite numbers; lower the learning rate, and train in another folder or without"
        " resuming"
    )
    error.examples = tuple(examples)
    return error


def restore_run(run: Trainer, resumed: bool) -> int:
    """Puts the newest checkpoint in place, or removes all where nothing is to be resumed; gives the batches done.

    Raises:
        ConfigError: the checkpoint is of another configuration, other data or another version's modules.
    """
    found, folder = None, Path() if run.folder is None else run.folder / "checkpoints"
    if run.folder is not None and folder.exists():
        found = load_latest(folder) if resumed else shutil.rmtree(folder)
    progress, folder = run.processes.from_first((found and found[1], folder))
    if progress is None:
        run.looks.load({})
        return 0
    tensors = run.processes.tensors_from_first({} if found is None else found[0])
    then = {name: value for name, value in progress.identity.items() if not name.startswith(BY)}
    check_identity(identity(run), then, folder)
    before = {name: progress.identity.get(BY + name, 1) for name in shares(run)}
    if before != shares(run):
        say(resumed_by_others(before, shares(run)), run.quiet)
    if progress.batches > run.rest_at:
        run.begin_rest(resumed=True)
    try:
        load_module_tensors(run.objective, "objective", tensors)
        load_module_tensors(run.average, "average", tensors)
        for name, optimizer in run.optimizers.items():
            load_optimizer_tensors(optimizer, name, tensors)
        run.processes.load_scaler(tensors)
        run.looks.load(tensors)
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
