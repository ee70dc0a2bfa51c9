"""The fully connected backbone, for vectors and for small images."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from csvae_hub.backbones.base import Backbone
from csvae_hub.backbones.registry import register_backbone
from csvae_hub.config import BackboneConfig


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU between them and none at the end."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@register_backbone("mlp")
class MLPBackbone(Backbone):
    """`depth` hidden layers of `width` units on either side; images are flattened. FiLM has no effect."""

    def __init__(self, shape: tuple[int, ...], z_dim: int, condition_dim: int, config: BackboneConfig) -> None:
        super().__init__(shape, z_dim, condition_dim, config)
        hidden = [config.width] * config.depth
        self.encoder = nn.Sequential(mlp(math.prod(shape), *hidden, config.features), nn.ReLU())
        self.decoder = mlp(z_dim + condition_dim, *hidden, math.prod(shape))

    def encode(self, x: Tensor) -> Tensor:
        """Features (B, config.features) of x (B, *shape)."""
        return self.encoder(x.flatten(1))

    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """From z (B, z_dim) and condition (B, condition_dim) to unbounded values (B, *shape)."""
        return self.decoder(torch.cat([z, condition], 1)).unflatten(1, self.shape)
