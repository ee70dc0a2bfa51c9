"""The distance of edited pictures to real ones that have the attribute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from csvae_hub.errors import require

FEWEST = 10
"""Pictures a side below which no distance is measured."""


def frechet_over_floor(edited: Tensor, real: Tensor, *, seed: int = 0) -> float | None:
    """Fréchet distance of features of edited (N, D) and real pictures (M, D), over that between halves of the real.

    The real pictures have what was wished. The three sets are drawn at random and equally large, so that their number
    does not matter: pictures that are as the real ones score about 1. None with fewer than ten pictures a set, or
    where the halves are equal.

    Raises:
        MissingExtraError: torchmetrics is missing.
    """
    size = min(len(edited), len(real) // 2)
    if size < FEWEST:
        return None
    generator = torch.Generator().manual_seed(seed)
    first, second = real[torch.randperm(len(real), generator=generator)].split(len(real) // 2)[:2]
    edited = edited[torch.randperm(len(edited), generator=generator)[:size]]
    floor = frechet_distance(first[:size], second[:size])
    return frechet_distance(edited, first[:size]) / floor if floor > 0 else None


def frechet_distance(first: Tensor, second: Tensor) -> float:
    r"""$|\mu_1 - \mu_2|^2 + \operatorname{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})$ of sets (N, D)."""
    metric = require("torchmetrics.image.fid", "eval").FrechetInceptionDistance(_Features(first.shape[1]))
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    return max(float(metric.compute()), 0.0)


class _Features(nn.Identity):
    """Stands for the network that torchmetrics asks: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
