"""The distributions of the model as `torch.distributions` objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, Normal

from csvae_hub.sharing import mine, whole

Groups: TypeAlias = Sequence[Sequence[int]]
"""The columns of each group of attributes of which an example has exactly one."""


def diagonal_gaussian(loc: Tensor, scale: Tensor, event_dims: int = 1) -> Independent:
    """N(loc, diag(scale²)) whose last `event_dims` dimensions are one event."""
    return Independent(Normal(loc, scale, validate_args=False), event_dims, validate_args=False)


def likelihood(name: str, mean: Tensor, scale: float) -> Independent:
    """p(x | w, z) with the decoder's `mean` (B, …): `gaussian`, `laplace` (fixed scale, units of x) or `bernoulli`.

    Bernoulli takes x anywhere in [0, 1], as is usual for images: then its log probability is minus the cross entropy.
    """
    events = mean.ndim - 1
    base: Distribution
    on_device = mean.new_full((), scale)  # of a number torch would make a tensor on the CPU, and wait for its copy
    if name == "gaussian":
        base = Normal(mean, on_device, validate_args=False)
    elif name == "laplace":
        base = Laplace(mean, on_device, validate_args=False)
    else:
        base = Bernoulli(probs=mean.clamp(1e-6, 1 - 1e-6), validate_args=False)
    return Independent(base, events, validate_args=False)


def attributes(logits: Tensor, groups: Groups = ()) -> Independent:
    """The distribution of k attributes from logits (B, k): a Bernoulli each, and a categorical for each of `groups`."""
    base = Exclusive(logits, groups) if groups else Bernoulli(logits=logits, validate_args=False)
    return Independent(base, 1, validate_args=False)


def most_likely(q_y: Independent) -> Tensor:
    """The likelier value of each attribute, 0 or 1 (B, k); in a group the likeliest member alone has 1."""
    base = q_y.base_dist
    return base.mode if isinstance(base, Exclusive) else (q_y.mean > 0.5).to(q_y.mean)


def log_odds(q_y: Independent) -> Tensor:
    """The log of p / (1 - p) of each attribute (B, k)."""
    base = q_y.base_dist
    return base.log_odds if isinstance(base, Exclusive) else base.logits


class Exclusive(Distribution):
    """Attributes (B, k) with groups of which each example has exactly one: a categorical over each group's columns.

    The rest are Bernoullis. `log_prob` and `entropy` are (B, k): the sum over a group is the categorical's.
    """

    def __init__(self, logits: Tensor, groups: Groups) -> None:
        self.logits, self.groups = logits, [list(group) for group in groups]
        super().__init__(logits.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The probability of each attribute (B, k)."""
        return self._filled(self.logits.sigmoid(), lambda logits: logits.softmax(-1))

    @property
    def mode(self) -> Tensor:
        """The likelier value of each Bernoulli, and the likeliest member of each group (B, k)."""

        def one_hot(logits: Tensor) -> Tensor:
            return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)

        return self._filled((self.logits > 0).to(self.logits), one_hot)

    @property
    def log_odds(self) -> Tensor:
        """The log of p / (1 - p) of each attribute (B, k), of a group at most 16."""

        def of_group(logits: Tensor) -> Tensor:
            log_p = logits.log_softmax(-1)
            return log_p - (-log_p.expm1()).clamp(min=1e-7).log()

        return self._filled(self.logits, of_group)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability (B, k) of y (B, k), also between 0 and 1; of a group y_i log q_i."""
        plain = Bernoulli(logits=self.logits, validate_args=False).log_prob(value)
        return self._filled(plain, lambda logits, y: y * logits.log_softmax(-1), value)

    def entropy(self) -> Tensor:
        """The entropy (B, k), of a group -q_i log q_i."""
        plain = Bernoulli(logits=self.logits, validate_args=False).entropy()
        return self._filled(plain, lambda logits: -logits.softmax(-1) * logits.log_softmax(-1))

    def _filled(self, plain: Tensor, function: Callable[..., Tensor], *others: Tensor) -> Tensor:
        """`plain` with the columns of each group replaced by the function of its logits."""
        columns = list(plain.unbind(-1))  # column by column: a list as an index would be copied to a GPU each time
        for group in self.groups:
            parts = [torch.stack([given[..., i] for i in group], -1) for given in (self.logits, *others)]
            for i, column in zip(group, function(*parts).to(plain).unbind(-1), strict=True):
                columns[i] = column
        return torch.stack(columns, -1)


def draw(q: Independent, generator: torch.Generator | None = None) -> Tensor:
    """A reparametrised sample of a diagonal Gaussian; with a generator the noise is drawn where the generator is."""
    loc: Tensor = q.mean
    if generator is not None:
        return loc + q.stddev * noise(loc.shape, generator).to(loc)
    return loc + q.stddev * mine(torch.randn(whole(len(loc)), *loc.shape[1:], device=loc.device, dtype=loc.dtype))


def noise(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers in float32, drawn where the generator is, or without one on the CPU."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else "cpu", dtype=torch.float32)


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is in that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
