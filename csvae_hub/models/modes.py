"""Modules as in eval mode for a while, and whether autograd has to record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from csvae_hub.models.latents import Latents


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """As in eval mode; leaves the mode of each module in it as it was, also after an error."""
    training = [one for one in module.modules() if one.training]
    for one in training:
        one.training = False
    try:
        yield
    finally:
        for one in training:
            one.training = True


def has_gradient(*given: Any) -> bool:
    """True where autograd is on, and a tensor in what a caller gave requires a gradient."""
    return torch.is_grad_enabled() and any(one.requires_grad for one in tensors_in(given))


def tensors_in(given: Any) -> list[Tensor]:
    """The tensors in what a caller gave: itself, those of latents, and those in lists."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, Latents):
        return [given.z, given.w, given.y]
    return [tensor for one in given for tensor in tensors_in(one)] if isinstance(given, list | tuple) else []
