"""The paper's comparison: CSVAE and its siblings at the same budget, on data sets of one's choice.

    python benchmarks/paper.py swiss-roll synthetic-faces
    python benchmarks/paper.py celeba --data FOLDER --seeds 1
    python benchmarks/paper.py expressions --data FOLDER --seeds 2 --judges runs/expression-judges
    python benchmarks/paper.py celeba --data FOLDER --seeds 2 --recipe celeba-64 --trained OUT

For each data set all four models follow the same recipe with each seed and are measured by `csvae_hub.evaluation` with
two judges, which are trained on the train split of other faces than they are measured on. Writes
docs/results/paper-<data set>.json and, from it, the table .md beside it. Runs that the JSON holds are passed over, so
that it can be stopped and started again; delete the JSON to begin anew. With --recipe the models follow another one,
such as one with our critic, and the files are named after it. --trained takes what `paper_on_gpu.sh` made.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from celeba import load_judges

from csvae_hub import hub
from csvae_hub.config import to_dict
from csvae_hub.data import AttributeData, load_data
from csvae_hub.evaluation import Judges, comparison_table, evaluate, leakage
from csvae_hub.evaluation.encoding import encode_data
from csvae_hub.images import grid
from csvae_hub.models import AttributeModel
from csvae_hub.training import Recipe, load_recipe, train
from csvae_hub.training.grids import attribute_grid

RECIPES = {
    "swiss-roll": "paper-swiss-roll",
    "synthetic-faces": "paper-faces",
    "celeba": "paper-celeba",
    "expressions": "paper-expressions",
}
"""The paper's objective, without a part of ours."""

OURS = {"swiss-roll": "swiss-roll", "synthetic-faces": "synthetic-faces"}
"""The same sizes and data with our parts."""

PHOTOS = ("celeba", "expressions")
"""Data sets that are read from a folder."""

MODELS = ("csvae", "cond-vae", "cond-vae-info", "vae")
VARIANTS = (*MODELS, "csvae, ours", "cond-vae-info, ours")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
TEST_SEED, PROBE_SEED = 5, 6
"""The drawn faces that the models are measured on are of another seed than those that options were chosen by; those
that a second set of probes is trained on are of a third."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=RECIPES)
    parser.add_argument("--data", type=Path, help="a folder with attributes.csv, for celeba and expressions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=VARIANTS, default=VARIANTS[:-1])
    parser.add_argument("--recipe", help="instead of the paper's, with the same attributes")
    parser.add_argument("--trained", type=Path, help="holds MODEL-SEED/weights, trained by that recipe already")
    parser.add_argument("--judges", type=Path, help="a folder of judges, such as expressions_48.py leaves")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), help="where training leaves its folders")
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.judges is not None and not arguments.judges.is_dir():
        parser.error(f"--judges: expected a folder of judges, got {arguments.judges}: expressions_48.py leaves one")
    for name in arguments.sets:
        if name in PHOTOS and arguments.data is None:
            parser.error(f"{name} needs --data FOLDER")
        compare_on(name, arguments)


def compare_on(name: str, arguments: argparse.Namespace) -> None:
    """All models and seeds on one data set."""
    path = arguments.output / f"paper-{arguments.recipe or name}.json"
    found: dict[str, Any] = hub.read_json(path) if path.is_file() else {"runs": {}}
    recipe = recipe_of(name, "csvae", 0, arguments)
    splits = splits_of(name, recipe, arguments.data)
    folder = arguments.judges or arguments.runs / name / "judges"
    judges = load_judges(folder, splits[0], exclusive=recipe.model.exclusive) if recipe.model.is_image else None
    found["command"] = shlex.join(["python", "benchmarks/paper.py", *sys.argv[1:]])
    found["torch"], found["recipe"] = torch.__version__, to_dict(recipe)
    for seed in range(arguments.seeds):
        for model in (m for m in arguments.models if m in MODELS or name in OURS):
            of_model = found["runs"].setdefault(model, {})
            if str(seed) not in of_model:
                of_model[str(seed)] = run(name, model, seed, splits, judges, arguments)
                hub.write_json(path, found)
                path.with_suffix(".md").write_text(table(found), encoding="utf-8")
                print(table(found), flush=True)
    if name == "synthetic-faces":
        draw(splits[2], arguments)


def recipe_of(name: str, model: str, seed: int, arguments: argparse.Namespace) -> Recipe:
    """The recipe of a data set for one of `VARIANTS`."""
    kind, _, ours = model.partition(", ")
    overrides = dict(pair.partition("=")[::2] for pair in arguments.overrides)
    recipes = OURS if ours else RECIPES
    return load_recipe(arguments.recipe or recipes[name], {**overrides, "model.model": kind, "trainer.seed": str(seed)})


def splits_of(name: str, recipe: Recipe, data: Path | None) -> list[AttributeData]:
    """Train and valid as in training, and test, which no option was chosen by where the data is drawn."""
    size = recipe.model.image_size if recipe.model.is_image else 64
    found: list[AttributeData] = []
    for split in ("train", "valid", "test"):
        source = str(data) if name in PHOTOS else name
        examples = recipe.data.examples if split == "train" else 2_000
        seed = TEST_SEED if split == "test" else 0
        channels = recipe.model.shape[0] if recipe.model.is_image else 3
        found.append(
            load_data(source, recipe.model.attributes, split, size, examples=examples, seed=seed, channels=channels)
        )
    return found


def run(
    name: str,
    model: str,
    seed: int,
    splits: Sequence[AttributeData],
    judges: Judges | None,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Trains one model with one seed and measures it."""
    recipe = recipe_of(name, model, seed, arguments)
    if arguments.trained is not None:
        folder = arguments.trained / f"{model}-{seed}" / "weights"
        trained = AttributeModel.from_pretrained(folder, device="cpu")
        seconds = hub.read_json(folder / "training.json")["seconds"]
    else:
        folder = folder_of(name, model, seed, arguments)
        trained = train(recipe, arguments.data if name in PHOTOS else None, folder, quiet=True)
        seconds = round(hub.read_json(folder / "model/training.json")["elapsed_seconds"])
    result = evaluate(trained, splits[0], splits[1], splits[2], judges, seed=seed)
    if not recipe.model.is_image:
        result["attribute_change"] = crossed(trained, splits[2])
    if name == "synthetic-faces":
        result["leakage_by_other_faces"] = leakage_by_other_faces(trained, recipe, splits, seed)
    return {"training_seconds": seconds, **result}


def leakage_by_other_faces(
    model: AttributeModel, recipe: Recipe, splits: Sequence[AttributeData], seed: int
) -> dict[str, Any]:
    """Leakage by probes that are trained on as many faces, which the model has not seen.

    A model that was fitted to be silent on its own faces can say more on others.
    """
    size, names = recipe.model.image_size, recipe.model.attributes
    others = load_data("synthetic-faces", names, "train", size, examples=recipe.data.examples, seed=PROBE_SEED)
    train, valid, test = (part.select(model.attributes) for part in (others, *splits[1:]))
    latents = tuple(
        replace(encode_data(model, part), w=torch.zeros(len(part), len(names), 0)) for part in (train, valid, test)
    )
    return leakage(latents, (train.labels, valid.labels, test.labels), seed=seed)["z"]


@torch.no_grad()
def crossed(model: AttributeModel, data: AttributeData) -> dict[str, Any]:
    """For the Swiss roll, whose attribute can be read off x: the share of points that an edit brings to the other side.

    `moved` is the mean squared change of the two coordinates that have nothing to do with the attribute.
    """
    shares: list[float] = []
    moves: list[float] = []
    for value in (True, False):
        x, _ = data.batch(np.flatnonzero(data.labels[:, 0] == (not value)))
        edited = model.decode(model.set_attribute(model.encode(x), "Above", value))
        shares.append(((edited[:, 1] > 10.5) == value).float().mean().item())
        moves.append((edited - x)[:, [0, 2]].square().mean().item())
    return {"wished": sum(shares) / 2, "worst": min(shares), "moved": sum(moves) / 2}


def draw(data: AttributeData, arguments: argparse.Namespace) -> None:
    """Four test faces, their reconstruction and each attribute switched, by each model in turn (seed 0)."""
    images = data.batch(torch.arange(4))[0]
    rows: list[torch.Tensor] = []
    for model in VARIANTS[:-1]:
        folder = folder_of("synthetic-faces", model, 0, arguments) / "model"
        if folder.is_dir():
            rows.append(attribute_grid(AttributeModel.from_pretrained(folder), images))
    picture = grid(torch.cat(rows), columns=len(data.attributes) + 2)
    with hub.replacing(RESULTS.parent / "images" / "paper-synthetic-faces.png") as temporary:
        picture.save(temporary, "PNG")


def folder_of(name: str, model: str, seed: int, arguments: argparse.Namespace) -> Path:
    """Where a run is kept."""
    return arguments.runs / (arguments.recipe or name) / f"{model.replace(', ', '-').replace(' ', '-')}-{seed}"


def table(found: dict[str, Any]) -> str:
    """The comparison as Markdown, over the seeds, and what two sets of probes find in z, means over the seeds."""
    results = {model: list(runs.values()) for model, runs in found["runs"].items() if runs}
    lines = [comparison_table(results)]
    if any("leakage_by_other_faces" in run for runs in results.values() for run in runs):
        lines += ["| model | logistic, mean / max | MLP, mean / max | by other faces: logistic | MLP |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for model, runs in results.items():
            probes = [[run["leakage"]["z"] for run in runs], [run["leakage_by_other_faces"] for run in runs]]
            cells = [" / ".join(f"{mean(z[kind][over] for z in part):.3f}" for over in ("mean", "max"))
                     for part in probes for kind in ("logistic", "mlp")]  # fmt: skip
            lines += [f"| {model} | {' | '.join(cells)} |"]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
