"""The conditional VAE whose z is kept from the attributes (Creswell et al., arXiv 1711.05175), the third baseline."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Independent

from csvae_hub import losses
from csvae_hub.config import ModelConfig
from csvae_hub.images import Preprocessor
from csvae_hub.models.conditional import ConditionalModel
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

    def forgetting(self, logits: Tensor, y: Tensor, share: Tensor | None) -> dict[str, Tensor]:
        """Minus the adversary's cross entropy."""
        return {"negative_cross_entropy": -losses.adversary(logits, y, share)}
