"""The abstract backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from csvae_hub.config import BackboneConfig


class Backbone(nn.Module, ABC):
    """An encoder trunk x → features and a decoder (z, condition) → x before its last squashing.

    Args:
        shape: of one x: (C, H, W) or (D,).
        z_dim: size of z.
        condition_dim: size of what the decoder is told beside z (w flattened, or y); 0 for none.
        config: width, depth, features and whether the condition modulates every decoder layer (FiLM).
    """

    map_channels = 0
    """Channels of the map that `encode` adds for a z with a grid, in a backbone that takes `z_grid`."""

    def __init__(self, shape: tuple[int, ...], z_dim: int, condition_dim: int, config: BackboneConfig) -> None:
        super().__init__()
        self.shape = shape
        self.z_dim = z_dim
        self.condition_dim = condition_dim
        self.config = config

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Features (B, config.features) of x (B, *shape) in [0, 1] (images) or any range (vectors).

        A backbone whose constructor takes a fifth argument `z_grid` (side of z's grid, 1 for a vector) appends for a
        grid a map (map_channels, z_grid, z_grid), flattened, and reads z as (z_dim / z_grid², z_grid, z_grid).
        """

    @abstractmethod
    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """From z (B, z_dim) and condition (B, condition_dim) to unbounded values (B, *shape)."""
