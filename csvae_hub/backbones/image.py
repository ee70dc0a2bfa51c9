"""The frame of the image backbones: halving stages to a map of 4 to 7 pixels, a linear layer, and the way back."""

from __future__ import annotations

import itertools
from abc import abstractmethod

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from csvae_hub.backbones.base import Backbone
from csvae_hub.backbones.layers import ConvBlock, stage_widths
from csvae_hub.config import BackboneConfig, check, stage_sizes


class ImageBackbone(Backbone):
    """Encoder and decoder for square images; a subclass says what each stage holds beside its change of size.

    With a grid of z the stages below it are bare: they serve the features alone. The decoder begins with a stage at it.
    The last doubling is a pixel shuffle (Shi et al. 2016): convolutions at full resolution would take most of the time.
    """

    def __init__(
        self, shape: tuple[int, ...], z_dim: int, condition_dim: int, config: BackboneConfig, z_grid: int = 1
    ) -> None:
        super().__init__(shape, z_dim, condition_dim, config)
        check(len(shape) == 3, "shape", f"(C, H, W) for backbone {config.name!r}", shape)
        sizes = stage_sizes(shape[-1])
        down = stage_widths(config.width, len(sizes))
        up = [max(width, 2 * config.width) for width in down][::-1]
        film = condition_dim if config.film else 0
        self.z_grid, self.smallest = z_grid, sizes[-1]
        self.map_channels = down[sizes.index(z_grid)] if z_grid > 1 else 0
        self.down = nn.ModuleList()
        for inputs, outputs, side in zip([shape[0], *down], down, sizes, strict=False):
            self.down.append(ConvBlock(inputs, outputs, stride=2))
            self.down.extend(self.extra_blocks(outputs, 0) if side >= z_grid else [])
        self.features = nn.Linear(down[-1] * self.smallest**2, config.features)
        self.features_norm = nn.BatchNorm1d(config.features)
        if z_grid > 1:
            up = up[sizes[::-1].index(z_grid) :]
            self.start = nn.Conv2d(z_dim // z_grid**2 + condition_dim, up[0], 1)
        else:
            self.start = nn.Linear(z_dim + condition_dim, up[0] * self.smallest**2)
        self.start_block = ConvBlock(up[0], up[0], condition_dim=film)
        self.up = nn.ModuleList(self.extra_blocks(up[0], film) if z_grid > 1 else [])
        for inputs, outputs in itertools.pairwise(up):
            self.up.append(ConvBlock(inputs, outputs, upsample=True, condition_dim=film))
            self.up.extend(self.extra_blocks(outputs, film))
        self.pixels = nn.Conv2d(up[-1], 4 * shape[0], 3, 1, 1)

    @abstractmethod
    def extra_blocks(self, channels: int, condition_dim: int) -> list[nn.Module]:
        """The blocks of one stage after its halving or doubling: called as `block(x, condition)`, keeping the shape."""

    def encode(self, x: Tensor) -> Tensor:
        """Features (B, config.features) of images (B, C, H, W) in [0, 1]; with a grid, the map of its size behind."""
        h, maps = (2 * x).sub_(1), []
        for block in self.down:
            h = block(h)
            maps = [h] if h.shape[-1] == self.z_grid else maps
        features = F.silu(self.features_norm(self.features(h.flatten(1))))
        return torch.cat([features, *(m.flatten(1) for m in maps)], 1) if maps else features

    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """From z (B, z_dim) and condition (B, condition_dim) to unbounded pixels (B, C, H, W)."""
        side = self.z_grid
        if side > 1:
            places = rearrange(z, "b (c h w) -> b c h w", h=side, w=side)
            h = self.start(torch.cat([places, repeat(condition, "b d -> b d h w", h=side, w=side)], 1))
        else:
            h = rearrange(
                self.start(torch.cat([z, condition], 1)), "b (c h w) -> b c h w", h=self.smallest, w=self.smallest
            )
        h = self.start_block(h, condition)
        for block in self.up:
            h = block(h, condition)
        return F.pixel_shuffle(self.pixels(h), 2)
