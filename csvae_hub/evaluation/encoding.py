"""Whole data sets through a model, batch by batch, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from csvae_hub.data.base import AttributeData
from csvae_hub.models import AttributeModel, Latents

BATCH = 64
"""Pictures at once; larger batches leave a CPU's cache and take longer."""


@contextmanager
def evaluating(model: AttributeModel) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards the model's own mode again."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def encode_data(model: AttributeModel, data: AttributeData, *, labelled: bool = False) -> Latents:
    """Deterministic latents of all examples, on the CPU, with the attributes that q(y | x) infers.

    With `labelled` the data's own attributes count where they are known.

    Raises:
        ValueError: the latents are not finite.
    """
    with evaluating(model):
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
        with evaluating(model):  # not around the loop: the caller goes on between the batches
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
    with evaluating(model):
        return model.edit(latents.to(model.device), there, generator=generator).to("cpu")
