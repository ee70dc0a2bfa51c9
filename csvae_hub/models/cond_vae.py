"""The conditional VAE (Sohn, Lee, Yan, NeurIPS 2015), the second of the paper's baselines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub.config import ModelConfig
from csvae_hub.distributions import draw
from csvae_hub.images import Preprocessor
from csvae_hub.models.base import Output
from csvae_hub.models.conditional import ConditionalModel
from csvae_hub.models.latents import Latents
from csvae_hub.networks import PosteriorZ


class CondVAE(ConditionalModel):
    """q(z | x, y) and p(x | z, y): encoder and decoder are told the attributes.

    y enters the encoder beside the features of x, as it does in `CSVAE`'s q(w | x, y).
    """

    name = "cond-vae"

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        inputs = config.backbone.features + len(config.attributes)
        self.q_z = PosteriorZ(inputs, config.z_dim, min_scale=config.min_scale)
        self.q_y = self._attribute_head()

    def posterior_z(self, x: Tensor, y: Tensor) -> Independent:
        """q(z | x, y) for x (B, *shape), y (B, k): event (z_dim,)."""
        return self.q_z_given(self.backbone.encode(x), y)

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Output:
        """Encodes x (B, *shape) in [0, 1] with y (B, k), 0, 1 or NaN, samples z and decodes."""
        features = self.features(x)
        logits = self.q_y(features)
        y = self._filled(y, logits)
        q_z = self.q_z_given(features, y)
        z = draw(q_z, generator)
        return Output(q_z, self.likelihood(self._decoded(z, y)), z, y, logits)

    def latents_of(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, features), with q(y | x)'s answer where y is None or NaN."""
        y = self._filled(y, self.q_y(features))
        q_z = self.q_z_given(features, y)
        return self._without_subspaces(draw(q_z, generator) if sample else q_z.mean, y)

    def q_z_given(self, features: Tensor, y: Tensor) -> Independent:
        """q(z | x, y) for features (B, features) and y (B, k)."""
        return self.q_z(torch.cat([features, y.to(features)], 1))
