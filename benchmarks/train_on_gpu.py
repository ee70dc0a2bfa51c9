"""Trains celeba-128 within a few minutes of a large GPU, all pictures on the device.

    python benchmarks/train_on_gpu.py --pack celeba128-pack.npz --out OUT --minutes 8

The first steps are timed, so that the learning rate is at zero when the time is up. OUT/weights
(float16, at most 16 MB a file) and OUT/grid.png are renewed every two minutes. `--initial` goes on from given weights.
The pack is read by `unpack.py` in its folder.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csvae_hub.data import AttributeData
from csvae_hub.models import AttributeModel, create_model
from csvae_hub.training import load_recipe
from csvae_hub.training.grids import squared_error, write_grid
from csvae_hub.training.recipes import objective_of
from csvae_hub.training.steps import Objective
from csvae_hub.training.trainer import Trainer

TIMED = 30
SAVE_SECONDS = 120.0
AT_THE_END = 25.0
"""Seconds kept for the last weights and the grid."""
AT_MOST = 16 * 2**20


def main() -> None:
    started = timed = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True, help="celeba128-pack.npz, with unpack.py beside it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="from the start of this command to its end")
    parser.add_argument("--recipe", default="celeba-128")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--initial", help="a weights folder to go on from")
    parser.add_argument("--pictures", type=int, help="train on so many only, to try the command")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()

    recipe = load_recipe(arguments.recipe, dict(change.split("=", 1) for change in arguments.set))
    train_data, valid_data = read(arguments.pack, recipe.model.attributes, arguments.pictures)
    say(started, f"{len(train_data)} pictures, {len(valid_data)} to look at")
    torch.manual_seed(recipe.trainer.seed)
    torch.set_float32_matmul_precision("high")
    model = AttributeModel.from_pretrained(arguments.initial) if arguments.initial else create_model(recipe.model)
    objective = objective_of(recipe, train_data, model)
    trainer = Trainer(objective, recipe.trainer, train_data, quiet=True)
    if not arguments.no_compile:
        compile_networks(objective)
    examples = Examples(train_data, trainer)

    for batch in range(2 * TIMED):  # the first half compiles
        if batch == TIMED:
            synchronise(trainer.device)
            timed = time.monotonic()
        trainer.train_step(*examples.draw(), batch)
    synchronise(trainer.device)
    a_step = (time.monotonic() - timed) / TIMED
    left = 60 * arguments.minutes - (time.monotonic() - started) - AT_THE_END
    batches = 2 * TIMED + max(1, int(left / (1.05 * a_step)))
    trainer.last_batch = trainer.rest_at = batches
    size = recipe.trainer.batch_size
    epochs = batches * size / len(train_data)
    say(started, f"{size / a_step:.0f} pictures a second, {batches} batches, {epochs:.1f} epochs")
    saved = time.monotonic()
    for batch in range(2 * TIMED, batches):
        means = trainer.train_step(*examples.draw(), batch)
        if (batch + 1) % 500 == 0:
            say(started, f"batch {batch + 1}  " + "  ".join(f"{name} {value:.4g}" for name, value in means.items()))
        if time.monotonic() - saved > SAVE_SECONDS:
            save(trainer, examples, valid_data, arguments.out, started, batch + 1)
            saved = time.monotonic()
        if time.monotonic() - started > 60 * arguments.minutes - AT_THE_END:
            break
    save(trainer, examples, valid_data, arguments.out, started, batches)


class Examples:
    """The training data on the device as uint8 (N, C, H, W); batches are drawn there."""

    def __init__(self, data: AttributeData, trainer: Trainer) -> None:
        self.device, self.memory_format, self.size = trainer.device, trainer.memory_format, trainer.config.batch_size
        self.images = torch.from_numpy(np.ascontiguousarray(data.images)).to(self.device)
        self.labels = torch.from_numpy(data.labels).to(self.device)

    def draw(self) -> tuple[Tensor, Tensor]:
        """A random batch, half of it mirrored."""
        rows = torch.randint(len(self.images), (self.size,), device=self.device)
        x = self._pictures(rows)
        mirrored = torch.rand(len(x), 1, 1, 1, device=self.device) < 0.5
        return torch.where(mirrored, x.flip(-1), x).contiguous(memory_format=self.memory_format), self.labels[rows]

    def all(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples in order."""
        for rows in torch.arange(len(self.images), device=self.device).split(256):
            yield self._pictures(rows), self.labels[rows]

    def _pictures(self, rows: Tensor) -> Tensor:
        return self.images[rows].float().div_(255)


def read(pack: Path, attributes: tuple[str, ...], most: int | None) -> tuple[AttributeData, AttributeData]:
    """The train pictures, at most so many, and 256 valid ones."""
    spec = importlib.util.spec_from_file_location("unpack", pack.with_name("unpack.py"))
    assert spec is not None
    assert spec.loader is not None
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    pictures, _, splits, labels, names = unpack.read_pack(pack)
    columns = [names.index(name) for name in attributes]

    def part(split: str, most: int | None) -> AttributeData:
        rows = np.flatnonzero(splits == split)[:most]
        images = np.ascontiguousarray(pictures[rows].transpose(0, 3, 1, 2))
        return AttributeData(images, labels[rows][:, columns].astype(np.float32), attributes)

    return part("train", most), part("valid", 256)


def compile_networks(objective: Objective) -> None:
    """Compiles the backbone in place; where that fails, it runs as it is. R1 needs the critic's second derivatives."""
    torch._dynamo.config.suppress_errors = True
    backbone: Any = objective.model.backbone
    backbone.encode, backbone.decode = torch.compile(backbone.encode), torch.compile(backbone.decode)


def save(trainer: Trainer, examples: Examples, valid: AttributeData, out: Path, started: float, batch: int) -> None:
    """The averaged model, with class means of all training data, as float16; a grid and the error on valid pictures."""
    model = copy.deepcopy(trainer.average).eval().to(memory_format=torch.contiguous_format)
    for fit in trainer.objective.at_end:
        fit(model, examples.all())
    model.finalize(examples.all())
    record = {**trainer.record, "batches": batch, "seconds": round(time.monotonic() - started), "device": device_name()}
    model.save_pretrained(out / "weights", dtype=torch.float16, extra={"training.json": record})
    assert (out / "weights/model.safetensors").stat().st_size <= AT_MOST
    write_grid(model, valid, out / "grid.png")
    say(started, f"saved after batch {batch}: valid MSE {squared_error(model, valid):.5f}")
    (out / "progress.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def synchronise(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name() -> str:
    """The name of the GPU, or cpu."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def say(started: float, line: str) -> None:
    """Prints a line with the seconds that have passed."""
    print(f"{time.monotonic() - started:6.1f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
