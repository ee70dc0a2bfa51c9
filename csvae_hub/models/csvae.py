"""The Conditional Subspace VAE (Klys, Snell, Zemel, NeurIPS 2018, arXiv 1812.06190)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub import distributions
from csvae_hub.backbones.mlp import mlp
from csvae_hub.config import ModelConfig
from csvae_hub.images import Preprocessor
from csvae_hub.models.base import AttributeModel, Value
from csvae_hub.models.latents import Latents
from csvae_hub.networks import Adversary, PosteriorW, PosteriorZ, PriorW


@dataclass(frozen=True)
class CSVAEOutput:
    """One pass with a sample of the posteriors: what the losses need. `y` is free of NaN: the gaps are q(y | x)'s."""

    q_z: Independent
    q_w: Independent
    p_w: Independent
    p_x: Independent
    z: Tensor
    w: Tensor
    y: Tensor
    attribute_logits: Tensor


class CSVAE(AttributeModel):
    """A VAE with z, which knows nothing of the attributes, and a subspace w_i of `w_dim` numbers for each attribute.

    `class_means` (k, 2, w_dim) are the means of w_i over the training pictures without and with each attribute, of the
    clearer half of each (ours: q(w | x, y) need not fill p(w | y), labels are noisy, and an edit is to land among clear
    cases); running means of all while training, and p(w | y)'s before.
    """

    name = "csvae"
    class_means: Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        k, features = len(config.attributes), config.backbone.features
        self.q_z = PosteriorZ(features, config.z_dim, erase_dim=k if config.erase else 0)
        self.q_w = PosteriorW(features, k, config.w_dim)
        self.p_w = PriorW([config.prior(a) for a in config.attributes], config.w_dim, config.learn_priors)
        self.register_buffer("class_means", self.p_w.loc.detach().clone())  # (k, absent and present, w_dim)
        self.q_y = mlp(features, features // 2, k)
        self.adversary_net = Adversary(config.z_dim, k, config.adversary_width, config.adversary_depth)

    @staticmethod
    def condition_dim(config: ModelConfig) -> int:
        """All subspaces: k × w_dim."""
        return len(config.attributes) * config.w_dim

    # -- the distributions ----------------------------------------------------------------------------------------

    def posterior_z(self, x: Tensor) -> Independent:
        """q(z | x) for x (B, *shape): event (z_dim,)."""
        return self.q_z(self.backbone.encode(x))

    def posterior_w(self, x: Tensor, y: Tensor) -> Independent:
        """q(w | x, y) for x (B, *shape), y (B, k): event (k, w_dim)."""
        return self._posterior_w(self.backbone.encode(x), y)

    def prior_z(self) -> Independent:
        """p(z) = N(0, I): event (z_dim,)."""
        zeros = torch.zeros(self.config.z_dim, device=self.device)
        return distributions.diagonal_gaussian(zeros, torch.ones_like(zeros))

    def prior_w(self, y: Tensor) -> Independent:
        """p(w | y) for y (B, k): event (k, w_dim)."""
        return self.p_w(y)

    def adversary(self, z: Tensor) -> Independent:
        """q_δ(y | z) for z (B, z_dim): k Bernoullis."""
        return distributions.bernoullis(self.adversary_net(z))

    def likelihood(self, mean: Tensor) -> Independent:
        """p(x | w, z) around the decoder's mean (B, *shape)."""
        return distributions.likelihood(self.config.likelihood.name, mean, self.config.likelihood.scale)

    def subspace(self, name: str) -> slice:
        """Where w_i of an attribute lies in w flattened to (B, k · w_dim)."""
        i = self.index(name)
        return slice(i * self.config.w_dim, (i + 1) * self.config.w_dim)

    # -- training -------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> CSVAEOutput:
        """Encodes x (B, *shape) in [0, 1] with y (B, k), 0, 1 or NaN, samples z and w, and decodes."""
        features = self.backbone.encode(x)
        logits = self.q_y(features)
        y = torch.where(y.isnan(), (logits > 0).to(y), y)
        q_z, q_w = self.q_z(features, y), self._posterior_w(features, y)
        z, w = _draw(q_z, generator), _draw(q_w, generator)
        p_x = self.likelihood(self._mean(z, w))
        return CSVAEOutput(q_z, q_w, self.prior_w(y), p_x, z, w, y, logits)

    @torch.no_grad()
    def settle(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Sets the eraser, if any, and the class means by all batches; gaps in y are filled in by q(y | x)."""
        self.eval()
        unerased: list[Tensor] = []
        attributes: list[Tensor] = []
        points: list[Tensor] = []
        for x, y in batches:
            features = self.backbone.encode(x)
            y = torch.where(y.isnan(), (self.q_y(features) > 0).to(y), y)
            unerased.append(self.q_z.unerased(features))
            points.append(self._posterior_w(features, y).mean)
            attributes.append(y)
        if self.q_z.eraser is not None:
            self.q_z.eraser.fit(torch.cat(unerased), torch.cat(attributes))
        w, y = torch.cat(points), torch.cat(attributes)
        self.observe_classes(w, y, momentum=1.0)
        self.observe_classes(w, y, momentum=1.0, clear=self._clear(w, y))

    def _clear(self, w: Tensor, y: Tensor) -> Tensor:
        """Which examples (B, k) are in the half of their class that lies farthest from the other class."""
        along = torch.einsum("bkd,kd->bk", w, self.class_means[:, 1] - self.class_means[:, 0])
        clear = torch.zeros_like(y, dtype=torch.bool)
        for i in range(y.shape[1]):
            for member, sign in ((y[:, i] > 0.5, 1), (y[:, i] < 0.5, -1)):
                if member.any():
                    place = sign * along[:, i]
                    clear[:, i] |= member & (place >= place[member].median())
        return clear

    @torch.no_grad()
    def observe_classes(self, w: Tensor, y: Tensor, momentum: float = 0.01, clear: Tensor | None = None) -> None:
        """Takes w (B, k, w_dim) of examples with attributes y (B, k) into the running class means.

        With `clear` (B, k), of bool, only those examples count for each attribute.
        """
        counted = torch.ones_like(y, dtype=torch.bool) if clear is None else clear
        for value in (0, 1):
            member = ((y.round() == value) & counted).to(w)[..., None]
            count = member.sum(0)
            means = (w * member).sum(0) / count.clamp(min=1)
            kept = 1 - momentum * (count > 0).to(w)
            self.class_means[:, value] = kept * self.class_means[:, value] + (1 - kept) * means

    # -- what the family asks for ---------------------------------------------------------------------------------

    def encode_tensor(self, x: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None) -> Latents:
        """Latents of x (B, *shape), with q(y | x)'s answer where y is None or NaN."""
        features = self.backbone.encode(x)
        inferred = (self.q_y(features) > 0).float()
        filled: Tensor = inferred if y is None else torch.where(y.isnan(), inferred, y)
        q_z, q_w = self.q_z(features), self._posterior_w(features, filled)
        z, w = (_draw(q_z, generator), _draw(q_w, generator)) if sample else (q_z.mean, q_w.mean)
        return Latents(z, w, filled, self.attributes)

    def decode_tensor(self, latents: Latents) -> Tensor:
        """E p(x | w, z): (B, *shape)."""
        return self._mean(latents.z, latents.w)

    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """Latents with w_i of one attribute replaced by the point that `value` stands for."""
        point = self._point(latents, name, value, generator)
        if not point.isfinite().all():
            raise ValueError(f"value for {name!r}: expected finite numbers, got {value!r}")
        return latents.replace(name, point)

    def sample_latents(self, n: int, y: Tensor, generator: torch.Generator | None) -> Latents:
        """Z from N(0, I), w from p(w | y) for y (n, k)."""
        p_w = self.prior_w(y)
        z = torch.randn(n, self.config.z_dim, generator=generator).to(self.device)
        noise = torch.randn(p_w.mean.shape, generator=generator).to(self.device)
        return Latents(z, p_w.mean + p_w.stddev * noise, y, self.attributes)

    def attribute_logits(self, x: Tensor) -> Tensor:
        """Logits (B, k) of q(y | x)."""
        return self.q_y(self.backbone.encode(x))

    # -- helpers --------------------------------------------------------------------------------------------------

    def _posterior_w(self, features: Tensor, y: Tensor) -> Independent:
        return self.q_w(features, y, self.prior_w(y) if self.config.residual else None)

    def _mean(self, z: Tensor, w: Tensor) -> Tensor:
        dtype = self.dtype
        x = self.backbone.decode(z.to(dtype), w.flatten(1).to(dtype)).float()
        return x.sigmoid() if self.config.is_image else x

    def _point(self, latents: Latents, name: str, value: Any, generator: torch.Generator | None) -> Tensor:
        i, w_dim = self.index(name), self.config.w_dim
        if getattr(value, "shape", None) == ():  # numpy's and torch's numbers
            value = value.item()
        if isinstance(value, Latents):
            other = value if len(value) == len(latents) else self._only(value, name)
            return other.w[:, other.index(name)].expand(len(latents), -1)
        if isinstance(value, bool | int | float):
            absent, present = self.class_means[i].to(latents.w)
            return absent + float(value) * (present - absent)
        if isinstance(value, str) and value == "sample":
            y = latents.y.round().nan_to_num(1.0).clone()
            y[:, i] = 1.0
            p_w = self.prior_w(y)
            noise = torch.randn(len(latents), w_dim, generator=generator).to(latents.w.device)
            return p_w.mean[:, i] + p_w.stddev[:, i] * noise
        if isinstance(value, Tensor) and value.ndim <= 2 and value.shape[-1:] == (w_dim,):
            return value.to(latents.w)
        if isinstance(value, list | tuple) and all(isinstance(v, bool | int | float) for v in value):
            if len(value) != w_dim:
                raise ValueError(f"value for {name!r}: expected {w_dim} coordinates, got {len(value)}: {value!r}")
            return torch.tensor(value, device=latents.w.device, dtype=latents.w.dtype)
        if isinstance(value, str | Path) or hasattr(value, "shape") or hasattr(value, "size"):
            return self._point(latents, name, self.encode(value), generator)
        raise ValueError(
            f"value for {name!r}: expected True, False, a number, {w_dim} coordinates, an image, Latents or 'sample', "
            f"got {value!r}"
        )

    @staticmethod
    def _only(latents: Latents, name: str) -> Latents:
        if len(latents) != 1:
            raise ValueError(
                f"value for {name!r}: expected the latents of one image or of as many as are edited, got {len(latents)}"
            )
        return latents


def _draw(q: Independent, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return q.rsample()
    noise = torch.randn(q.mean.shape, generator=generator, device=generator.device).to(q.mean.device)
    return q.mean + q.stddev * noise
