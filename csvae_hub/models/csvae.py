"""The Conditional Subspace VAE (Klys, Snell, Zemel, NeurIPS 2018, arXiv 1812.06190)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.distributions import Independent

from csvae_hub import losses
from csvae_hub.config import ModelConfig
from csvae_hub.distributions import draw, noise
from csvae_hub.images import Preprocessor
from csvae_hub.models.base import Also, Output
from csvae_hub.models.editable import AttributeModel, Value
from csvae_hub.models.latents import Latents
from csvae_hub.models.values import parse_value
from csvae_hub.networks import PosteriorW, PriorW


class CSVAE(AttributeModel):
    """A VAE with z, which knows nothing of the attributes, and a subspace w_i of `w_dim` numbers for each attribute.

    `class_means` and `class_scales` (k, 2, w_dim) are the moments of w_i over the training pictures without and with an
    attribute (ours: q(w | x, y) need not fill p(w | y)). Before training: the means of p(w | y), and 0 for unknown.
    """

    name = "csvae"
    class_means: Tensor
    class_scales: Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        k = len(config.attributes)
        self.q_z = self._posterior_z_net(erase=config.erase, flow=config.flow)
        self.q_w = PosteriorW(config.backbone.features, k, config.w_dim)
        self.p_w = PriorW([config.prior(a) for a in config.attributes], config.w_dim, config.learn_priors)
        self.adversary_net = self._adversary_net()
        self.register_buffer("class_means", self.p_w.loc.detach().clone())  # (k, absent and present, w_dim)
        self.register_buffer("class_scales", torch.zeros_like(self.class_means))

    @staticmethod
    def condition_dim(config: ModelConfig) -> int:
        """All subspaces: k × w_dim."""
        return len(config.attributes) * config.w_dim

    # -- the distributions ----------------------------------------------------------------------------------------

    def posterior_z(self, x: Tensor, y: Tensor | None = None) -> Independent:
        """q(z | x) for x (B, *shape): event (z_dim,). Only a flow reads y (B, k), by default the answer of q(y | x)."""
        features = self.backbone.encode(x)
        return self.q_z(features, self._filled(y, self.q_y(features)))

    def posterior_w(self, x: Tensor, y: Tensor) -> Independent:
        """q(w | x, y) for x (B, *shape), y (B, k): event (k, w_dim)."""
        return self._posterior_w(self.backbone.encode(x), y)

    def prior_w(self, y: Tensor) -> Independent:
        """p(w | y) for y (B, k): event (k, w_dim)."""
        return self.p_w(y)

    def p_x_given(self, latents: Latents) -> Independent:
        """p(x | w, z): event *shape."""
        return self.p_x(latents.z, rearrange(latents.w, "b k d -> b (k d)"))

    def subspace(self, name: str) -> slice:
        """The place of w_i of an attribute in w flattened to (B, k · w_dim)."""
        i = self.index(name)
        return slice(i * self.config.w_dim, (i + 1) * self.config.w_dim)

    # -- the objective --------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None, also: Also = None) -> Output:
        """Encodes x (B, *shape) in [0, 1] with y (B, k), NaN for what q(y | x) expects; samples z and w; decodes."""
        features = self.backbone.encode(x)
        q_y = self.q_y(features)
        expected, y = torch.where(y.isnan(), q_y.mean.detach().to(y), y), self._filled(y, q_y)
        q_z, q_w = self.q_z(features, y), self._posterior_w(features, expected)
        z, w = draw(q_z, generator), draw(q_w, generator)
        p_x, others = self._decoded(Latents(z, w, y, self.attributes), also)
        return Output(features, q_z, p_x, q_y, z, y, q_w, self.prior_w(expected), w, others)

    def bound(self, out: Output, x: Tensor) -> dict[str, Tensor]:
        """Reconstruction, kl_z and kl_w."""
        assert out.q_w is not None
        assert out.p_w is not None
        return {**self._plain_bound(out, x), "kl_w": losses.kl_w(out.q_w, out.p_w)}

    def penalty_on_z(self, q_y: Independent, y: Tensor, base_rate: Tensor | None) -> dict[str, Tensor]:
        """The negative entropy of the adversary's answer."""
        return {"negative_entropy": losses.negative_entropy(q_y)}

    # -- encoding and editing -------------------------------------------------------------------------------------

    def posterior_latents(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, …), with the answer of q(y | x) where y is None or NaN."""
        filled = self._filled(y, self.q_y(features))
        q_z, q_w = self.q_z(features, filled), self._posterior_w(features, filled)
        z, w = (draw(q_z, generator), draw(q_w, generator)) if sample else (q_z.mean, q_w.mean)
        return Latents(z, w, filled, self.attributes)

    def prior_latents(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Latents:
        """Z from N(0, I), w from p(w | y) for y (n, k)."""
        y = self._random_attributes(n, y, generator)
        z, (loc, scale) = self._sampled_z(n, generator), self._moments_of_w(y).unbind()
        return Latents(z, loc + scale * noise(loc.shape, generator).to(loc), y, self.attributes)

    def latents_of_parts(self, z: Tensor, w: Tensor | None, y: Tensor | None) -> Latents:
        """Latents of z (B, z_dim) and w (B, k, w_dim)."""
        if w is None:
            raise ValueError("decode(z) needs w of shape (B, k, w_dim) beside it: decode(z, w)")
        return Latents(z, w, self._unknown(z) if y is None else y, self.attributes)

    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """Latents with w_i of one attribute replaced by the point that `value` stands for."""
        i = self.index(name)
        found = parse_value(value, name, latents, self.encode)
        if isinstance(found, Latents):
            point = found.w[:, found.index(name)].expand(latents.w.shape[0], -1)
        elif isinstance(found, str):
            loc, scale = self._moments_of_w(torch.ones_like(latents.y, device=self.device))[:, :, i].unbind()
            point = loc + scale * noise(loc.shape, generator).to(loc)
        elif found.ndim:
            point = found
        else:
            absent, present = self.class_means[i].to(latents.w)
            point = absent + found * (present - absent)
        return latents.replace(name, point)

    def class_points(self, latents: Latents) -> Tensor:
        """The points w (B, k, w_dim)."""
        return latents.w

    def _moments_of_w(self, y: Tensor) -> Tensor:
        """Mean and scale of w (2, B, k, w_dim) for y (B, k): by the training pictures where known, else of p(w | y)."""
        p_w, moments = self.prior_w(y), torch.stack([self.class_means, self.class_scales])[:, None]
        fitted = torch.lerp(moments[..., 0, :], moments[..., 1, :], y[..., None].to(moments))
        return torch.where(moments[1].any(), fitted, torch.stack([p_w.mean, p_w.stddev]))

    def _posterior_w(self, features: Tensor, y: Tensor) -> Independent:
        return self.q_w(features, y, self.prior_w(y) if self.config.residual else None)
