"""The conditional VAE (Sohn, Lee, Yan, NeurIPS 2015), the second of the paper's baselines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub.config import ModelConfig
from csvae_hub.images import Preprocessor
from csvae_hub.models.conditional import ConditionalModel
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

    def q_z_given(self, features: Tensor, y: Tensor) -> Independent:
        """q(z | x, y) for features (B, features) and y (B, k)."""
        return self.q_z(torch.cat([features, y.to(features)], 1))
