"""Times a step of the trainer beside a bare loop with the same networks, batch and optimisers, in turns.

    python benchmarks/overhead.py -o docs/results/overhead.json [--seconds 240] [--device cuda]

The bare loop is that of `examples/plain_loop.py`: the objective's step, backward, Adam, and the same for each
minimisation beside it, on a batch that is ready. `step` is `Trainer.train_step` on the same batch: besides, it averages
the weights and takes down means and what the guards look at. `with data` takes each batch from the data set first; the
share that it waits is what a step takes longer by that. These three take `--steps` steps in a turn, one of each kind
after the other in an order that changes, so that what slows the machine slows all alike. `fit` is the whole loop, with
log and callbacks, after them. The ratio is the median of the turns' own. `parts` times some of what the trainer does
besides, alone. Random pictures; run it on idle cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

RECIPES = {"paper-faces": 64, "celeba-64": 32}
"""Recipes and the batch that is measured of each; the second has a critic and a stronger adversary."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=240.0, help="for all recipes together, about")
    parser.add_argument("--steps", type=int, default=16, help="of each kind in a turn; R1 comes every 16th")
    parser.add_argument("--batch", type=int, help="instead of the recipe's in this file")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "1"
    found: dict[str, Any] = {"command": shlex.join(["python", "benchmarks/overhead.py", *sys.argv[1:]])}
    found |= {"machine": machine(arguments.device), "precision": arguments.precision}
    for name, batch in RECIPES.items():
        found[name] = measured(name, arguments.batch or batch, arguments, arguments.seconds / len(RECIPES))
        print(json.dumps({name: found[name]}, indent=2))
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def machine(device: str) -> dict[str, Any]:
    """The machine and the versions."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def measured(name: str, batch: int, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Medians of seconds a step, and ratios, of a recipe."""
    from csvae_hub.data import AttributeData
    from csvae_hub.training import Trainer, load_recipe, objective_of

    recipe, steps = load_recipe(name), arguments.steps
    config = replace(recipe.trainer, batch_size=batch, epochs=1, precision=arguments.precision)
    rng, names, n = np.random.default_rng(0), recipe.model.attributes, steps * batch
    labels = rng.integers(0, 2, (n, len(names))).astype(np.float32)
    data = AttributeData(rng.integers(0, 256, (n, *recipe.model.shape), dtype=np.uint8), labels, names)
    objective = objective_of(recipe, data)
    times = Times()
    trainer = Trainer(copied(objective, recipe, data), config, data, quiet=True, callbacks=[times])
    device, count = trainer.device, iter(range(10**9))
    assert device.type == arguments.device, f"accelerate chose {device}"
    x, y = trainer._examples(torch.arange(batch))
    bare = bare_loop(copied(objective, recipe, data).to(device).to(memory_format=trainer.memory_format), trainer)

    def fit() -> float:
        times.at = []
        trainer.fit()
        return (times.at[-1] - times.at[0]) / (len(times.at) - 1)

    kinds: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(x, y),
        "step": lambda: trainer.train_step(x, y, next(count) % steps),
        "with data": lambda: trainer.train_step(*trainer._examples(trainer._rows(next(count) % steps)), 0),
    }

    def turn() -> dict[str, float]:
        took = dict.fromkeys(kinds, 0.0)
        for i in range(steps):
            for kind in [*kinds][i % len(kinds) :] + [*kinds][: i % len(kinds)]:
                took[kind] += timed(kinds[kind], 1, device) / steps
        return took | {"fit": fit()}

    turn()  # warms up
    turns: list[dict[str, float]] = []
    end = time.monotonic() + seconds
    while len(turns) < 4 or time.monotonic() < end:
        turns.append(turn())
    ratios = {kind: [each[kind] / each["bare"] for each in turns] for kind in turns[0]}
    waits = statistics.median(1 - each["step"] / each["with data"] for each in turns)
    return {
        "batch": batch,
        "turns": len(turns),
        "seconds": {kind: statistics.median(each[kind] for each in turns) for kind in turns[0]},
        "of_bare": {kind: statistics.median(values) for kind, values in ratios.items()},
        "of_bare_quartiles": {kind: statistics.quantiles(values, n=4)[::2] for kind, values in ratios.items()},
        "share_waiting_for_data": waits,
        "parts": parts(trainer, x, y, steps),
    }


def copied(objective: Any, recipe: Any, data: Any) -> Any:
    """An objective with the same weights; its hooks are its own."""
    from csvae_hub.training import objective_of

    other = objective_of(recipe, data)
    other.load_state_dict(copy.deepcopy(objective.state_dict()))
    return other


def bare_loop(objective: Any, trainer: Any) -> Callable[[Any, Any], None]:
    """One step of the loop of `examples/plain_loop.py`, with the trainer's optimisers and precision."""
    fused, rate = (True if trainer.device.type == "cuda" else None), trainer.config.learning_rate
    optimizer = torch.optim.Adam(objective.generative_parameters(), rate, objective.betas, fused=fused)
    others = [torch.optim.Adam(game.parameters, rate, game.betas, fused=fused) for game in objective.minimisations]
    autocast = trainer.processes.autocast()

    def step(x: Any, y: Any) -> None:
        with autocast:
            loss, step = objective.generative_step(x, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for game, other in zip(objective.minimisations, others, strict=True):
            losses = game.losses(step)
            while (term := autocast(next)(losses, None)) is not None:
                (game.weight * term).backward()
                other.step()
                other.zero_grad()

    return step


class Times:
    """When each batch of a run was done."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def after_batch(self, trainer: Any, batch: int, terms: Any) -> None:
        """Takes down the time; the first and the last batch wait for the device."""
        if trainer.device.type == "cuda" and batch in (1, trainer.last_batch):
            torch.cuda.synchronize()
        self.at.append(time.perf_counter())


def timed(call: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds a step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / steps


def parts(trainer: Any, x: Any, y: Any, steps: int) -> dict[str, float]:
    """Seconds a step of what the trainer does besides, each alone."""
    from csvae_hub.training.guards import watched

    _, step = trainer.objective.generative_step(x, y)
    calls: dict[str, Callable[[], object]] = {
        "average": lambda: trainer.averaging.update(0.999, 10**6),
        "watched": lambda: watched(step),
        "batch": lambda: trainer._examples(torch.arange(len(x))),
        "means": lambda: [term.detach().mean() for term in step.terms.values()],
    }
    return {name: timed(call, 4 * steps, trainer.device) for name, call in calls.items()}


if __name__ == "__main__":
    main()
