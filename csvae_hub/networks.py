"""The inference networks: heads on a backbone's features, each a module that gives a distribution's parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Independent

from csvae_hub.backbones.mlp import mlp
from csvae_hub.config import AttributePrior
from csvae_hub.distributions import diagonal_gaussian
from csvae_hub.flows import ConditionalFlow

LOG_SCALE_RANGE = (-7.0, 2.0)
"""Bounds of the log of a posterior's scale: keeps exp() finite and a KL from exploding on the first steps."""


def bounded_scale(raw: Tensor) -> Tensor:
    """A positive scale of any real number: exp within `LOG_SCALE_RANGE`."""
    return raw.clamp(*LOG_SCALE_RANGE).exp()


class PosteriorZ(nn.Module):
    """q(z | x) on features (B, features): a diagonal Gaussian over z (B, z_dim).

    Its mean is linear in the features plus a correction by one hidden layer, zero at the start: what z must not say of
    y is seldom linear in features that other heads want to say y. The eraser (`erase`) and the flow (of `flow` hidden
    units) come after that; both need to know how many `attributes` there are.
    """

    def __init__(
        self,
        features: int,
        z_dim: int,
        attributes: int = 0,
        *,
        erase: bool = False,
        flow: int = 0,
        min_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.min_scale = min_scale
        self.head = nn.Linear(features, 2 * z_dim)
        first, last = nn.Linear(features, features), nn.Linear(features, z_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correction = nn.Sequential(first, nn.SiLU(), last)
        self.eraser = LinearEraser(z_dim, attributes) if erase else None
        self.flow = ConditionalFlow(z_dim, attributes, flow) if flow else None

    def forward(self, features: Tensor, y: Tensor | None = None, *, observe: bool = True) -> Independent:
        """The distribution of z for features (B, features).

        Args:
            features: of a backbone.
            y: (B, k) without NaN. A flow can't do without; the eraser in training learns from it what to erase.
            observe: whether the eraser, in training, takes these examples into its moments.
        """
        linear, raw = self.head(features).float().chunk(2, dim=-1)
        loc = linear + self.correction(features).float()
        if self.eraser is not None:
            if self.training and observe and y is not None:
                self.eraser.observe(loc.detach(), y)
            loc = self.eraser(loc)
        if self.flow is not None:
            assert y is not None
            loc = self.flow(loc, y)
        return diagonal_gaussian(loc, self.min_scale + bounded_scale(raw - 1))

    def code(self, features: Tensor) -> Tensor:
        """The mean of z (B, z_dim) before the eraser and the flow."""
        return self.head(features).float().chunk(2, dim=-1)[0] + self.correction(features).float()


class LinearEraser(nn.Module):
    """The smallest affine change of h after which no linear probe reads y (LEACE, Belrose et al. 2023).

    r(h) = h − W⁺ P W (h − E h) with W = Σ_hh^(−½) and P the projection on the columns of W Σ_hy. The moments are
    running averages, updated by `observe`, and P is computed anew at every 8th of its calls; the identity until then.
    All are buffers: nothing here is trained.
    """

    mean_h: Tensor
    mean_y: Tensor
    second_hh: Tensor
    cross_hy: Tensor
    projection: Tensor
    weight: Tensor
    batches: Tensor

    def __init__(self, dim: int, attributes: int, momentum: float = 0.003) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean_h", torch.zeros(dim))
        self.register_buffer("mean_y", torch.zeros(attributes))
        self.register_buffer("second_hh", torch.zeros(dim, dim))
        self.register_buffer("cross_hy", torch.zeros(dim, attributes))
        self.register_buffer("projection", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, h: Tensor) -> Tensor:
        """Erased h, (B, dim) to (B, dim)."""
        mean = self.mean_h.to(h) / self.weight.to(h).clamp(min=1e-8)
        return h - (h - mean) @ self.projection.to(h).T

    def fit(self, h: Tensor, y: Tensor) -> None:
        """Sets the moments to those of h (N, dim) and y (N, attributes) alone."""
        for buffer in self.buffers():
            buffer.zero_()
        self.observe(h, y)

    @torch.no_grad()
    def observe(self, h: Tensor, y: Tensor) -> None:
        """Takes a batch h (B, dim), y (B, attributes) without NaN into the running moments."""
        m = self.momentum
        h, y = h.float(), y.float()
        n = len(h)
        for buffer, value in (
            (self.mean_h, h.mean(0)),
            (self.mean_y, y.mean(0)),
            (self.second_hh, h.T @ h / n),
            (self.cross_hy, h.T @ y / n),
            (self.weight, torch.ones((), device=h.device)),
        ):
            buffer.mul_(1 - m).add_(value, alpha=m)
        if self.batches % 8 == 0:
            self.solve()
        self.batches += 1

    @torch.no_grad()
    def solve(self) -> None:
        """Computes the projection from the moments."""
        mean_h, mean_y = self.mean_h / self.weight, self.mean_y / self.weight
        covariance = (self.second_hh / self.weight - mean_h[:, None] * mean_h).double()
        cross = (self.cross_hy / self.weight - mean_h[:, None] * mean_y).double()
        values, vectors = torch.linalg.eigh(covariance)
        kept = values > 1e-6 * values.max().clamp(min=1e-12)
        inverse_root = torch.where(kept, values.clamp(min=1e-30).rsqrt(), torch.zeros_like(values))
        root = torch.where(kept, values.clamp(min=0).sqrt(), torch.zeros_like(values))
        whiten = (vectors * inverse_root) @ vectors.T
        colour = (vectors * root) @ vectors.T
        u, s, _ = torch.linalg.svd(whiten @ cross, full_matrices=False)
        u = u * (s > 1e-5 * s.max().clamp(min=1e-12))
        self.projection.copy_(colour @ (u @ u.T) @ whiten)


class PosteriorW(nn.Module):
    """q(w | x, y) on features (B, features) and y (B, k): a diagonal Gaussian over w (B, k, w_dim).

    w_i is told y_i alone of y. With a `prior` given on call, the output is an offset from it in units of its scale
    (as in NVAE, Vahdat and Kautz 2020), near zero at the start.
    """

    def __init__(self, features: int, attributes: int, w_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.shape = (attributes, hidden)
        self.lift = nn.Linear(features, attributes * hidden)
        self.of_y = nn.Parameter(torch.randn(attributes, hidden) * 0.5)
        self.out = nn.Parameter(torch.randn(attributes, hidden, 2 * w_dim) * 0.1 * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(attributes, 2 * w_dim))

    def forward(self, features: Tensor, y: Tensor, prior: Independent | None = None) -> Independent:
        """The distribution of w for features (B, features) and y (B, k) without NaN."""
        hidden = self.lift(features).float().unflatten(1, self.shape) + (2 * y - 1)[..., None] * self.of_y
        loc, raw = (torch.einsum("bkh,khd->bkd", F.silu(hidden), self.out.to(hidden)) + self.bias).chunk(2, dim=-1)
        if prior is None:
            return diagonal_gaussian(loc, bounded_scale(raw), 2)
        return diagonal_gaussian(prior.mean + prior.stddev * loc, prior.stddev * bounded_scale(raw), 2)


class Adversary(nn.Module):
    """q(y | z): logits (B, k) of k Bernoullis from z (B, z_dim), standardised by running moments."""

    def __init__(self, z_dim: int, attributes: int, width: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(z_dim, affine=False)
        self.net = mlp(z_dim, *[width] * depth, attributes)

    def forward(self, z: Tensor) -> Tensor:
        """Logits (B, k)."""
        return self.net(self.norm(z.to(next(self.parameters()).dtype)))


class PriorW(nn.Module):
    """p(w | y): for each attribute a diagonal Gaussian that depends on y_i alone; learned on request.

    At y between 0 and 1 location and log scale are interpolated; beyond, the location is extrapolated and the scale
    stays: that is what a float means in an edit.
    """

    def __init__(self, priors: list[AttributePrior], w_dim: int, learned: bool = False) -> None:
        super().__init__()
        loc = torch.tensor([[p.absent_loc, p.present_loc] for p in priors])
        log_scale = torch.tensor([[p.absent_scale, p.present_scale] for p in priors]).log()
        self.loc = nn.Parameter(loc[..., None].repeat(1, 1, w_dim), requires_grad=learned)
        self.log_scale = nn.Parameter(log_scale[..., None].repeat(1, 1, w_dim), requires_grad=learned)

    def forward(self, y: Tensor) -> Independent:
        """The distribution of w (B, k, w_dim) for y (B, k)."""
        between = y[..., None]
        loc = self.loc[:, 0] + between * (self.loc[:, 1] - self.loc[:, 0])
        log_scale = self.log_scale[:, 0] + between.clamp(0, 1) * (self.log_scale[:, 1] - self.log_scale[:, 0])
        return diagonal_gaussian(loc, log_scale.exp(), 2)
