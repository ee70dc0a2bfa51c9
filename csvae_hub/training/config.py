"""The options of the training loop, its learning rate and the order of its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from csvae_hub.config import check

SCHEDULES = ("constant", "cosine", "multistep")


@dataclass(frozen=True)
class TrainerConfig:
    """The options of training, whatever is trained.

    schedule: "constant"; "cosine", a linear rise over the first hundredth of the batches and a cosine to zero; or
        "multistep", the paper's factor 0.1^(1/7) at epochs 3^i, i = 0…6. The adversary's rate is constant, so that it
        catches up with a model that slows down; a critic's falls with the model's, which it would else outrun.
    precision: "float32"; or "bfloat16" or "float16" for autocast, the latter with a scaler of the gradients.
    ema_decay: decay of the exponential average of weights and buffers, which is the result; 0 for none.
    """

    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 1e-3
    adversary_learning_rate: float = 1e-3
    schedule: str = "cosine"
    ema_decay: float = 0.999
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs", "1 or more", self.epochs)
        check(self.batch_size >= 2, "batch_size", "2 or more, for batch norm", self.batch_size)
        check(self.seed >= 0, "seed", "0 or more", self.seed)
        for name in ("learning_rate", "adversary_learning_rate"):
            check(0 < getattr(self, name) < float("inf"), name, "a positive number", getattr(self, name))
        check(0 <= self.ema_decay < 1, "ema_decay", "a number in [0, 1)", self.ema_decay)
        for name, choices in (("schedule", SCHEDULES), ("precision", ("float32", "bfloat16", "float16"))):
            check(getattr(self, name) in choices, name, " or ".join(choices), getattr(self, name))


def learning_rate_factor(schedule: str, batch: int, batches: int, batches_per_epoch: int) -> float:
    """The factor of the learning rate at a batch, counted from 0, of a training of so many batches."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * batch / batches)) * min(1.0, (batch + 1) / max(1, batches // 100))
    if schedule == "multistep":
        return 0.1 ** (sum(batch // batches_per_epoch >= 3**i for i in range(7)) / 7)
    return 1.0


@lru_cache(maxsize=1)
def batch_order(size: int, seed: int, epoch: int, weights: Tensor | None = None) -> Tensor:
    """The order in which an epoch visits the data: a permutation (size,) that depends on seed and epoch alone.

    With weights (size,), in units of their mean, an example comes as often as its weight, rounded down or up by chance.
    """
    generator = torch.Generator().manual_seed((seed * 10_007 + epoch) % 2**32)
    order = torch.randperm(size, generator=generator)
    if weights is None:
        return order
    ends = weights[order].cumsum(0)
    reached = (ends * (size / ends[-1]) + torch.rand(1, generator=generator, dtype=ends.dtype)).long()
    reached[-1] = size  # whatever the rounding
    times = reached.diff(prepend=torch.zeros(1, dtype=torch.int64))
    return order.repeat_interleave(times)[torch.randperm(size, generator=generator)]
