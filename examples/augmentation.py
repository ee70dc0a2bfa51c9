"""Counterfactual augmentation: a classifier of smiles that learns where nearly all who smile wear glasses.

    python examples/augmentation.py -o docs/results/augmentation.json

It is tested where smiles and glasses are independent. A CSVAE learns from the same correlated faces, then puts on or
takes off glasses by the toss of a coin. Beside it: nothing done, groups made equal by repetition, edits by a CSVAE of
independent faces, the true counterfactuals of these drawn faces, and independent faces to learn from.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from csvae_hub import hub
from csvae_hub.data import AttributeData, SyntheticFaces
from csvae_hub.evaluation import AttributeClassifier, train_classifier
from csvae_hub.models import AttributeModel
from csvae_hub.training import Trainer, load_recipe
from csvae_hub.training.recipes import objective_of
from csvae_hub.transforms import RandomSetAttribute

TARGET, SPURIOUS, CORRELATION = "Smiling", "Eyeglasses", 0.98
RECIPE = Path(__file__).with_suffix(".toml")
Change, Result = Callable[[Tensor, Tensor], Tensor], dict[str, dict[str, list[float]]]


class Changed(AttributeData):
    """Pictures that are edited anew whenever they are drawn, by `change(images, rows)`, and who smiles."""

    def __init__(self, data: AttributeData, change: Change) -> None:
        super().__init__(data.images, data.select([TARGET]).labels, [TARGET])
        self.change = change

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        images, labels = super().batch(indices)
        return self.change(images, indices), labels


def train_csvae(data: AttributeData, seed: int, epochs: int, folder: Path) -> AttributeModel:
    recipe = load_recipe(RECIPE, {"trainer.seed": str(seed), "trainer.epochs": str(epochs)})
    torch.manual_seed(seed)
    return Trainer(objective_of(recipe, data), recipe.trainer, data, None, folder, quiet=True).fit()


def groups(data: AttributeData) -> list[np.ndarray]:
    """Rows of those without a smile and glasses, with glasses, with a smile, with both."""
    smiles, glasses = data.select([TARGET, SPURIOUS]).labels.T
    return [np.flatnonzero((smiles == s) & (glasses == g)) for s in (0, 1) for g in (0, 1)]


def accuracies(net: AttributeClassifier, images: Tensor, data: AttributeData) -> list[float]:
    """The share of each group whose smile is read rightly."""
    right = (net.probabilities(images)[:, 0] > 0.5).numpy() == data.select([TARGET]).labels[:, 0]
    return [float(right[rows].mean()) for rows in groups(data)]


def run(seed: int, options: argparse.Namespace) -> Result:
    """By what was done: `groups`, the accuracy of each; `kept`, of a judge on the edited pictures, also by group."""
    correlated = SyntheticFaces(options.faces, seed, 32, correlations={(TARGET, SPURIOUS): CORRELATION})
    independent, test = SyntheticFaces(options.faces, seed, 32), SyntheticFaces(options.faces, 1_000_000 + seed, 32)
    changes: dict[str, Change] = {"nothing": lambda images, rows: images}
    for kind, data in {"correlated": correlated, "independent": independent}.items():
        model = train_csvae(data, seed, options.model_epochs, options.runs / f"{kind}-{seed}")
        for paste in ("changed", "difference", "whole"):
            edit = RandomSetAttribute(model, SPURIOUS, "random", p=1.0, paste=paste)
            changes[f"CSVAE of {kind} faces, {paste}"] = lambda images, rows, edit=edit: edit(images)
    changes["true counterfactuals"] = lambda images, rows: torch.where(
        torch.rand(len(rows), 1, 1, 1) < 0.5, *(correlated.counterfactual(rows, SPURIOUS, v) for v in (False, True))
    )

    sets = {name: Changed(correlated, change) for name, change in changes.items()}
    equal = np.concatenate([np.resize(rows, len(correlated) // 2) for rows in groups(correlated) if len(rows)])
    sets["groups made equal"] = Changed(correlated.subset(equal), changes["nothing"])
    sets["independent faces"] = Changed(independent, changes["nothing"])
    nets = {name: train_classifier(data, epochs=30, seed=seed, width=16, augment=False) for name, data in sets.items()}
    images, rows = test.batch(range(len(test)))[0], torch.arange(len(correlated))
    found = {name: {"groups": accuracies(net, images, test)} for name, net in nets.items()}
    for name in changes:
        found[name]["kept"] = accuracies(nets["independent faces"], sets[name].batch(rows)[0], correlated)
    return found


def table(runs: list[Result]) -> str:
    """Mean and half of the 95 % interval over the seeds, by Student's t, as Markdown."""
    lines = ["| done | mean of the groups | worst group | smiles kept |", "| --- | --- | --- | --- |"]
    for name in runs[0]:
        cells = [name]
        for one, key in ((mean, "groups"), (min, "groups"), (mean, "kept")):
            values = [100 * one(run[name][key]) for run in runs if key in run[name]]
            half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
            cells.append(f"{mean(values):.1f} ± {half:.1f} %" if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--faces", type=int, default=2_500)
    parser.add_argument("--model-epochs", type=int, default=48)
    parser.add_argument("--runs", type=Path, default=Path("runs/augmentation"), help="kept, and gone on from")
    parser.add_argument("-o", "--output", type=Path, default=Path("augmentation.json"))
    options = parser.parse_args()
    runs = {str(seed): run(seed, options) for seed in options.seeds}
    command = " ".join(["python", *sys.argv])
    hub.write_json(options.output, {"command": command, "torch": torch.__version__, "runs": runs})
    options.output.with_suffix(".md").write_text(table(list(runs.values())), encoding="utf-8")
    print(table(list(runs.values())))


if __name__ == "__main__":
    main()
