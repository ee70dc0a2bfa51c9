"""Grids of edited pictures and the squared error, looked at while a model trains."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from csvae_hub.data.base import AttributeData
from csvae_hub.hub import replacing
from csvae_hub.images import grid
from csvae_hub.models import AttributeModel


@torch.no_grad()
def attribute_grid(model: AttributeModel, images: Tensor) -> Tensor:
    """Pictures (B, C, S, S) in [0, 1] to (B·(k + 2), C, S, S): original, reconstruction, each attribute switched.

    `model` is in eval mode; attributes are inferred, as they are for a user's photo. A member of an exclusive group
    becomes present.
    """
    latents = model.encode(images)
    present = latents.y > 0.5
    present[:, [i for group in model.config.groups for i in group]] = False
    columns = [images, model.decode(latents)]
    for i, name in enumerate(model.attributes):
        switched_on, switched_off = (model.decode(model.edit(latents, {name: value})) for value in (True, 0.0))
        columns.append(torch.where(present[:, i, None, None, None], switched_off, switched_on))
    return rearrange([c.float().cpu() for c in columns], "columns b c h w -> (b columns) c h w").clamp(0, 1)


def write_grid(model: AttributeModel, data: AttributeData, path: Path, rows: int = 8) -> None:
    """Writes the `attribute_grid` of `rows` pictures, spread evenly over `data`, as a PNG file."""
    indices = torch.linspace(0, len(data) - 1, min(rows, len(data))).long()
    images = data.batch(indices)[0].to(model.device)
    picture = grid(attribute_grid(model, images), columns=len(model.attributes) + 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")


def grid_path(folder: Path, epoch: int) -> Path:
    """The grid of an epoch in the folder of a run."""
    return folder / "grids" / f"epoch-{epoch:03d}.png"


def look(model: AttributeModel, data: AttributeData | None, folder: Path | None, epoch: int) -> dict[str, float]:
    """`valid_mse` of `data`, and in the run's folder, if one is given, a grid of an epoch; nothing without data.

    The random state stays as it was.
    """
    if data is None or len(data) == 0:
        return {}
    with torch.random.fork_rng():
        if folder is not None and data.images.ndim == 4:
            write_grid(model, data, grid_path(folder, epoch))
        return {"valid_mse": squared_error(model, data)}


@torch.no_grad()
def squared_error(model: AttributeModel, data: AttributeData, examples: int = 512) -> float:
    """The mean squared error of reconstructions per value, on up to so many examples spread evenly over `data`."""
    indices, total = torch.linspace(0, len(data) - 1, min(examples, len(data))).long(), 0.0
    for part in indices.split(128):
        x = data.batch(part)[0].to(model.device)
        total += (model.decode(model.encode(x)) - x).square().flatten(1).mean(1).sum().item()
    return total / len(indices)
