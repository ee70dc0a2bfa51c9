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
    """The names that `BackboneConfig.name` may take, sorted.

    Warns:
        UserWarning: an installed package offers a backbone that can't be used; it is left out.
    """
    offered = _offered()
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
    """Gives the class that `config.name` names.

    A name that isn't registered is looked for among the entry points of installed packages. A config can't make
    anything else be imported.

    Raises:
        ConfigError: no such backbone, or the package that brings it is missing, another or broken.
    """
    name = config.name
    if name not in _BACKBONES:
        offered = _offered()
        if name not in offered.names:
            raise _unknown(config, {*_BACKBONES, *offered.names})
        _load(name, offered)
    package = package_of(name)
    if config.package and package and _same(config.package) != _same(package):
        raise ConfigError(
            f"backbone {name!r}: expected that of package {config.package!r}, got that of {package!r}, which is"
            f" installed here: uninstall {package} and install {config.package}"
        )
    return _BACKBONES[name]


def package_of(name: str) -> str:
    """The installed package whose entry point gives a backbone; "" for csvae-hub's own and for no package."""
    cls = _BACKBONES.get(name)
    if cls is not None and cls.__module__.startswith("csvae_hub.backbones."):
        return ""
    entries = [entry for entry in _offered().select(name=name) if cls is None or _gives(entry, cls)]
    return _package(entries[0]) if len(entries) == 1 else ""


def with_package(config: BackboneConfig) -> BackboneConfig:
    """The config with the name of the package that brings its backbone, so that saved weights can tell who lacks it."""
    return replace(config, package=config.package or package_of(config.name))


def _offered() -> EntryPoints:
    return entry_points(group=GROUP)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def _gives(entry: EntryPoint, cls: type[Backbone]) -> bool:
    """Whether an entry point stands for a class; nothing is imported for the answer."""
    found: object = sys.modules.get(entry.module)
    for name in entry.attr.split("."):
        found = getattr(found, name, None)
    return found is cls


def _same(package: str) -> str:
    """A package's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _load(name: str, offered: EntryPoints) -> None:
    """Registers the backbone that an entry point gives; on an error the registry is left as it was.

    Raises:
        ConfigError: two packages offer the name, it is taken, or loading fails; the package is named.
    """
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


def _unknown(config: BackboneConfig, known: set[str]) -> ConfigError:
    if config.package:
        return ConfigError(
            f"backbone {shown(config.name)} comes with the package {config.package!r}, which is not installed here."
            f" If you trust it: pip install {config.package}"
        )
    return ConfigError(
        f"unknown backbone {shown(config.name)}:{did_you_mean(config.name, known)} Known: {', '.join(sorted(known))}"
    )
