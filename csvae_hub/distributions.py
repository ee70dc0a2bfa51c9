"""The distributions of the model as `torch.distributions` objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, Normal


def diagonal_gaussian(loc: Tensor, scale: Tensor, event_dims: int = 1) -> Independent:
    """N(loc, diag(scale²)) whose last `event_dims` dimensions are one event."""
    return Independent(Normal(loc, scale, validate_args=False), event_dims, validate_args=False)


def likelihood(name: str, mean: Tensor, scale: float) -> Independent:
    """p(x | w, z) with the decoder's `mean` (B, …): `gaussian`, `laplace` (fixed scale, units of x) or `bernoulli`.

    Bernoulli takes x anywhere in [0, 1], as is usual for images: then its log probability is minus the cross entropy.
    """
    events = mean.ndim - 1
    base: Distribution
    if name == "gaussian":
        base = Normal(mean, scale, validate_args=False)
    elif name == "laplace":
        base = Laplace(mean, scale, validate_args=False)
    else:
        base = Bernoulli(probs=mean.clamp(1e-6, 1 - 1e-6), validate_args=False)
    return Independent(base, events, validate_args=False)


def bernoullis(logits: Tensor) -> Independent:
    """K independent Bernoullis from logits (B, k)."""
    return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def draw(q: Independent, generator: torch.Generator | None = None) -> Tensor:
    """A reparametrised sample of a diagonal Gaussian; with a generator the noise is drawn where the generator is."""
    return q.rsample() if generator is None else q.mean + q.stddev * noise(q.mean.shape, generator).to(q.mean)


def noise(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers in float32, drawn where the generator is, or without one on the CPU."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else "cpu", dtype=torch.float32)


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is in that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
