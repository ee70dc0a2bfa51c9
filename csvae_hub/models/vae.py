"""The plain VAE (Kingma and Welling, arXiv 1312.6114), the first of the paper's baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub.config import ModelConfig
from csvae_hub.distributions import draw
from csvae_hub.images import Preprocessor
from csvae_hub.models import class_means
from csvae_hub.models.base import AttributeModel, Output, Value
from csvae_hub.models.latents import Latents
from csvae_hub.models.values import level
from csvae_hub.networks import PosteriorZ


class VAE(AttributeModel):
    """q(z | x) and p(x | z): nothing is told the attributes.

    An attribute is changed by adding the difference of the two class means of z (ours: the usual attribute vector).
    `class_means` (k, 2, z_dim) are these means of E[z | x] over the training data; running means while training.
    """

    name = "vae"
    class_means: Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        self.q_z = PosteriorZ(config.backbone.features, config.z_dim, min_scale=config.min_scale)
        self.q_y = self._attribute_head()
        self.register_buffer("class_means", torch.zeros(len(config.attributes), 2, config.z_dim))

    @staticmethod
    def condition_dim(config: ModelConfig) -> int:
        """Nothing."""
        return 0

    def posterior_z(self, x: Tensor) -> Independent:
        """q(z | x) for x (B, *shape): event (z_dim,)."""
        return self.q_z(self.backbone.encode(x))

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Output:
        """Encodes x (B, *shape), samples z and decodes; y (B, k) is for the classifier and the class means alone."""
        features = self.features(x)
        logits, q_z = self.q_y(features), self.q_z(features)
        z = draw(q_z, generator)
        return Output(q_z, self.likelihood(self._picture(z)), z, self._filled(y, logits), logits)

    def bound(self, out: Output, x: Tensor) -> dict[str, Tensor]:
        """Reconstruction and kl_z: minus their sum bounds log p(x)."""
        return self._plain_bound(out, x)

    def observe(self, out: Output) -> None:
        """Keeps the running class means."""
        class_means.observe(self.class_means, out.q_z.mean.detach()[:, None], out.y)

    @torch.no_grad()
    def settle(self, batches: Iterable[tuple[Tensor, Tensor]], clear: bool = False) -> None:
        """Sets the class means of z by all batches; gaps in y are filled in by q(y | x)."""
        self.eval()
        means, attributes = [], []
        for x, y in batches:
            features = self.backbone.encode(x)
            means.append(self.q_z(features).mean)
            attributes.append(self._filled(y, self.q_y(features)))
        class_means.observe(self.class_means, torch.cat(means)[:, None], torch.cat(attributes), momentum=1.0)

    def latents_of(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, features), with q(y | x)'s answer where y is None or NaN."""
        q_z = self.q_z(features)
        z = draw(q_z, generator) if sample else q_z.mean
        return self._without_subspaces(z, self._filled(y, self.q_y(features)))

    def decode_tensor(self, latents: Latents) -> Tensor:
        """E p(x | z): (B, *shape)."""
        return self._picture(latents.z)

    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """Z moved along the attribute's vector, from the y_i that the latents have to the wished one."""
        i, wished = self.index(name), level(value, name, latents, self.encode)
        absent, present = self.class_means[i].to(latents.z)
        step = (wished - latents.y[:, i]).nan_to_num()[:, None] * (present - absent)
        return dataclasses.replace(latents.with_attribute(name, wished), z=latents.z + step)

    def sample_latents(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Latents:
        """Z from N(0, I); which attributes come out is not known.

        Raises:
            ValueError: y is given.
        """
        if y is not None:
            raise ValueError("y: a VAE can't be told attributes: sample(n), then set_attribute on what comes out")
        z = torch.randn(n, self.config.z_dim, generator=generator).to(self.device)
        return self._without_subspaces(z, torch.full((n, len(self.attributes)), torch.nan, device=self.device))

    def _picture(self, z: Tensor) -> Tensor:
        return self._decoded(z, z.new_zeros(len(z), 0))
