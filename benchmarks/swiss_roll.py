"""Follows the recipe `swiss-roll`, measures it and draws the paper's toy figure.

    python benchmarks/swiss_roll.py

writes docs/results/swiss-roll.json and docs/images/swiss-roll.png.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import matplotlib
import torch

from csvae_hub import hub
from csvae_hub.data import load_data
from csvae_hub.evaluation import evaluate
from csvae_hub.training import load_recipe, train

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = train(load_recipe("swiss-roll"), None, folder)
    seconds = time.monotonic() - started
    splits = [load_data("swiss-roll", split=split) for split in ("train", "valid", "test")]
    result = evaluate(model, *splits)
    x, y = splits[2].batch(torch.arange(2000))
    shares = {}
    with torch.no_grad():
        latents = model.encode(x)
        for value in (True, False):
            chosen = y[:, 0] == (not value)
            edited = model.decode(model.set_attribute(latents[chosen], "Above", value))
            shares[str(value)] = ((edited[:, 1] > 10.5) == value).float().mean().item()
    result |= {
        "command": "python benchmarks/swiss_roll.py",
        "training_seconds": round(seconds, 1),
        "torch": torch.__version__,
        "data_variance": float(splits[2].images.var(0).mean()),
        "edited_across_the_threshold": shares,
    }
    (DOCS / "results").mkdir(exist_ok=True)
    hub.write_json(DOCS / "results/swiss-roll.json", result)

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
