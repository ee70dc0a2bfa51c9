"""Layers that the image backbones share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csvae_hub.backbones.folding import Fold, doubled


def stage_widths(width: int, stages: int) -> list[int]:
    """Channels of each stage, from the largest map down: doubled at every halving, at most 8 × width."""
    return [width * min(2**i, 8) for i in range(stages)]


class Modulation(nn.Module):
    """Per-channel scale and shift from a condition (FiLM, Perez et al. 2018); the identity at the start."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_dim, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Feature map x (B, C, H, W) and condition (B, condition_dim) to (B, C, H, W)."""
        scale, shift = self.linear(condition)[..., None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


class ConvBlock(nn.Module):
    """3×3 convolution, batch norm, optional modulation, SiLU; `stride` 2 halves, `upsample` doubles the side."""

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, upsample: bool = False, condition_dim: int = 0
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.fold = Fold(upsample)
        self.modulation = Modulation(condition_dim, outputs) if condition_dim else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Feature map (B, inputs, H, W) to (B, outputs, H', W')."""
        folded = self.fold(self.conv, self.norm, x)
        h = self.norm(self.conv(doubled(x) if self.upsample else x)) if folded is None else folded
        if self.modulation is not None and condition is not None:
            h = self.modulation(h, condition)
        return F.silu(h, inplace=folded is not None)


class ResidualBlock(nn.Module):
    """x + two 3×3 convolutions with batch norm; the second norm starts at zero, so the block starts as the identity."""

    def __init__(self, channels: int, *, condition_dim: int = 0) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, condition_dim=condition_dim)
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)
        self.fold = Fold()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Feature map (B, C, H, W) to the same shape."""
        h = self.first(x, condition)
        folded = self.fold(self.conv, self.norm, h)
        return x + self.norm(self.conv(h)) if folded is None else folded.add_(x)
