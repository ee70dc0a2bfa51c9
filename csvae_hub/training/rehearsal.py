"""The time and memory of a training run, from a few of its steps; its recipe as TOML."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from csvae_hub.config import to_dict
from csvae_hub.sharing import mine
from csvae_hub.training.recipes import Recipe
from csvae_hub.training.trainer import Trainer

WARM_UP, STEPS = 2, 10


def rehearse(trainer: Trainer) -> dict[str, float]:
    """Takes twelve steps, which change the trainer's networks, and times the last ten.

    Returns:
        `parameters` of the model, `all_parameters` with the networks beside it, `examples`, `batches` in all,
        `seconds_a_batch`, `seconds` in all, and `bytes`, the peak of memory (the GPU's where there is one; 0 where it
        is not known).
    """
    size, examples, started = trainer.config.batch_size, len(trainer.train_data), 0.0
    with torch.random.fork_rng(), trainer.processes.sharing():
        for batch in range(WARM_UP + STEPS):
            if batch == WARM_UP:
                started = time.monotonic()
            x, y = trainer.train_data.batch(mine((torch.arange(size) + batch * size) % examples))
            trainer.train_step(x.to(trainer.device, memory_format=trainer.memory_format), y.to(trainer.device), batch)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
    a_batch = (time.monotonic() - started) / STEPS
    objective = trainer.objective
    return {
        "parameters": sum(p.numel() for p in objective.model.parameters()),
        "all_parameters": sum(p.numel() for p in objective.parameters()),
        "examples": examples,
        "batches": trainer.last_batch,
        "seconds_a_batch": a_batch,
        "seconds": a_batch * trainer.last_batch,
        "bytes": _peak(trainer.device),
    }


def as_toml(recipe: Recipe) -> str:
    """The recipe with every field, also those that it left at their defaults, as `load_recipe` reads it."""
    tables = to_dict(recipe)
    lines: list[str] = []
    for name, table in [*((k, v) for k, v in tables.items() if k != "parts"), *_parts(tables["parts"])]:
        lines += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items() if value is not None), ""]
    return "\n".join(lines)


def _parts(parts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"parts.{name}", options) for name, options in parts.items()]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if each is not None}
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(each)}" for key, each in kept.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
