"""Follows the recipe `swiss-roll` with five seeds, measures it and draws the paper's toy figure (seed 0).

    python benchmarks/swiss_roll.py

writes docs/results/swiss-roll.json and docs/images/swiss-roll.png.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from csvae_hub import hub
from csvae_hub.data import load_data
from csvae_hub.evaluation import evaluate
from csvae_hub.models import AttributeModel, Latents
from csvae_hub.training import load_recipe, train

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

DOCS = Path(__file__).resolve().parents[1] / "docs"


SEEDS = range(5)


def main() -> None:
    torch.set_num_threads(1)
    splits = [load_data("swiss-roll", split=split) for split in ("train", "valid", "test")]
    x, y = splits[2].batch(torch.arange(2000))
    runs: dict[str, Any] = {}
    drawn: Latents | None = None
    for seed in SEEDS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            model = train(load_recipe("swiss-roll", {"trainer.seed": str(seed)}), None, folder, quiet=True)
        seconds = round(time.monotonic() - started, 1)
        runs[str(seed)] = {"training_seconds": seconds, **evaluate(model, *splits), "edits": edits(model, x, y)}
        with torch.no_grad():
            drawn = drawn or model.encode(x)
        print(seed, seconds, runs[str(seed)]["leakage"]["z"], runs[str(seed)]["edits"], flush=True)
    assert drawn is not None
    (DOCS / "results").mkdir(exist_ok=True)
    result = {
        "command": "python benchmarks/swiss_roll.py",
        "torch": torch.__version__,
        "data_variance": float(splits[2].images.var(0).mean()),
        "seeds": runs,
    }
    hub.write_json(DOCS / "results/swiss-roll.json", result)
    draw(x, y, drawn)


@torch.no_grad()
def edits(model: AttributeModel, x: Tensor, y: Tensor) -> dict[str, dict[str, float]]:
    """For both directions: the share that crosses the threshold, and the squared error of the spiral's coordinates."""
    found: dict[str, dict[str, float]] = {}
    for value in (True, False):
        chosen = x[y[:, 0] == (not value)]
        edited = model.decode(model.set_attribute(model.encode(chosen), "Above", value))
        moved = (edited - chosen)[:, [0, 2]].square().mean().item()
        found[str(value)] = {"crossed": ((edited[:, 1] > 10.5) == value).float().mean().item(), "spiral_moved": moved}
    return found


def draw(x: Tensor, y: Tensor, latents: Latents) -> None:
    """The roll, Z and W, coloured by the attribute."""
    figure = plt.figure(figsize=(9, 3))
    colours = ["tab:blue" if value else "tab:orange" for value in y[:, 0]]
    roll = figure.add_subplot(131, projection="3d")
    roll.scatter(*x.T, c=colours, s=2)
    roll.set_title("x")
    for place, (name, points) in enumerate({"Z": latents.z, "W": latents.w[:, 0]}.items(), 132):
        plane = figure.add_subplot(place)
        plane.scatter(*points.T, c=colours, s=2)
        plane.set_title(name)
    figure.tight_layout()
    with hub.replacing(DOCS / "images/swiss-roll.png") as temporary:
        figure.savefig(temporary, format="png", dpi=80)


if __name__ == "__main__":
    main()
