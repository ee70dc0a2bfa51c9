"""What each lever does to the four figures: short runs of the recipe `celeba-64` on a third of its data.

    python benchmarks/levers.py --data FOLDER --judges runs/judges --guide runs/guide -o docs/results/levers.json

Every variant has the same seed, pictures and epochs. Results are added to the JSON as they come; a variant that is
there already is passed over.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from csvae_hub import hub
from csvae_hub.data import load_data
from csvae_hub.evaluation import AttributeClassifier, Judges, evaluate
from csvae_hub.models import CSVAE, create_model
from csvae_hub.training import Trainer, load_recipe
from csvae_hub.training.objective import Objective

VARIANTS: dict[str, dict[str, str]] = {
    "recipe": {},
    "no guide": {"objective.consistency": "0.0"},
    "no eraser": {"model.erase": "false"},
    "negative_entropy 500, 4 steps": {"objective.negative_entropy": "500.0", "objective.adversary_steps": "4"},
    "the paper's objective": {
        "objective.consistency": "0.0",
        "objective.adversary_memory": "1",
        "objective.adversary_mean": "false",
        "objective.balanced": "false",
        "objective.negative_entropy": "300.0",
        "model.residual": "false",
        "model.erase": "false",
        "model.backbone.film": "false",
    },
    "plain posterior of w": {"model.residual": "false"},
    "no FiLM": {"model.backbone.film": "false"},
}

SHORT = {"trainer.warmup_steps": "50", "trainer.ema_decay": "0.95"}
"""What a short run needs beside fewer epochs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--judges", required=True, type=Path, help="as benchmarks/celeba_64.py leaves it")
    parser.add_argument("--guide", required=True, type=Path, help="the folder `guide` of a run of the recipe")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("-o", "--output", required=True, type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = hub.read_json(arguments.output) if arguments.output.is_file() else {}
    results["command"] = shlex.join(["python", "benchmarks/levers.py", *sys.argv[1:]])
    for name in arguments.only:
        if name in results:
            continue
        overrides = {**VARIANTS[name], **SHORT, "trainer.epochs": str(arguments.epochs)}
        results[name] = {"overrides": overrides, **run(overrides, arguments)}
        hub.write_json(arguments.output, results)
        print(name, results[name], flush=True)


def run(overrides: dict[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains one variant on every third training picture and measures it on the test split."""
    recipe = load_recipe("celeba-64", overrides)
    splits = [load_data(arguments.data, recipe.model.attributes, s, 64) for s in ("train", "valid", "test")]
    third = splits[0].subset(torch.arange(0, len(splits[0]), 3))
    torch.manual_seed(recipe.trainer.seed)
    guide = AttributeClassifier.load(arguments.guide) if recipe.objective.consistency else None
    model = create_model(recipe.model)
    assert isinstance(model, CSVAE)
    objective = Objective(model, recipe.objective, guide, torch.from_numpy(third.labels).nanmean(0))
    trained = Trainer(objective, recipe.trainer, third).fit()
    result = evaluate(trained, third, splits[1], splits[2], Judges.load(arguments.judges))
    change, leak = result["attribute_change"], result["leakage"]
    return {
        "mse": result["reconstruction"]["mse"],
        "wished": change["wished"],
        "worst": change["worst"],
        "others": change["others"],
        "leak_logistic": leak["z"]["logistic"]["mean"],
        "leak_mlp": leak["z"]["mlp"]["mean"],
        "leak_mlp_max": leak["z"]["mlp"]["max"],
    }


if __name__ == "__main__":
    main()
