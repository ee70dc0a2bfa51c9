"""An MLP-Mixer (Tolstikhin et al. 2021) as a backbone for csvae-hub."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csvae_hub.backbones import Backbone
from csvae_hub.config import BackboneConfig, check

PATCH = 8
"""Side of a patch, in pixels."""


class Mixing(nn.Module):
    """h (B, patches, width) to the same: an MLP across the patches, then one across the width, each added to h."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.across_patches = nn.Sequential(nn.Linear(patches, 64), nn.GELU(), nn.Linear(64, patches))
        self.across_width = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())

    def forward(self, h: Tensor) -> Tensor:
        """One step of mixing."""
        h = h + self.across_patches(h.transpose(1, 2)).transpose(1, 2)
        return h + self.across_width(h)


class MixerBackbone(Backbone):
    """8×8 patches of `width` numbers each, mixed `depth` times on either side."""

    def __init__(self, shape: tuple[int, ...], z_dim: int, condition_dim: int, config: BackboneConfig) -> None:
        super().__init__(shape, z_dim, condition_dim, config)
        check(len(shape) == 3, "shape", f"(C, H, W) for backbone {config.name!r}", shape)
        self.side = shape[-1] // PATCH
        patches, width = self.side**2, config.width
        self.cut = nn.Conv2d(shape[0], width, PATCH, PATCH)
        self.encoder = nn.Sequential(*[Mixing(patches, width) for _ in range(config.depth)])
        self.features = nn.Linear(patches * width, config.features)
        self.start = nn.Linear(z_dim + condition_dim, patches * width)
        self.decoder = nn.Sequential(*[Mixing(patches, width) for _ in range(config.depth)])
        self.paste = nn.ConvTranspose2d(width, shape[0], PATCH, PATCH)

    def encode(self, x: Tensor) -> Tensor:
        """Features (B, config.features) of images (B, C, H, W) in [0, 1]."""
        patches = self.cut(2 * x - 1).flatten(2).transpose(1, 2)
        return F.silu(self.features(self.encoder(patches).flatten(1)))

    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """From z (B, z_dim) and condition (B, condition_dim) to unbounded pixels (B, C, H, W)."""
        patches = self.start(torch.cat([z, condition], 1)).unflatten(1, (self.side**2, self.config.width))
        return self.paste(self.decoder(patches).transpose(1, 2).unflatten(2, (self.side, self.side)))
