"""Backbones: the two halves of a model that know about the kind of data, behind one registry."""

from csvae_hub.backbones.base import Backbone
from csvae_hub.backbones.conv import ConvBackbone
from csvae_hub.backbones.mlp import MLPBackbone
from csvae_hub.backbones.registry import create_backbone, find_backbone, list_backbones, register_backbone, with_package
from csvae_hub.backbones.resnet import ResNetBackbone

__all__ = [
    "Backbone",
    "ConvBackbone",
    "MLPBackbone",
    "ResNetBackbone",
    "create_backbone",
    "find_backbone",
    "list_backbones",
    "register_backbone",
    "with_package",
]
