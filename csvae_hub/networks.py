"""The model's distributions: each is a module that, called, gives a torch Distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.distributions import Independent

from csvae_hub import distributions
from csvae_hub.backbones.base import Backbone
from csvae_hub.backbones.mlp import mlp
from csvae_hub.config import AttributePrior, LikelihoodConfig
from csvae_hub.erasure import ConditionalFlow, FittedEraser, LinearEraser

LOG_SCALE_RANGE = (-7.0, 2.0)
"""Bounds of the log of a posterior's scale: they keep exp() finite and a KL from exploding on the first steps."""


def bounded_scale(raw: Tensor) -> Tensor:
    """A positive scale of any real number: exp within `LOG_SCALE_RANGE`."""
    return raw.clamp(*LOG_SCALE_RANGE).exp()


class PosteriorZ(nn.Module):
    """q(z | x): a diagonal Gaussian over z (B, z_dim), linear in the backbone's features.

    Ours, each off by default: `correction` adds a hidden layer to the mean, zero at the start. `min_scale` is a lower
    bound of the scale; without it y can hide in nearly noise-free directions. `erase` (a `LinearEraser`, with a grid a
    `FittedEraser`) and `flow` (a `ConditionalFlow` of that width) change the mean. With a grid, z is (channels, grid,
    grid), flattened, and a convolution reads it from the map behind the features.

    Args:
        features: how many numbers of the features are read; with a grid, the channels of the map.
        z_dim: size of z.
        attributes: how many attributes there are.
        told: read y (B, attributes) beside the features, as CondVAE's encoder does.
        grid: side of z's grid; 1 for a vector.
        correction, min_scale, erase, flow: see above.
    """

    def __init__(
        self,
        features: int,
        z_dim: int,
        attributes: int = 0,
        *,
        told: bool = False,
        grid: int = 1,
        correction: bool = False,
        min_scale: float = 0.0,
        erase: bool = False,
        flow: int = 0,
    ) -> None:
        super().__init__()
        self.told, self.grid, self.min_scale = told, grid, min_scale
        self.inputs = features * grid**2
        features += attributes if told else 0
        self.head = nn.Linear(features, 2 * z_dim) if grid == 1 else nn.Conv2d(features, 2 * z_dim // grid**2, 3, 1, 1)
        self.correction: nn.Module | None = None
        if correction:
            first, last = nn.Linear(features, features), nn.Linear(features, z_dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.correction = nn.Sequential(first, nn.SiLU(), last)
        self.eraser = (LinearEraser if grid == 1 else FittedEraser)(z_dim, attributes) if erase else None
        self.flow = ConditionalFlow(z_dim, attributes, flow) if flow else None

    def forward(self, features: Tensor, y: Tensor | None = None) -> Independent:
        """The distribution of z for features (B, …); y (B, k) without NaN, where it is told or there is a flow."""
        loc, raw = self.code(features, y)
        if self.eraser is not None:
            loc = self.eraser(loc)
        if self.flow is not None:
            assert y is not None
            loc = self.flow(loc, y)
        return distributions.diagonal_gaussian(loc, self.min_scale + bounded_scale(raw - 1))

    def code(self, features: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mean of z (B, z_dim) before eraser and flow, and the unbounded log of its scale."""
        h = features[:, -self.inputs :] if self.grid > 1 else features
        if self.grid > 1:
            h = rearrange(h, "b (c h w) -> b c h w", h=self.grid, w=self.grid)
        if self.told:
            assert y is not None
            beside = y.to(h) if self.grid == 1 else repeat(y.to(h), "b k -> b k h w", h=self.grid, w=self.grid)
            h = torch.cat([h, beside], 1)
        loc, raw = distributions.precise(self.head(h)).chunk(2, dim=1)
        if self.correction is not None:
            loc = loc + distributions.precise(self.correction(h))
        return loc.flatten(1), raw.flatten(1)


class PosteriorW(nn.Module):
    """q(w | x, y) on features (B, features) and y (B, k): a diagonal Gaussian over w (B, k, w_dim).

    w_i is told y_i alone of y. With a `prior` given on call (ours), the output is an offset from it in units of its
    scale, as in NVAE (Vahdat and Kautz 2020), near zero at the start.
    """

    def __init__(self, features: int, attributes: int, w_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.shape = (attributes, hidden)
        self.lift = nn.Linear(features, attributes * hidden)
        self.of_y = nn.Parameter(torch.randn(attributes, hidden) * 0.5)
        self.out = nn.Parameter(torch.randn(attributes, hidden, 2 * w_dim) * 0.1 * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(attributes, 2 * w_dim))

    def forward(self, features: Tensor, y: Tensor, prior: Independent | None = None) -> Independent:
        """The distribution of w for features (B, …) and y (B, k) without NaN."""
        lifted = self.lift(features[:, : self.lift.in_features])
        hidden = distributions.precise(lifted).unflatten(1, self.shape) + (2 * y - 1)[..., None] * self.of_y
        loc, raw = (torch.einsum("bkh,khd->bkd", F.silu(hidden), self.out.to(hidden)) + self.bias).chunk(2, dim=-1)
        if prior is None:
            return distributions.diagonal_gaussian(loc, bounded_scale(raw), 2)
        loc, scale = prior.mean + prior.stddev * loc, prior.stddev * bounded_scale(raw)
        return distributions.diagonal_gaussian(loc, scale, 2)


class PriorW(nn.Module):
    """p(w | y): for each attribute a diagonal Gaussian that depends on y_i alone; learned on request.

    At y between 0 and 1 it interpolates location and log scale. Beyond, it extrapolates the location and keeps the
    scale: that is the meaning of a number in an edit.
    """

    def __init__(self, priors: list[AttributePrior], w_dim: int, learned: bool = False) -> None:
        super().__init__()
        loc = torch.tensor([[p.absent_loc, p.present_loc] for p in priors])
        log_scale = torch.tensor([[p.absent_scale, p.present_scale] for p in priors]).log()
        self.loc = nn.Parameter(repeat(loc, "k c -> k c d", d=w_dim).clone(), requires_grad=learned)
        self.log_scale = nn.Parameter(repeat(log_scale, "k c -> k c d", d=w_dim).clone(), requires_grad=learned)

    def forward(self, y: Tensor) -> Independent:
        """The distribution of w (B, k, w_dim) for y (B, k)."""
        between = y[..., None]
        loc = self.loc[:, 0] + between * (self.loc[:, 1] - self.loc[:, 0])
        log_scale = self.log_scale[:, 0] + between.clamp(0, 1) * (self.log_scale[:, 1] - self.log_scale[:, 0])
        return distributions.diagonal_gaussian(loc, log_scale.exp(), 2)


class PosteriorY(nn.Sequential):
    """q(y | x) on features (B, features), the attribute classifier (ours), with one hidden layer."""

    def __init__(self, features: int, attributes: int, groups: distributions.Groups = ()) -> None:
        super().__init__(*mlp(features, max(1, features // 2), attributes))
        self.features, self.groups = features, groups

    def forward(self, input: Tensor) -> Independent:  # noqa: A002
        """The distribution of y (B, k) for features (B, …)."""
        return distributions.attributes(distributions.precise(super().forward(input[:, : self.features])), self.groups)


class Adversary(nn.Module):
    """q_δ(y | z) from z (B, z_dim), standardised by running moments; convolutions where z has a grid."""

    def __init__(
        self, z_dim: int, attributes: int, hidden: tuple[int, ...], grid: int = 1, groups: distributions.Groups = ()
    ) -> None:
        super().__init__()
        self.grid, self.groups = grid, groups
        channels, first = z_dim // grid**2, hidden[0] if hidden else attributes
        self.norm = nn.BatchNorm1d(z_dim, affine=False) if grid == 1 else nn.BatchNorm2d(channels, affine=False)
        if grid == 1:
            self.net = mlp(z_dim, *hidden, attributes)
        else:
            narrow, wide = (max(1, first // part) for part in (4, 2))
            convolutions = [nn.Conv2d(channels, narrow, 3, 1, 1), nn.Conv2d(narrow, wide, 4, 2, 1)]
            flat = wide * (grid // 2) ** 2
            layers = [layer for conv in convolutions for layer in (conv, nn.LeakyReLU(0.2))]
            self.net = nn.Sequential(*layers, nn.Flatten(), mlp(flat, *hidden, attributes))

    def forward(self, z: Tensor) -> Independent:
        """The distribution of y (B, k)."""
        z = z if self.grid == 1 else rearrange(z, "b (c h w) -> b c h w", h=self.grid, w=self.grid)
        logits = distributions.precise(self.net(self.norm(z.to(next(self.parameters()).dtype))))
        return distributions.attributes(logits, self.groups)


@dataclass(frozen=True)
class Decoder:
    """p(x | z, w): the backbone's decoder and a likelihood. It has no parameters but the backbone's."""

    backbone: Backbone
    config: LikelihoodConfig

    def __call__(self, z: Tensor, condition: Tensor) -> Independent:
        """The distribution of x (B, *shape) for z (B, z_dim) and the condition (B, …): w flattened, or y."""
        dtype = next(self.backbone.parameters()).dtype
        mean = distributions.precise(self.backbone.decode(z.to(dtype), condition.to(dtype)))
        mean = mean.sigmoid() if len(self.backbone.shape) == 3 else mean
        return distributions.likelihood(self.config.name, mean, self.config.scale)
