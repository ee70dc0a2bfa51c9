"""Probes z where an attribute is rare and the adversary counts both classes alike, or does not.

    python benchmarks/balance.py -o docs/results/balance.json

Drawn faces of which 4 % wear a hat and 10 % glasses, the paper's entropy alone against the adversary, short runs. Seeds
that the JSON holds are passed over.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from csvae_hub import hub
from csvae_hub.data import AttributeData, SyntheticFaces
from csvae_hub.evaluation import leakage, reconstruction
from csvae_hub.evaluation.encoding import encode_data
from csvae_hub.training import Trainer, load_recipe
from csvae_hub.training.recipes import objective_of

SHARES = {"Wearing_Hat": 0.04, "Eyeglasses": 0.1}
PLAIN = {
    "model.residual": "true",
    "model.correction": "true",
    "model.min_scale": "0.05",
    "model.backbone.film": "true",
    "objective.negative_entropy": "100.0",
    "parts.stronger_adversary": "{ steps = 8, memory = 4 }",
}
VARIANTS = {"balanced": {"parts.balanced": "{}"}, "as they are": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("-o", "--output", required=True, type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = hub.read_json(arguments.output) if arguments.output.is_file() else {"runs": {}}
    found["command"], found["torch"] = shlex.join(["python", "benchmarks/balance.py", *sys.argv[1:]]), torch.__version__
    sizes = {"train": arguments.faces, "valid": 2_000, "test": 4_000}
    splits = [SyntheticFaces(n, 100 + i, 32, SHARES) for i, n in enumerate(sizes.values())]
    for seed in range(arguments.seeds):
        for name, part in VARIANTS.items():
            runs = found["runs"].setdefault(name, {})
            if str(seed) not in runs:
                runs[str(seed)] = run(seed, part, splits, arguments)
                hub.write_json(arguments.output, found)
                arguments.output.with_suffix(".md").write_text(table(found["runs"]), encoding="utf-8")
    print(table(found["runs"]))


def run(seed: int, part: dict[str, str], splits: list[SyntheticFaces], arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains one model and probes its z."""
    options = {"trainer.seed": str(seed), "trainer.epochs": str(arguments.epochs), **part}
    recipe = load_recipe("paper-faces", {**PLAIN, **options})
    torch.manual_seed(seed)
    model = Trainer(objective_of(recipe, splits[0]), recipe.trainer, splits[0], quiet=True).fit()
    parts: list[AttributeData] = [split.select(model.attributes) for split in splits]
    train, valid, test = (encode_data(model, part) for part in parts)
    labels = (parts[0].labels, parts[1].labels, parts[2].labels)
    return {"mse": reconstruction(model, parts[2])["mse"], **leakage((train, valid, test), labels, seed=seed)["z"]}


def table(runs: dict[str, dict[str, Any]]) -> str:
    """ROC AUC of the MLP probe by attribute: mean ± standard deviation over the seeds."""
    names = list(next(iter(next(iter(runs.values())).values()))["mlp"]["attributes"])
    rows = [["classes in the adversary's loss", *runs], ["---"] * (len(runs) + 1)]
    for name in names:
        found = [[run["mlp"]["attributes"][name]["auc"] for run in by_seed.values()] for by_seed in runs.values()]
        rows.append([name, *(f"{mean(v):.3f} ± {stdev(v) if len(v) > 1 else 0:.3f}" for v in found)])
    rows.append(["MSE", *(f"{mean(run['mse'] for run in by_seed.values()):.4f}" for by_seed in runs.values())])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
