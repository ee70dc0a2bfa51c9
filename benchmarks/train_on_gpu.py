"""Trains a recipe within a few minutes of a large GPU, all pictures on the device.

    python benchmarks/train_on_gpu.py --pack celeba128-pack.npz --out OUT --minutes 8

The learning rate follows the time, or the recipe's epochs where they are over sooner: it is at zero at the end. In OUT
weights/ (float16, at most 16 MB a file) and grid.png are renewed every two minutes; OUT.tar holds the weights in one
file, and OUT-parts.safetensors the critic. `--initial` and `--parts` go on from these. With `--decoder` the encoder
and w stay as they are in these weights, and the decoder learns with a critic. The pack is read by `read_pack` of the
`unpack.py` in its folder.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from csvae_hub.config import to_dict
from csvae_hub.data import AttributeData, balanced
from csvae_hub.models import CSVAE, AttributeModel, create_model
from csvae_hub.training import load_recipe
from csvae_hub.training.grids import squared_error, write_grid
from csvae_hub.training.parts import critic
from csvae_hub.training.parts.rest import begin
from csvae_hub.training.recipes import objective_of
from csvae_hub.training.steps import Objective
from csvae_hub.training.trainer import Trainer

EVERY = 20
"""Batches between two looks at the clock."""
WARM_UP = 60
"""Batches that are not counted in the speed: the first ones compile."""
SAVE_SECONDS = 120.0
AT_THE_END = 18.0
"""Seconds kept for the last weights and the grid."""
AT_MOST = 16 * 2**20


def main() -> None:
    started = timed = time.monotonic()
    torch.backends.cudnn.benchmark = True
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True, help="celeba128-pack.npz, with unpack.py beside it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="from the start of this command to its end")
    parser.add_argument("--recipe", default="celeba-128")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--initial", help="a weights folder to go on from")
    parser.add_argument("--parts", type=Path, help="OUT-parts.safetensors of the run that made those weights")
    parser.add_argument("--decoder", action="store_true", help="train the decoder alone; needs --initial")
    parser.add_argument("--critic", nargs="*", default=[], metavar="NAME=VALUE", help="of the critic's constants")
    parser.add_argument("--balance", nargs="*", default=[], metavar="NAME", help="attributes that half of a batch have")
    parser.add_argument("--pictures", type=int, help="train on so many only, to try the command")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()

    if arguments.decoder and arguments.initial is None:
        parser.error("--decoder needs --initial FOLDER: there is nothing that could rest in random weights")
    constants = {name: type(getattr(critic, name))(value) for name, value in pairs(arguments.critic)}
    for name, value in constants.items():
        setattr(critic, name, value)
    recipe = load_recipe(arguments.recipe, dict(pairs(arguments.set)))
    train_data, valid_data = read(arguments.pack, recipe.model.attributes, arguments.pictures)
    train_data = balanced(train_data, arguments.balance)
    say(started, f"{len(train_data)} pictures, {len(valid_data)} to look at")
    torch.manual_seed(recipe.trainer.seed)
    torch.set_float32_matmul_precision("high")
    model = AttributeModel.from_pretrained(arguments.initial) if arguments.initial else create_model(recipe.model)
    objective = objective_of(recipe, train_data, model)
    if arguments.parts is not None:
        load_parts(objective, arguments.parts)
    if arguments.decoder:
        rest(objective)
    record = {**to_dict(recipe), **({"initial": str(arguments.initial)} if arguments.initial else {})}
    record |= {"decoder": True} if arguments.decoder else {}
    record |= {"balance": arguments.balance} if arguments.balance else {}
    record |= {"critic_constants": constants} if constants else {}
    trainer = Trainer(objective, recipe.trainer, train_data, record=record, quiet=True)
    if not arguments.no_compile:
        compile_networks(objective)
    examples = Examples(train_data, trainer)

    batch, batches, size = 0, trainer.last_batch, recipe.trainer.batch_size
    end = 60 * arguments.minutes - AT_THE_END
    saved = time.monotonic()
    while batch < trainer.last_batch:
        means = trainer.train_step(*examples.draw(), batch)
        batch += 1
        if batch % EVERY:
            continue
        synchronise(trainer.device)
        now = time.monotonic()
        if batch == WARM_UP:
            timed = now
        left = end - (now - started)
        if left <= 0:
            break
        if batch > WARM_UP:
            more = int(left * (batch - WARM_UP) / (now - timed))
            trainer.last_batch = trainer.rest_at = max(batch, min(batches, batch + more))
        if batch % 500 == 0 or batch == 5 * EVERY:
            speed = size * (batch - WARM_UP) / (now - timed)
            line = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
            say(started, f"batch {batch} of {trainer.last_batch}, {speed:.0f} pictures a second  {line}")
        if now - saved > SAVE_SECONDS:
            save(trainer, examples, valid_data, arguments.out, started, batch)
            saved = time.monotonic()
    save(trainer, examples, valid_data, arguments.out, started, batch)
    save_parts(trainer, arguments.out)


class Examples:
    """The training data on the device as uint8 (N, C, H, W); batches are drawn there."""

    def __init__(self, data: AttributeData, trainer: Trainer) -> None:
        self.device, self.memory_format, self.size = trainer.device, trainer.memory_format, trainer.config.batch_size
        self.images = torch.from_numpy(np.ascontiguousarray(data.images)).to(self.device)
        self.labels = torch.from_numpy(data.labels).to(self.device)
        self.weights = None if data.weights is None else torch.as_tensor(data.weights, device=self.device)

    def draw(self) -> tuple[Tensor, Tensor]:
        """A random batch, half of it mirrored."""
        if self.weights is None:
            rows = torch.randint(len(self.images), (self.size,), device=self.device)
        else:
            rows = torch.multinomial(self.weights, self.size, replacement=True)
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


def pairs(changes: list[str]) -> list[tuple[str, str]]:
    """Names and values of NAME=VALUE."""
    return [(name, value) for name, _, value in (change.partition("=") for change in changes)]


def rest(objective: Objective) -> None:
    """Lets the encoder and w rest, from the first batch on; the part that does so at the end keeps w learning."""
    begin(objective, None)
    assert isinstance(objective.model, CSVAE)
    objective.at_rest.append(objective.model.q_w.requires_grad_(False))


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
    epochs = round(batch * trainer.config.batch_size / len(trainer.train_data), 1)
    record = {**trainer.record, "batches": batch, "epochs": epochs, "pictures": len(trainer.train_data)}
    record |= {"seconds": round(time.monotonic() - started), "device": device_name(), "torch": torch.__version__}
    model.save_pretrained(out / "weights", dtype=torch.float16, extra={"training.json": record})
    assert (out / "weights/model.safetensors").stat().st_size <= AT_MOST
    write_grid(model, valid, out / "grid.png")
    say(started, f"saved after batch {batch}: valid MSE {squared_error(model, valid):.5f}")
    partial = out.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        tar.add(out / "weights", f"{out.name}/weights")
    partial.replace(out.with_suffix(".tar"))


def save_parts(trainer: Trainer, out: Path) -> None:
    """Writes what the parts have learned, without memories of past batches, in float16 to OUT-parts.safetensors."""
    state = trainer.objective.parts.state_dict()
    kept = {key: value for key, value in state.items() if "memory" not in key}
    halved = {key: value.half() if value.is_floating_point() else value for key, value in kept.items()}
    save_file(
        {key: value.contiguous() for key, value in halved.items()}, out.with_name(f"{out.name}-parts.safetensors")
    )


def load_parts(objective: Objective, path: Path) -> None:
    """Gives the parts what `save_parts` wrote; their memories of past batches stay empty."""
    missing, unknown = objective.parts.load_state_dict(load_file(path), strict=False)
    assert not unknown
    assert all("memory" in name for name in missing)


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
