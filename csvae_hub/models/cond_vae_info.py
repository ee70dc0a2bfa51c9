"""The conditional VAE with an adversary on z (Creswell et al., arXiv 1711.05175), the paper's third baseline."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Independent

from csvae_hub import losses
from csvae_hub.config import ModelConfig
from csvae_hub.images import Preprocessor
from csvae_hub.models.conditional import ConditionalModel


class CondVAEInfo(ConditionalModel):
    """q(z | x) and p(x | z, y), with an adversary r(y | z) whose cross entropy the encoder raises."""

    name = "cond-vae-info"

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        self.q_z = self._posterior_z_net(flow=config.flow)
        self.adversary_net = self._adversary_net()

    def penalty_on_z(self, q_y: Independent, y: Tensor, base_rate: Tensor | None) -> dict[str, Tensor]:
        """Minus the adversary's cross entropy, in the place of the negative entropy."""
        return {"negative_cross_entropy": -losses.cross_entropy(q_y, y, base_rate)}
