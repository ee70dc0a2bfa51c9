"""Layers behind the mean of q(z | x) that remove what it says of y (ours): a linear one, and a flow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from csvae_hub.backbones.mlp import mlp
from csvae_hub.distributions import precise

LAYERS = 8
STEPS = 1500
BATCH = 256


class LinearEraser(nn.Module):
    """An affine change of h after which no linear probe reads y (LEACE, Belrose et al. 2023).

    r(h) = h − W⁻¹ P W (h − E h) with W = (Σ_hh + s²)^(−½), s² the mean variance of h's numbers, and P the projection
    on the columns of W Σ_hy. Without s² the change would be the smallest (LEACE's), but oblique: numbers of hardly any
    variance that say something of y were erased with many times their size. The moments are running averages, updated
    by `observe`, and P is computed anew at every 8th of its calls; the identity until then. All are buffers: nothing
    here is trained.
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
        self.batches.zero_()
        self.observe(h, y, momentum=1.0)

    @torch.no_grad()
    def observe(self, h: Tensor, y: Tensor, momentum: float | None = None) -> None:
        """Takes a batch h (B, dim), y (B, attributes) without NaN into the running moments."""
        momentum = self.momentum if momentum is None else momentum
        h, y, n = h.float(), y.float(), len(h)
        buffers = (self.mean_h, self.mean_y, self.second_hh, self.cross_hy, self.weight)
        values = (h.mean(0), y.mean(0), h.T @ h / n, h.T @ y / n, torch.ones((), device=h.device))
        for buffer, value in zip(buffers, values, strict=True):
            buffer.mul_(1 - momentum).add_(value, alpha=momentum)
        if self.batches % 8 == 0:
            self.solve()
        self.batches += 1

    @torch.no_grad()
    def solve(self) -> None:
        """Computes the projection from the moments."""
        mean_h, mean_y = self.mean_h / self.weight, self.mean_y / self.weight
        covariance = (self.second_hh / self.weight - mean_h[:, None] * mean_h).double()
        cross = (self.cross_hy / self.weight - mean_h[:, None] * mean_y).double()
        back, there = _factors(covariance, cross)
        # a new tensor: a backward pass may still need the one before
        self.projection = (back @ there).to(self.projection)


class FittedEraser(nn.Module):
    """The change of `LinearEraser` for the many numbers of a z with places: fitted once, kept as two thin matrices.

    r(h) = h − A B (h − E h), A (dim, k) and B (k, dim) with A B = W⁻¹ P W, and that twice: once leaves a thousandth in
    half precision, which a probe still reads. The identity until `fit`.
    """

    mean_h: Tensor
    back: Tensor
    there: Tensor

    def __init__(self, dim: int, attributes: int) -> None:
        super().__init__()
        self.register_buffer("mean_h", torch.zeros(dim))
        self.register_buffer("back", torch.zeros(dim, attributes))
        self.register_buffer("there", torch.zeros(attributes, dim))

    def forward(self, h: Tensor) -> Tensor:
        """Erased h, (B, dim) to (B, dim)."""
        for _ in range(2):
            h = h - (h - self.mean_h.to(h)) @ self.there.to(h).T @ self.back.to(h).T
        return h

    @torch.no_grad()
    def fit(self, h: Tensor, y: Tensor) -> None:
        """Fits it to h (N, dim) and y (N, attributes) without NaN."""
        mean, y = h.mean(0), y.double() - y.double().mean(0)
        centred = h.double() - mean.double()
        back, there = _factors(centred.T @ centred / len(h), centred.T @ y / len(h))
        self.mean_h.copy_(mean)
        self.back.zero_()[:, : back.shape[1]].copy_(back)
        self.there.zero_()[: there.shape[0]].copy_(there)


def _factors(covariance: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """W⁻¹ U (dim, n) and Uᵀ W (n, dim), with P = U Uᵀ, of the moments of h, and of h and y: n is at most k and dim."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0)
    values = (values + values.mean()).clamp(min=1e-12)
    whiten = (vectors * values.rsqrt()) @ vectors.T
    colour = (vectors * values.sqrt()) @ vectors.T
    u, s, _ = torch.linalg.svd(whiten @ cross, full_matrices=False)
    u = u * (s > 1e-5 * s.max().clamp(min=1e-12))
    return colour @ u, u.T @ whiten


class Couplings(nn.Module):
    """Affine couplings (Dinh et al., RealNVP, 2017): x (B, dim), and y (B, k) if any, to an invertible change of x.

    In each layer half of the numbers tell how the other half is scaled and moved; the halves change from layer to
    layer. With y the change is the difference between what the layer's network says to y and what it says to y = 0: the
    identity at y = 0, and at the start for every y.
    """

    def __init__(self, dim: int, attributes: int, width: int, layers: int = LAYERS) -> None:
        super().__init__()
        bits = (dim - 1).bit_length()
        self.nets = nn.ModuleList()
        for layer in range(layers):
            run = 2 ** (layer // 2 % bits)
            of = [[d for d in range(dim) if (d // run + layer) % 2 == rest] for rest in (1, 0)]
            told, moved = (torch.tensor(places) for places in of)  # on "meta", too
            last = nn.Linear(width, 2 * len(moved))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            # buffers, so that they are where the weights are; not saved, since they follow from the sizes
            self.register_buffer(f"told_{layer}", told, persistent=False)
            self.register_buffer(f"moved_{layer}", moved, persistent=False)
            self.nets.append(nn.Sequential(mlp(len(told) + attributes, width, width), nn.ReLU(), last))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The changed x (B, dim), and the log of the change's Jacobian determinant (B,)."""
        log_det = x.new_zeros(x.shape[0])
        for layer, net in enumerate(self.nets):
            told, moved = self.get_buffer(f"told_{layer}"), self.get_buffer(f"moved_{layer}")
            told_x = x[:, told]
            if y is None:
                out = net(told_x)
            else:
                both = torch.cat([torch.cat([told_x, y], 1), torch.cat([told_x, torch.zeros_like(y)], 1)])
                out = torch.sub(*net(both).unflatten(0, (2, -1)).unbind())
            shift, raw = out.chunk(2, dim=1)
            log_scale = raw.tanh()
            x = x.index_copy(1, moved, (x[:, moved] + shift) * log_scale.exp())
            log_det = log_det + log_scale.sum(1)
        return x, log_det


class ConditionalFlow(nn.Module):
    """T_y: a code h (B, dim) to z (B, dim), so that z has the same density whatever y is (ours).

    For each y an invertible map, the identity until `fit`, found by maximum likelihood: the density of z is that of a
    second flow, which is not told y, so all that differs between the values of y has to be in T_y. T_y is kept small by
    weight decay: what says nothing of y stays where it is. As in fair normalizing flows (Balunović, Ruoss, Vechev
    2022), no adversary is involved, and given y nothing is lost.

    Codes are whitened inside, by the mean and covariance that `fit` saw.
    """

    mean: Tensor
    whiten: Tensor
    colour: Tensor

    def __init__(self, dim: int, attributes: int, width: int) -> None:
        super().__init__()
        self.shift = nn.Linear(attributes, dim, bias=False)
        self.log_scale = nn.Linear(attributes, dim, bias=False)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.log_scale.weight)
        self.couplings = Couplings(dim, attributes, width)
        self.width = width
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("whiten", torch.eye(dim))
        self.register_buffer("colour", torch.eye(dim))
        self.requires_grad_(False)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """T_y(h) (B, dim) of h (B, dim) and y (B, k), 0 or 1, in float32 or float64."""
        with torch.autocast(h.device.type, enabled=False):
            white = (precise(h) - self.mean) @ self.whiten
            moved, _ = self.changed(white, y)
            return precise(h) + (moved - white) @ self.colour

    def changed(self, white: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """T_y of whitened codes (B, dim), whitened, and the log of its Jacobian determinant (B,)."""
        signs = 2 * y.to(white) - 1
        log_scale = self.log_scale(signs)
        moved, log_det = self.couplings((white + self.shift(signs)) * log_scale.exp(), signs)
        return moved, log_det + log_scale.sum(1)

    def fit(
        self,
        h: Tensor,
        y: Tensor,
        *,
        steps: int | None = None,
        progress: Callable[[int, int], None] = lambda done, steps: None,
    ) -> float:
        """Finds T_y for codes h (N, dim) and y (N, k), 0 or 1, without NaN; starts from where it is.

        AdamW over `steps` (by default `STEPS`) batches, with a cosine schedule and weight decay on both flows. The
        caller's random state is kept. `progress` is told after each step how many are done, and of how many.

        Returns:
            The mean negative log-likelihood of whitened codes over the last tenth of the steps, in nats.
        """
        steps = steps or STEPS
        h, y = h.detach().float(), y.float()
        self._whiten(h)
        white = (h - self.mean) @ self.whiten
        losses: list[Tensor] = []
        devices = [h.device] if h.device.type == "cuda" else []
        with torch.enable_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            base = _Density(h.shape[1], self.width).to(h.device)
            parameters = [*self.requires_grad_(True).parameters(), *base.parameters()]
            optimizer = torch.optim.AdamW(parameters, 2e-3, weight_decay=0.3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            order = torch.randperm(0)
            for step in range(steps):
                order = torch.randperm(len(h)) if len(order) < BATCH else order
                rows, order = order[:BATCH], order[BATCH:]
                moved, log_det = self.changed(white[rows], y[rows])
                loss = (base(moved) - log_det).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 5.0)
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
                progress(step + 1, steps)
            self.requires_grad_(False)
        return torch.stack(losses[-max(1, steps // 10) :]).mean().item()

    def _whiten(self, h: Tensor) -> None:
        self.mean.copy_(h.mean(0))
        values, vectors = torch.linalg.eigh(torch.cov(h.T).double())
        roots = values.clamp(min=1e-8 * values.max().item() + 1e-12).sqrt()
        self.whiten.copy_((vectors / roots) @ vectors.T)
        self.colour.copy_((vectors * roots) @ vectors.T)


class _Density(nn.Module):
    """−log p(z) of a flow that is told nothing but z, up to a constant: (B, dim) to (B,), in nats."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.couplings = Couplings(dim, 0, width)
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def forward(self, z: Tensor) -> Tensor:
        u, log_det = self.couplings(z)
        u = (u + self.shift) * self.log_scale.exp()
        return 0.5 * u.square().sum(1) - log_det - self.log_scale.sum()
