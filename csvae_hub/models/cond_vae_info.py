"""The conditional VAE whose z is kept from the attributes (Creswell et al., arXiv 1711.05175), the third baseline."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub import losses
from csvae_hub.config import ModelConfig
from csvae_hub.distributions import draw
from csvae_hub.images import Preprocessor
from csvae_hub.models.base import Output
from csvae_hub.models.conditional import ConditionalModel
from csvae_hub.models.latents import Latents
from csvae_hub.networks import Adversary, PosteriorZ


class CondVAEInfo(ConditionalModel):
    """q(z | x) and p(x | z, y), with an adversary r(y | z) whose cross entropy the encoder raises."""

    name = "cond-vae-info"

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        k = len(config.attributes)
        self.q_z = PosteriorZ(config.backbone.features, config.z_dim, k, flow=config.flow, min_scale=config.min_scale)
        self.q_y = self._attribute_head()
        self.adversary_net = Adversary(config.z_dim, k, config.adversary_width, config.adversary_depth)

    def posterior_z(self, x: Tensor, y: Tensor | None = None) -> Independent:
        """q(z | x) for x (B, *shape): event (z_dim,). A flow is told y (B, k), or q(y | x)'s answer."""
        features = self.backbone.encode(x)
        return self.q_z_given(features, self._filled(y, self.q_y(features)))

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Output:
        """Encodes x (B, *shape) in [0, 1], samples z and decodes it with y (B, k), 0, 1 or NaN."""
        features = self.features(x)
        logits = self.q_y(features)
        y = self._filled(y, logits)
        q_z = self.q_z(features, y)
        z = draw(q_z, generator)
        return Output(q_z, self.likelihood(self._decoded(z, y)), z, y, logits)

    def forgetting(self, logits: Tensor, y: Tensor, share: Tensor | None) -> dict[str, Tensor]:
        """Minus the adversary's cross entropy."""
        return {"negative_cross_entropy": -losses.adversary(logits, y, share)}

    def latents_of(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, features), with q(y | x)'s answer where y is None or NaN."""
        y = self._filled(y, self.q_y(features))
        q_z = self.q_z_given(features, y)
        return self._without_subspaces(draw(q_z, generator) if sample else q_z.mean, y)
