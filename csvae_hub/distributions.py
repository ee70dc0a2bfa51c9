"""The distributions of the model as `torch.distributions` objects."""

from __future__ import annotations

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
    if generator is None:
        return q.rsample()
    noise = torch.randn(q.mean.shape, generator=generator, device=generator.device).to(q.mean.device)
    return q.mean + q.stddev * noise
