"""The plain VAE (Kingma and Welling, arXiv 1312.6114), the first of the paper's baselines."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub.config import ModelConfig
from csvae_hub.distributions import draw
from csvae_hub.images import Preprocessor
from csvae_hub.models.base import Also, Output
from csvae_hub.models.editable import AttributeModel, Value
from csvae_hub.models.latents import Latents
from csvae_hub.models.values import level


class VAE(AttributeModel):
    """q(z | x) and p(x | z): nothing is told the attributes.

    An attribute is changed by adding the difference of the two class means of z (ours: the usual attribute vector).
    `class_means` (k, 2, z_dim) are these means of E[z | x] over the training data.
    """

    name = "vae"
    class_means: Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        self.q_z = self._posterior_z_net()
        self.register_buffer("class_means", torch.zeros(len(config.attributes), 2, config.z_dim))

    @staticmethod
    def condition_dim(config: ModelConfig) -> int:
        """Nothing."""
        return 0

    def posterior_z(self, x: Tensor) -> Independent:
        """q(z | x) for x (B, *shape): event (z_dim,)."""
        return self.q_z(self.backbone.encode(x))

    def p_x_given(self, latents: Latents) -> Independent:
        """p(x | z): event *shape."""
        return self.p_x(latents.z, latents.z.new_zeros(latents.z.shape[0], 0))

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None, also: Also = None) -> Output:
        """Encodes x (B, *shape), samples z and decodes; only the classifier reads y (B, k)."""
        features = self.backbone.encode(x)
        q_y, q_z = self.q_y(features), self.q_z(features)
        z, y = draw(q_z, generator), self._filled(y, q_y)
        p_x, others = self._decoded(self._without_subspaces(z, y), also)
        return Output(features, q_z, p_x, q_y, z, y, also=others)

    def bound(self, out: Output, x: Tensor) -> dict[str, Tensor]:
        """Reconstruction and kl_z: minus their sum bounds log p(x)."""
        return self._plain_bound(out, x)

    def penalty_on_z(self, q_y: Independent, y: Tensor, base_rate: Tensor | None) -> dict[str, Tensor]:
        """Nothing: there is no adversary."""
        return {}

    def posterior_latents(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, …), with the answer of q(y | x) where y is None or NaN."""
        q_z = self.q_z(features)
        z = draw(q_z, generator) if sample else q_z.mean
        return self._without_subspaces(z, self._filled(y, self.q_y(features)))

    def prior_latents(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Latents:
        """Z from N(0, I); its attributes are unknown.

        Raises:
            ValueError: y is given.
        """
        if y is not None:
            raise ValueError("y: a VAE can't be told attributes: sample(n), then set_attribute on what comes out")
        return self.latents_of_parts(self._sampled_z(n, generator), None, None)

    def latents_of_parts(self, z: Tensor, w: Tensor | None, y: Tensor | None) -> Latents:
        """Latents of z (B, z_dim) alone."""
        return self._without_subspaces(z, self._unknown(z) if y is None else y)

    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """Z moved along the attribute's vector, from the latents' y_i to the wished one."""
        i, wished = self.index(name), level(value, name, latents, self.encode)
        absent, present = self.class_means[i].to(latents.z)
        step = (wished - latents.y[:, i]).nan_to_num()[:, None] * (present - absent)
        return dataclasses.replace(latents.with_attribute(name, wished), z=latents.z + step)

    def class_points(self, latents: Latents) -> Tensor:
        """The points z, the same for each attribute: (B, 1, z_dim)."""
        return latents.z[:, None]
