"""A check that an exported graph computes what the model does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from csvae_hub.errors import ExportError
from csvae_hub.export.formats import Run
from csvae_hub.models import AttributeModel

LIMIT = 1 / 255
"""The largest difference that is let through: a level of an 8-bit picture. Codes are held to the same number."""


def examples(model: AttributeModel) -> list[dict[str, Tensor]]:
    """Inputs of every graph by name, in batches of 3 random pictures and of 4 and 1 that the model draws.

    A third of the values (B, k) is NaN, the rest is between -0.5 and 1.5.
    """
    generator = torch.Generator().manual_seed(0)
    pictures = [
        torch.rand(3, *model.config.shape, generator=generator),
        model.sample(4, generator=generator),
        model.sample(1, generator=generator),
    ]
    found: list[dict[str, Tensor]] = []
    for x in pictures:
        shape = len(x), len(model.attributes)
        values = 2 * torch.rand(shape, generator=generator) - 0.5
        values[torch.rand(shape, generator=generator) < 1 / 3] = torch.nan
        code = model.posterior_latents(model.backbone.encode(x), None, False, None)
        found.append({"x": x, "values": values, "z": code.z, "w": code.w, "y": code.y})
    return found


def difference(name: str, module: nn.Module, run: Run, batches: list[tuple[Tensor, ...]]) -> float:
    """The largest difference between the outputs of a graph and those of its module.

    Raises:
        ExportError: it is above `LIMIT`, or not a number.
    """
    largest = 0.0
    for inputs in batches:
        expected = module(*inputs)
        for got, wanted in zip(run(inputs), [expected] if isinstance(expected, Tensor) else expected, strict=True):
            if got.shape != wanted.shape:
                raise ExportError(f"{name}: expected an output of shape {tuple(wanted.shape)}, got {tuple(got.shape)}")
            largest = max(largest, (got - wanted).abs().nan_to_num(torch.inf).max().item())
    if largest > LIMIT:
        raise ExportError(
            f"{name}: expected outputs within 1/255 of the model's own, got a difference of {largest:.2g}. Nothing was"
            " written; other versions of torch and onnxscript may export it right"
        )
    return largest
