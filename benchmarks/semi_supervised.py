"""The worth of pictures without labels: drawn faces with all labels, with 10 % of them, and with 10 % of the faces.

    python benchmarks/semi_supervised.py

Trains three models a seed by the recipe `synthetic-faces`, shortened, for the same number of batches, and measures each
with two judges on faces that no model has seen. Writes docs/results/semi-supervised.json and, from it, the table .md
beside it. Runs that the JSON holds are passed over, so that it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from ablation import cells
from celeba import load_judges
from paper import RESULTS, splits_of

from csvae_hub import hub
from csvae_hub.data import AttributeData, balanced
from csvae_hub.evaluation import Judges, attribute_change, distance_to_truth, reconstruction
from csvae_hub.evaluation.encoding import encode_data
from csvae_hub.training import Recipe, Trainer, load_recipe
from csvae_hub.training.recipes import objective_of

ALL, FEW_LABELS, FEW_FACES = "all labels", "10 % of the labels", "10 % of the faces"
SHARE = 0.1
REST = 0.25
"""Of the epochs, the last ones, in which the encoder is frozen."""
COLUMNS: dict[str, Callable[[dict[str, Any]], float]] = {
    "wished, %": lambda run: 100 * run["wished"],
    "worst direction, %": lambda run: 100 * run["worst"],
    "distance to the truth": lambda run: run["distance"],
    "q(y given x) right, %": lambda run: 100 * run["read"],
    "MSE": lambda run: run["mse"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8, help="over all faces; as many batches over the tenth of them")
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--runs", type=Path, default=Path("runs/semi-supervised"), help="where the judges are kept")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "semi-supervised.json")
    arguments = parser.parse_args()
    recipe = load_recipe("synthetic-faces", {"data.examples": str(arguments.faces)})
    train, _, test = splits_of("synthetic-faces", recipe, None)
    judges = load_judges(arguments.runs / "judges", train)
    command = shlex.join(["python", "benchmarks/semi_supervised.py", *sys.argv[1:]])
    found = hub.read_json(arguments.output) if arguments.output.is_file() else {"runs": {}}
    found |= {"command": command, "torch": torch.__version__, "recipe": "synthetic-faces"}
    for seed in range(arguments.seeds):
        for name, data in variants(train).items():
            of_variant = found["runs"].setdefault(name, {})
            if str(seed) not in of_variant:
                of_variant[str(seed)] = run(shortened(recipe, arguments.epochs, seed, train, data), data, test, judges)
                print(name, seed, of_variant[str(seed)], flush=True)
                write(arguments.output, found)
    write(arguments.output, found)
    print(table(found["runs"]))


def write(path: Path, found: dict[str, Any]) -> None:
    """Writes the JSON and the table."""
    hub.write_json(path, found | {"verdict": verdict(found["runs"])})
    path.with_suffix(".md").write_text(table(found["runs"]), encoding="utf-8")


def variants(train: AttributeData) -> dict[str, AttributeData]:
    """The training data of each row of the table, as `train` draws from it.

    The labels that are left are those of the faces that are left.
    """
    kept = round(SHARE * len(train))
    labels = train.labels.copy()
    labels[kept:] = np.nan
    return {
        ALL: train,
        FEW_LABELS: balanced(AttributeData(train.images, labels, train.attributes), ()),
        FEW_FACES: train.subset(range(kept)),
    }


def shortened(recipe: Recipe, epochs: int, seed: int, train: AttributeData, data: AttributeData) -> Recipe:
    """The recipe for as many batches of `data` as so many epochs of `train` have, a quarter of them in the rest."""
    size = recipe.trainer.batch_size
    epochs = round(epochs * (len(train) // size) / (len(data) // size))
    rest = replace(recipe.parts["rest"], epochs=max(1, round(REST * epochs)))
    trainer = replace(recipe.trainer, epochs=epochs, seed=seed)
    return replace(recipe, trainer=trainer, parts={**recipe.parts, "rest": rest})


def run(recipe: Recipe, data: AttributeData, test: AttributeData, judges: Judges) -> dict[str, Any]:
    """Trains one model and measures it."""
    torch.manual_seed(recipe.trainer.seed)
    trainer = Trainer(objective_of(recipe, data), recipe.trainer, data, quiet=True)
    model = trainer.fit()
    codes = encode_data(model, test)
    change = attribute_change(model, test, judges, codes)
    return {
        "faces": len(data),
        "labelled": int((~np.isnan(data.labels)).all(1).sum()),
        "batches": trainer.last_batch,
        "seconds": round(trainer.elapsed),
        "wished": change["wished"],
        "worst": change["worst"],
        "distance": distance_to_truth(model, test)["distance"],
        "read": float((codes.y.numpy() == test.labels).mean()),
        "mse": reconstruction(model, test)["mse"],
    }


def verdict(runs: dict[str, dict[str, Any]]) -> dict[str, float | bool] | None:
    """How far the wished class of few labels is from all labels, and from few faces; None before all are there.

    In percentage points: of the means, and as the mean distance of runs of the same seed, which start from the same
    weights. `closer` is true where that of all labels is the nearer one by both.
    """
    if not {ALL, FEW_LABELS, FEW_FACES} <= runs.keys():
        return None
    every, labels, faces = (
        mean(100 * r["wished"] for r in runs[name].values()) for name in (ALL, FEW_LABELS, FEW_FACES)
    )
    to_all, to_few = abs(labels - every), abs(labels - faces)
    seeds = sorted(set.intersection(*(set(runs[name]) for name in (ALL, FEW_LABELS, FEW_FACES))))
    pairs = [[100 * runs[name][seed]["wished"] for name in (ALL, FEW_LABELS, FEW_FACES)] for seed in seeds]
    all_paired, few_paired = mean(abs(b - a) for a, b, _ in pairs), mean(abs(b - c) for _, b, c in pairs)
    return {
        "to_all_labels": to_all,
        "to_few_faces": to_few,
        "to_all_labels_by_seed": all_paired,
        "to_few_faces_by_seed": few_paired,
        "closer": to_all < to_few and all_paired < few_paired,
    }


def table(runs: dict[str, dict[str, Any]]) -> str:
    """Means over the seeds; behind ± half of the distance between the extremes."""
    lines = [
        "| trained on: labelled of all faces | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    for name, by_seed in runs.items():
        first = next(iter(by_seed.values()))
        figures = " | ".join(cells(COLUMNS, by_seed))
        lines.append(f"| {name}: {first['labelled']:,} of {first['faces']:,} | {figures} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
