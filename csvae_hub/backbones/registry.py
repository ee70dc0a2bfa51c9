"""The registry of backbones: names to classes, added to by a decorator or by an installed package's entry point."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TypeVar

from csvae_hub.backbones.base import Backbone
from csvae_hub.config import BackboneConfig, check, shown
from csvae_hub.errors import ConfigError, did_you_mean

GROUP = "csvae_hub.backbones"
"""The entry-point group in which an installed package offers backbones: a name and the class."""

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
        if not (isinstance(cls, type) and issubclass(cls, Backbone)):
            raise ValueError(f"backbone {name!r}: expected a subclass of csvae_hub.backbones.Backbone, got {cls!r}")
        _BACKBONES[name] = cls
        return cls

    return add


def list_backbones() -> list[str]:
    """Gives the names that `BackboneConfig.name` may take, sorted. Warns of an installed one that can't be used."""
    offered = entry_points(group=GROUP)
    for name in sorted(offered.names):
        try:
            _load(name, offered)
        except ConfigError as error:
            warnings.warn(str(error), stacklevel=2)
    return sorted(_BACKBONES)


def create_backbone(
    config: BackboneConfig, shape: tuple[int, ...], z_dim: int, condition_dim: int, z_grid: int = 1
) -> Backbone:
    """Builds the backbone that `config.name` names for data of one shape.

    Raises:
        ConfigError: `find_backbone` finds none, or the backbone doesn't take data of this shape or a z with a grid.
    """
    cls = find_backbone(config)
    if z_grid == 1:
        return cls(shape, z_dim, condition_dim, config)
    check("z_grid" in inspect.signature(cls).parameters, "z_grid", f"1 for backbone {config.name!r}", z_grid)
    return cls(shape, z_dim, condition_dim, config, z_grid)  # pyright: ignore[reportCallIssue]


def find_backbone(config: BackboneConfig) -> type[Backbone]:
    """Gives the class that `config.name` names: a registered one, or that of an installed package's entry point.

    Raises:
        ConfigError: no such backbone, or the package that brings it is missing, another or broken.
    """
    name = config.name
    if name not in _BACKBONES:
        offered = entry_points(group=GROUP)
        if name not in offered.names:
            if config.package:
                raise ConfigError(
                    f"backbone {shown(name)} comes with the package {config.package!r}, which is not installed here."
                    f" If you trust it: pip install {config.package}"
                )
            known = {*_BACKBONES, *offered.names}
            raise ConfigError(
                f"unknown backbone {shown(name)}:{did_you_mean(name, known)} Known: {', '.join(sorted(known))}"
            )
        _load(name, offered)
    package = package_of(name)
    one, other = (re.sub(r"[-_.]+", "-", each).lower() for each in (config.package, package))  # as the index compares
    if one and other and one != other:
        raise ConfigError(
            f"backbone {name!r}: expected that of package {config.package!r}, got that of {package!r}, which is"
            f" installed here: uninstall {package} and install {config.package}"
        )
    return _BACKBONES[name]


def package_of(name: str) -> str:
    """Gives the package whose entry point is a backbone; "" for csvae-hub's own and for none. Imports nothing."""
    cls = _BACKBONES.get(name)
    if cls is not None and cls.__module__.startswith("csvae_hub.backbones."):
        return ""
    entries = entry_points(group=GROUP, name=name)
    if cls is not None:
        entries = [entry for entry in entries if _loaded(entry) is cls]
    packages = [_package(entry) for entry in entries]
    return packages[0] if len(packages) == 1 else ""


def with_package(config: BackboneConfig) -> BackboneConfig:
    """Gives the config with the package that brings its backbone, so that saved weights can name it to who lacks it."""
    return replace(config, package=config.package or package_of(config.name))


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def _loaded(entry: EntryPoint) -> object:
    """The object of an entry point, if its module is imported already."""
    found: object = sys.modules.get(entry.module)
    for name in entry.attr.split("."):
        found = getattr(found, name, None)
    return found


def _load(name: str, offered: EntryPoints) -> None:
    """Registers the backbone of an entry point; on an error the registry is left as it was."""
    entries = offered.select(name=name)
    packages = sorted(_package(entry) for entry in entries)
    if len(packages) > 1:
        raise ConfigError(f"backbone {name!r} is offered by {' and '.join(packages)}: uninstall all but one of them")
    before = dict(_BACKBONES)
    try:
        cls = entries[name].load()
        if _BACKBONES.get(name) is not cls:  # the module may use the decorator besides
            register_backbone(name)(cls)
    except Exception as error:
        _BACKBONES.clear()
        _BACKBONES.update(before)
        raise ConfigError(
            f"backbone {name!r} of package {packages[0]!r} can't be loaded ({type(error).__name__}: {error}):"
            f" upgrade or uninstall {packages[0]}"
        ) from error
