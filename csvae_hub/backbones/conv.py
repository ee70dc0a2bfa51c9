"""The plain convolutional backbone (the paper's: convolutions with batch norm)."""

from __future__ import annotations

from torch import nn

from csvae_hub.backbones.image import ImageBackbone
from csvae_hub.backbones.layers import ConvBlock
from csvae_hub.backbones.registry import register_backbone


@register_backbone("conv")
class ConvBackbone(ImageBackbone):
    """`depth` 3×3 convolutions in each stage."""

    def extra_blocks(self, channels: int, condition_dim: int) -> list[nn.Module]:
        """The `depth - 1` convolutions after the one that changes the size."""
        return [ConvBlock(channels, channels, condition_dim=condition_dim) for _ in range(self.config.depth - 1)]
