"""The worth of each part of ours: drawn faces with all parts, without each in turn, and by the paper's objective alone.

    python benchmarks/ablation.py --seeds 2

Follows the recipe `synthetic-faces` at its full length, with the critic beside its parts, and measures with two judges
on faces that no option was chosen by. Writes docs/results/ablation.json and, from it, the table .md beside it. Runs
that the JSON holds are passed over, so that it can be stopped and started again. The time of a batch is measured first,
in turns: the median over batches, of that by the paper's objective.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from celeba import load_judges
from paper import splits_of

from csvae_hub import hub
from csvae_hub.data import AttributeData
from csvae_hub.evaluation import evaluate
from csvae_hub.training import Recipe, Trainer, load_recipe, train
from csvae_hub.training.parts.critic import Critic
from csvae_hub.training.recipes import objective_of

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
COLUMNS: dict[str, Callable[[dict[str, Any]], float]] = {
    "wished": lambda run: 100 * run["attribute_change"]["wished"],
    "worst": lambda run: 100 * run["attribute_change"]["worst"],
    "distance": lambda run: run["truth"]["distance"],
    "MLP leak, worst": lambda run: run["leakage"]["z"]["mlp"]["max"],
    "MSE": lambda run: run["reconstruction"]["mse"],
}
PAPER = "the paper's objective"
TURNS = 40
"""Batches of each row that are timed, one after the other."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="where training leaves its folders")
    parser.add_argument("--only", nargs="+", help="these rows alone")
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "ablation.json")
    arguments = parser.parse_args()
    path: Path = arguments.output
    found: dict[str, Any] = hub.read_json(path) if path.is_file() else {"runs": {}}
    found["command"], found["torch"] = (
        shlex.join(["python", "benchmarks/ablation.py", *sys.argv[1:]]),
        torch.__version__,
    )
    recipes = rows(dict(pair.partition("=")[::2] for pair in arguments.overrides))
    splits = splits_of("synthetic-faces", recipes["all parts"], None)
    found["time_of_a_batch"] = found.get("time_of_a_batch") or times(recipes, splits[0])
    judges = load_judges(arguments.runs / "judges", splits[0])
    for seed in range(arguments.seeds):
        for name in arguments.only or recipes:
            of_row = found["runs"].setdefault(name, {})
            if str(seed) in of_row:
                continue
            recipe = replace(recipes[name], trainer=replace(recipes[name].trainer, seed=seed))
            folder = arguments.runs / f"{name.replace(' ', '-')}-{seed}"
            model = train(recipe, None, folder, quiet=True)
            result = evaluate(model, *splits, judges, seed=seed)
            seconds = round(hub.read_json(folder / "model/training.json")["elapsed_seconds"])
            of_row[str(seed)] = {"training_seconds": seconds, **result}
            hub.write_json(path, found)
            path.with_suffix(".md").write_text(table(found), encoding="utf-8")
            print(table(found), flush=True)


def rows(overrides: dict[str, str]) -> dict[str, Recipe]:
    """A recipe for each row of the table."""
    every = load_recipe("synthetic-faces", {**overrides, "parts.critic.weight": "320.0"})
    found = {"all parts": every}
    for name in every.parts:
        left_out = {"rest", "flow"} if name == "rest" else {name}  # the flow is fitted in the rest
        model = replace(every.model, flow=0) if "flow" in left_out else every.model
        kept = {part: options for part, options in every.parts.items() if part not in left_out}
        found[f"without {' and '.join(sorted(left_out, reverse=True))}"] = replace(every, model=model, parts=kept)
    return {**found, PAPER: load_recipe("paper-faces", overrides)}


def times(recipes: dict[str, Recipe], data: AttributeData) -> dict[str, float]:
    """Seconds that a batch of training takes by each recipe before the rest, where a critic works from the start."""
    trainers = {name: Trainer(objective_of(recipe, data), recipe.trainer, data) for name, recipe in recipes.items()}
    for part in (part for trainer in trainers.values() for part in trainer.objective.parts if isinstance(part, Critic)):
        part.reading.zero_()  # it can read
    taken: dict[str, list[float]] = {name: [] for name in recipes}
    x, y = data.batch(range(recipes[PAPER].trainer.batch_size))
    x = x.to(memory_format=torch.channels_last)
    for turn in range(TURNS):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            trainer.train_step(x, y, turn)
            taken[name].append(time.perf_counter() - start)
    return {name: median(seconds) for name, seconds in taken.items()}


def table(found: dict[str, Any]) -> str:
    """Means over the seeds and, behind ±, half of the distance between the extremes, as Markdown."""
    seconds = found["time_of_a_batch"]
    lines = ["| | " + " | ".join(COLUMNS) + " | time |", "| --- |" + " --- |" * (len(COLUMNS) + 1)]
    for name in filter(found["runs"].__contains__, seconds):
        row = [*cells(COLUMNS, found["runs"][name]), f"{seconds[name] / seconds[PAPER]:.1f}"]
        lines.append(f"| {name} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def cells(columns: dict[str, Callable[[dict[str, Any]], float]], runs: dict[str, dict[str, Any]]) -> list[str]:
    """For each column the mean over the runs and, behind ±, half of the distance between the extremes."""
    found: list[str] = []
    for of in columns.values():
        values = [of(run) for run in runs.values()]
        spread = (max(values) - min(values)) / 2
        figure = f"{mean(values):.3g}" if mean(values) < 1000 else f"{mean(values):,.0f}"
        found.append(figure + (f" ± {float(f'{spread:.1g}'):g}" if len(values) > 1 else ""))
    return found


if __name__ == "__main__":
    main()
