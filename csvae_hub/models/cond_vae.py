"""The conditional VAE (Sohn, Lee, Yan, NeurIPS 2015), the second of the paper's baselines."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Independent

from csvae_hub.config import ModelConfig
from csvae_hub.images import Preprocessor
from csvae_hub.models.conditional import ConditionalModel


class CondVAE(ConditionalModel):
    """q(z | x, y) and p(x | z, y): encoder and decoder read the attributes.

    The encoder reads y beside the features of x, as q(w | x, y) of `CSVAE` does.
    """

    name = "cond-vae"

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        self.q_z = self._posterior_z_net(told=True)

    def penalty_on_z(self, q_y: Independent, y: Tensor, base_rate: Tensor | None) -> dict[str, Tensor]:
        """Nothing: there is no adversary."""
        return {}
