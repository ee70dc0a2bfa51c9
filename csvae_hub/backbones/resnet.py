"""The residual backbone."""

from __future__ import annotations

from torch import nn

from csvae_hub.backbones.image import ImageBackbone
from csvae_hub.backbones.layers import ResidualBlock
from csvae_hub.backbones.registry import register_backbone


@register_backbone("resnet")
class ResNetBackbone(ImageBackbone):
    """`depth` residual blocks in each stage, after the convolution that changes the size."""

    def extra_blocks(self, channels: int, condition_dim: int) -> list[nn.Module]:
        """The stage's residual blocks."""
        return [ResidualBlock(channels, condition_dim=condition_dim) for _ in range(self.config.depth)]
