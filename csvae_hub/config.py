"""Configuration as frozen dataclasses: JSON in and out, every field checked on the way in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from csvae_hub.errors import ConfigError, did_you_mean
from csvae_hub.text import is_printable

FORMAT_VERSION = 1
MAX_PARAMETER_SIZE = 4096
"""Upper bound of a width or a latent size: a config from a stranger can't ask for more."""
MAX_ATTRIBUTES, MAX_DEPTH = 1024, 64
"""Upper bounds of the number of attributes and of layers in a row; each of them takes time, however small it is."""

T = TypeVar("T")


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """Builds a frozen dataclass from plain JSON types, strictly.

    Nested dataclasses, `tuple[X, ...]`, `dict[str, X]` and optional fields are followed.

    Raises:
        ConfigError: an unknown key, a missing key or a value of the wrong type; the field is named.
    """
    if not isinstance(values, Mapping):
        place = shortened(where) or cls.__name__
        raise ConfigError(f"{place}: expected an object of named fields, got {type(values).__name__}")
    mapping = typing.cast("Mapping[Any, Any]", values)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    prefix = f"{where}." if where else ""
    for key in mapping:
        if key not in fields:
            remedy = did_you_mean(str(key), fields) or " remove it."
            raise ConfigError(f"unknown key {shown(f'{prefix}{key}')}:{remedy} Known here: {', '.join(fields)}")
    for name, f in fields.items():
        if name not in mapping and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"missing key {shown(prefix + name)}: {cls.__name__} can't do without it")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in mapping.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """Gives a dataclass as plain JSON types: the inverse of `from_dict`."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        *options, last = [a for a in arguments if a is not type(None)]
        if value is None and type(None) in arguments:
            return None
        for option in options:
            with contextlib.suppress(ConfigError):
                return _convert(option, value, path)
        return _convert(last, value, path)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, typing.cast(type, hint)) else from_dict(typing.cast(Any, hint), value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{shortened(path)}: expected a list, got {shown(value)}")
        values = typing.cast("list[Any]", value)
        kinds = arguments[:1] * len(values) if arguments[1:] == (Ellipsis,) else arguments
        if len(values) != len(kinds):
            raise ConfigError(f"{shortened(path)}: expected {len(kinds)} values, got {len(values)}")
        return tuple(_convert(kind, v, f"{path}[{i}]") for i, (kind, v) in enumerate(zip(kinds, values, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{shortened(path)}: expected an object of named fields, got {shown(value)}")
        mapping = typing.cast("Mapping[Any, Any]", value)
        return {str(k): _convert(arguments[1], v, f"{path}.{k}") for k, v in mapping.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            got = f"a whole number of {value.bit_length()} bits"
            raise ConfigError(f"{shortened(path)}: expected a float, got {got}") from None
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ConfigError(f"{shortened(path)}: expected {hint.__name__}, got {shown(value)}")


def check(condition: bool, field_name: str, expected: str, got: object) -> None:
    """Raises `ConfigError` naming the field, what was expected and what came, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{shortened(field_name)}: expected {shortened(expected, 1000)}, got {shown(got)}")


def check_weights(weights: object, where: str) -> None:
    """Raises `ConfigError` unless each number of a dataclass is finite and 0 or more."""
    for name, value in vars(weights).items():
        if isinstance(value, int | float):
            check(0 <= value < float("inf"), f"{where}.{name}", "a number of 0 or more", value)


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, 200, 200, 100
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = 20


def stage_sizes(image_size: int) -> list[int]:
    """Sides of the feature maps of an encoder, largest first: half the image down to 4, 5, 6 or 7 pixels.

    Empty where the image doesn't halve down to one of them.

    >>> stage_sizes(64), stage_sizes(48), stage_sizes(30)
    ([32, 16, 8, 4], [24, 12, 6], [])
    """
    sizes: list[int] = []
    while image_size > 7 and image_size % 2 == 0:
        image_size //= 2
        sizes.append(image_size)
    return sizes if sizes and sizes[-1] in (4, 5, 6, 7) else []


def shown(value: object) -> str:
    """The repr of a value for an error, at most 300 characters of it: a stranger's file may hold megabytes.

    >>> shown("Smiling"), len(shown("a" * 10**6))
    ("'Smiling'", 200)
    """
    return shortened(_REPR.repr(value))


def shortened(text: str, most: int = 300) -> str:
    """A text, or its beginning where it is long.

    >>> shortened("a name"), shortened("a name", 3)
    ('a name', 'a n…')
    """
    return text if len(text) <= most else f"{text[:most]}…"


@dataclass(frozen=True)
class AttributePrior:
    """p(w_i | y_i): a diagonal Gaussian for each class of one attribute, the same in each of its `w_dim` coordinates.

    The default, N(0, 0.1²) when absent and N(3, 1) when present, is ours (METHOD: room for the kinds of an attribute).
    """

    absent_loc: float = 0.0
    absent_scale: float = 0.1
    present_loc: float = 3.0
    present_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            positive = name.endswith("scale")
            expected = "a positive number" if positive else "a finite number"
            check(abs(value) < float("inf") and not (positive and value <= 0), f"priors.{name}", expected, value)


@dataclass(frozen=True)
class BackboneConfig:
    """The name of the registered backbone that carries encoder and decoder, and its options.

    `package` is the distribution that brings a backbone from outside csvae-hub; a model fills it in.
    """

    name: str = "conv"
    width: int = 32
    depth: int = 1
    features: int = 512
    film: bool = False
    package: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        is_name = re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)?", self.package) is not None
        check(is_name, "backbone.package", "the name of a package, or nothing", self.package)
        widths = (1, MAX_PARAMETER_SIZE)
        for name, (lowest, most) in {"width": widths, "depth": (0, MAX_DEPTH), "features": widths}.items():
            value = getattr(self, name)
            check(lowest <= value <= most, f"backbone.{name}", f"{lowest} to {most}", value)


@dataclass(frozen=True)
class LikelihoodConfig:
    """p(x | w, z): `gaussian` or `laplace` of a fixed scale in units of x, or `bernoulli`."""

    name: str = "gaussian"
    scale: float = 0.1414213562

    def __post_init__(self) -> None:
        known = self.name in ("gaussian", "laplace", "bernoulli")
        check(known, "likelihood.name", "gaussian, laplace or bernoulli", self.name)
        check(0 < self.scale < float("inf"), "likelihood.scale", "a positive number", self.scale)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is needed to build a model before its weights are read.

    `shape` is (C, H, W) for images, with H = W of 16 to 256 pixels that halve down to 4, 5, 6 or 7, or (D,) for
    vectors. `adversary` holds the widths of the adversary's hidden layers. The rest is ours, and off by default: the
    default model is the paper's.

    exclusive: groups of attributes of which an example has exactly one.
    z_grid: side of the grid of z, which then is (z_dim / z_grid², z_grid, z_grid), flattened; 1 is a vector.
    residual: write q(w | x, y) as an offset from p(w | y) in units of its scale.
    correction: a hidden layer in the mean of q(z | x).
    erase: remove from E[z | x] what a linear probe reads of y (`LinearEraser`).
    flow: width of a `ConditionalFlow` that removes the rest, in models with an adversary; 0 for none.
    min_scale: lower bound of the scale of q(z | x); otherwise y can hide in nearly noise-free directions.
    """

    attributes: tuple[str, ...]
    model: str = "csvae"
    shape: tuple[int, ...] = (3, 64, 64)
    z_dim: int = 128
    z_grid: int = 1
    w_dim: int = 2
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    priors: dict[str, AttributePrior] = field(default_factory=dict[str, AttributePrior])
    learn_priors: bool = False
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    adversary: tuple[int, ...] = (256, 256)
    residual: bool = False
    correction: bool = False
    erase: bool = False
    flow: int = 0
    min_scale: float = 0.0
    exclusive: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.attributes)
        check(count > 0, "attributes", "at least one name", self.attributes)
        check(count <= MAX_ATTRIBUTES, "attributes", f"at most {MAX_ATTRIBUTES} names", count)
        check(all(self.attributes), "attributes", "names that are not empty", self.attributes)
        printed = "names without control characters or changes of writing direction"
        check(all(map(is_printable, self.attributes)), "attributes", printed, self.attributes)
        check(len(set(self.attributes)) == count, "attributes", "each name once", self.attributes)
        widths = ((f"adversary[{i}]", width) for i, width in enumerate(self.adversary))
        for name, value in (("z_dim", self.z_dim), ("w_dim", self.w_dim), *widths):
            check(1 <= value <= MAX_PARAMETER_SIZE, name, f"1 to {MAX_PARAMETER_SIZE}", value)
        check(len(self.adversary) <= 8, "adversary", "at most 8 layers", self.adversary)
        check(0 <= self.flow <= MAX_PARAMETER_SIZE, "flow", f"0 to {MAX_PARAMETER_SIZE}", self.flow)
        check(0 <= self.min_scale < 1, "min_scale", "0 or more, less than 1", self.min_scale)
        check(not self.flow or self.z_dim > 1, "flow", "0 where z_dim is 1", self.flow)
        check(not (self.flow and self.erase), "flow", "0 where erase is on: one of the two", self.flow)
        if self.is_image:
            check(self.shape[0] in (1, 3), "shape", "1 or 3 channels first", self.shape)
            square = self.shape[1] == self.shape[2] and 16 <= self.shape[1] <= 256 and stage_sizes(self.shape[1])
            check(
                bool(square), "shape", "(C, H, W) with H = W of 16 to 256 that halve down to 4, 5, 6 or 7", self.shape
            )
        else:
            check(len(self.shape) == 1, "shape", "(C, H, W) for images or (D,) for vectors", self.shape)
            check(1 <= self.shape[0] <= MAX_PARAMETER_SIZE, "shape", f"1 to {MAX_PARAMETER_SIZE} values", self.shape)
        if self.z_grid != 1:
            check(self.is_image, "z_grid", "1 for a model of vectors", self.z_grid)
            sides = stage_sizes(self.shape[-1])[::-1]
            check(self.z_grid in sides, "z_grid", f"1, or one of {sides}", self.z_grid)
            check(self.z_dim % self.z_grid**2 == 0, "z_dim", f"a multiple of z_grid² = {self.z_grid**2}", self.z_dim)
            check(not (self.flow or self.correction), "z_grid", "1 where flow or correction is on", self.z_grid)
        members = [name for group in self.exclusive for name in group]
        check(all(len(group) > 1 for group in self.exclusive), "exclusive", "two names or more", self.exclusive)
        check(len(set(members)) == len(members), "exclusive", "each name in one group, once", self.exclusive)
        unknown = [name for name in members if name not in self.attributes]
        check(not unknown, "exclusive", f"attributes of this model ({', '.join(self.attributes)})", unknown)
        if others := self.priors.keys() - set(self.attributes):
            check(False, "priors", f"attributes of this model ({', '.join(self.attributes)})", min(others))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The positions of the members of each exclusive group."""
        return tuple(tuple(map(self.attributes.index, group)) for group in self.exclusive)

    @property
    def is_image(self) -> bool:
        """True for images (C, H, W), False for vectors (D,)."""
        return len(self.shape) == 3

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels.

        Raises:
            ConfigError: the model takes vectors.
        """
        check(self.is_image, "shape", "(C, H, W): this model takes vectors, which have no image size", self.shape)
        return self.shape[-1]

    def prior(self, name: str) -> AttributePrior:
        """The prior of one attribute; the default where the config names none."""
        return self.priors.get(name, AttributePrior())
