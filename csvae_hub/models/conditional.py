"""The common part of the models whose decoder reads the attributes themselves."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub.config import ModelConfig
from csvae_hub.distributions import draw
from csvae_hub.models.base import Also, Output
from csvae_hub.models.editable import AttributeModel, Value
from csvae_hub.models.latents import Latents
from csvae_hub.models.values import level


class ConditionalModel(AttributeModel, ABC):
    """p(x | z, y): another y_i changes an attribute, and each class of it has one picture."""

    @staticmethod
    def condition_dim(config: ModelConfig) -> int:
        """All attributes: k."""
        return len(config.attributes)

    def posterior_z(self, x: Tensor, y: Tensor | None = None) -> Independent:
        """q(z | x), or q(z | x, y) in `CondVAE`, for x (B, *shape), y (B, k) or by default the answer of q(y | x)."""
        features = self.backbone.encode(x)
        return self.q_z(features, self._filled(y, self.q_y(features)))

    def p_x_given(self, latents: Latents) -> Independent:
        """p(x | z, y): event *shape."""
        return self.p_x(latents.z, latents.y)

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None, also: Also = None) -> Output:
        """Encodes x (B, *shape) in [0, 1], samples z and decodes it with y (B, k), 0, 1 or NaN."""
        features = self.backbone.encode(x)
        q_y = self.q_y(features)
        y = self._filled(y, q_y)
        q_z = self.q_z(features, y)
        z = draw(q_z, generator)
        p_x, others = self._decoded(self._without_subspaces(z, y), also)
        return Output(features, q_z, p_x, q_y, z, y, also=others)

    def bound(self, out: Output, x: Tensor) -> dict[str, Tensor]:
        """Reconstruction and kl_z: minus their sum bounds log p(x | y)."""
        return self._plain_bound(out, x)

    def posterior_latents(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, …), with the answer of q(y | x) where y is None or NaN."""
        y = self._filled(y, self.q_y(features))
        q_z = self.q_z(features, y)
        return self._without_subspaces(draw(q_z, generator) if sample else q_z.mean, y)

    def prior_latents(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Latents:
        """Z from N(0, I), for y (n, k)."""
        y = self._random_attributes(n, y, generator)
        return self._without_subspaces(self._sampled_z(n, generator), y)

    def latents_of_parts(self, z: Tensor, w: Tensor | None, y: Tensor | None) -> Latents:
        """Latents of z (B, z_dim) and y (B, k)."""
        if y is None:
            raise ValueError("decode(z) needs y of shape (B, k) beside it: decode(z, y=y)")
        return self._without_subspaces(z, y)

    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """The latents with another y_i; the decoder reads a number between or beyond as it is."""
        return latents.with_attribute(name, level(value, name, latents, self.encode))

    def class_points(self, latents: Latents) -> Tensor | None:
        """None: an edit needs no class means."""
        return None
