"""The registry of backbones: names to classes, added to by a decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from csvae_hub.backbones.base import Backbone
from csvae_hub.config import BackboneConfig
from csvae_hub.errors import ConfigError, did_you_mean

_BACKBONES: dict[str, type[Backbone]] = {}
B = TypeVar("B", bound=type[Backbone])


def register_backbone(name: str) -> Callable[[B], B]:
    """Registers a `Backbone` class under a name: `@register_backbone("mine")`.

    Raises:
        ValueError: the name is taken, or the class is no `Backbone`; the registry is left as it was.
    """

    def add(cls: B) -> B:
        if name in _BACKBONES:
            raise ValueError(f"backbone {name!r} is taken by {_BACKBONES[name].__qualname__}: choose another name")
        if not issubclass(cls, Backbone):
            raise ValueError(f"backbone {name!r}: expected a subclass of csvae_hub.backbones.Backbone, got {cls!r}")
        _BACKBONES[name] = cls
        return cls

    return add


def list_backbones() -> list[str]:
    """The names that `BackboneConfig.name` may take, sorted."""
    return sorted(_BACKBONES)


def create_backbone(config: BackboneConfig, shape: tuple[int, ...], z_dim: int, condition_dim: int) -> Backbone:
    """Builds the backbone that `config.name` names for data of one shape.

    Raises:
        ConfigError: no such backbone, or one that doesn't take data of this shape.
    """
    if config.name not in _BACKBONES:
        known = ", ".join(list_backbones())
        raise ConfigError(f"unknown backbone {config.name!r}:{did_you_mean(config.name, _BACKBONES)} Known: {known}")
    return _BACKBONES[config.name](shape, z_dim, condition_dim, config)
