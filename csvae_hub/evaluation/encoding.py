"""Whole data sets through a model, batch by batch, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError
from csvae_hub.models import AttributeModel, Latents
from csvae_hub.models.modes import evaluating

BATCH = 64
"""Pictures at once; larger batches leave a CPU's cache and take longer."""


def check_fits(model: AttributeModel, data: AttributeData) -> None:
    """Raises DataError if the examples are not of the size that the model takes; grey or colour does not matter."""
    expected, got = model.config.shape, data.shape
    if len(expected) != len(got) or expected[1:] != got[1:] or (len(got) == 1 and expected != got):
        size = model.config.image_size if model.config.is_image else 0
        remedy = f"load the data with image_size={size}" if len(expected) == len(got) == 3 else "take data of that kind"
        raise DataError(
            f"the model and the data don't match: expected {_examples(expected)}, as the model takes them, got"
            f" {_examples(got)}: {remedy}, or another model"
        )


def encode_data(model: AttributeModel, data: AttributeData, *, labelled: bool = False) -> Latents:
    """Deterministic latents of all examples, on the CPU, with the attributes that q(y | x) infers.

    With `labelled` the data's own attributes count where they are known.

    Raises:
        DataError: the model does not take such examples.
        ValueError: the latents are not finite.
    """
    check_fits(model, data)
    with evaluating(model), torch.no_grad():
        batches = (data.batch(rows) for rows in torch.arange(len(data)).split(BATCH))
        latents = Latents.cat([model.encode(x, y if labelled else None).to("cpu") for x, y in batches])
    for name, tensor in (("z", latents.z), ("w", latents.w)):
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{name}: expected finite latents, got NaN or infinity: these weights can't be measured, use those of "
                "a run that has not diverged"
            )
    return latents


def decode_in_batches(model: AttributeModel, latents: Latents) -> Iterator[Tensor]:
    """Decoded batches (B, *shape) of at most `BATCH`, on the CPU, in the order of the latents."""
    for start in range(0, len(latents), BATCH):
        with evaluating(model), torch.no_grad():  # not around the loop: the caller goes on between the batches
            decoded = model.decode(latents[start : start + BATCH].to(model.device)).float().cpu()
        yield decoded


def decode_all(model: AttributeModel, latents: Latents) -> Tensor:
    """All decoded examples (N, *shape) at once, on the CPU: for few."""
    return torch.cat(list(decode_in_batches(model, latents)))


def edited(
    model: AttributeModel, latents: Latents, values: Mapping[str, Any], generator: torch.Generator | None = None
) -> Latents:
    """`model.edit` of latents on the CPU, which go to the model's device and come back; so do latents as values."""
    there = {name: value.to(model.device) if isinstance(value, Latents) else value for name, value in values.items()}
    with evaluating(model), torch.no_grad():
        return model.edit(latents.to(model.device), there, generator=generator).to("cpu")


def _examples(shape: tuple[int, ...]) -> str:
    return f"vectors of {shape[0]} numbers" if len(shape) == 1 else f"pictures of {'×'.join(map(str, shape))}"
