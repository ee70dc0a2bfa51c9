"""The errors of the library, with the words that help a user out: expected, got, remedy."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class FramingWarning(UserWarning):
    """A picture whose face is not framed as in training, or that has none."""


class ImageError(ValueError):
    """A picture that cannot be read, or whose shape, type or range cannot be right."""


class FaceError(ImageError):
    """A photo without a face that can be edited, or landmarks that can't be those of one."""


class NoFaceError(FaceError):
    """A photo in which no face is found."""


class UnknownAttributeError(ValueError):
    """An attribute that a model or a data set does not have; `unknown_attribute` words it."""


class ConfigError(ValueError):
    """A field of a config that is unknown, of the wrong type or out of range."""


class TrainingError(ConfigError, FloatingPointError):
    """A run whose losses or weights are no longer finite: its options are too bold for its data.

    `examples` are the files, or else the rows, of the first batch of that kind, where a batch is to blame.
    """

    examples: tuple[str, ...] = ()


class DataError(ValueError):
    """A data set with something missing or contradictory."""


class WeightsError(OSError):
    """A weights folder that cannot be used; each reason has a subclass."""


class UnknownModelError(WeightsError):
    """A name that is neither a folder, nor a packaged model, nor a Hub repo."""


class MissingWeightsError(WeightsError):
    """A weights folder or Hub repo without one of its files."""


class CorruptWeightsError(WeightsError):
    """A file that is truncated or is not what its name says."""


class NonFiniteWeightsError(CorruptWeightsError):
    """Weights that hold NaN or infinity."""


class UnsafeWeightsError(WeightsError):
    """A file that leads out of its folder, by a symbolic link or by its name."""


class WeightsMismatchError(WeightsError):
    """Tensors whose names, shapes or types are not those of the model that the config describes."""


class WeightsVersionError(WeightsError):
    """A weights folder written in a format that this version of the library does not know."""


class HubError(WeightsError):
    """A Hub repo that cannot be read or written; each reason that is known has a subclass."""


class HubRepoNotFoundError(HubError, UnknownModelError):
    """A repo that is not on the Hub, or is private and hidden from this token."""


class HubGatedRepoError(HubError):
    """A gated repo; access was not granted."""


class HubRevisionNotFoundError(HubError):
    """A branch, tag or commit that a repo does not have."""


class HubOfflineError(HubError):
    """Files that are not in the cache while the network may not be used."""


class HubTokenError(HubError):
    """A token that is missing, wrong or without the right that is needed."""


class HubConnectionError(HubError):
    """A Hub that cannot be reached, is too slow, or breaks off; trying again may help."""


class CardError(ValueError):
    """A model card whose front matter cannot be read."""


class ExportError(ValueError):
    """A model that can't be exported, or whose exported graphs don't compute what it does."""


class MissingExtraError(ImportError):
    """A package that an optional extra brings, and that is not installed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Gives " did you mean 'X'?" for the known name nearest to this one whatever its case, or "" where none is near.

    >>> did_you_mean("eyeglases", ["Smiling", "Eyeglasses"])
    " did you mean 'Eyeglasses'?"
    """
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return f" did you mean {by_lower_case[near[0]]!r}?" if near else ""


def unknown_attribute(name: str, known: Iterable[str], owner: str = "This model") -> UnknownAttributeError:
    """Gives the error, ready to be raised, for an attribute that the owner does not know.

    >>> str(unknown_attribute("Eyeglases", ["Eyeglasses", "Smiling"]))
    "unknown attribute 'Eyeglases': did you mean 'Eyeglasses'? This model knows: Eyeglasses, Smiling"
    """
    known = tuple(known)
    hint = did_you_mean(name, known)
    return UnknownAttributeError(
        f"unknown attribute {name!r}{':' if hint else '.'}{hint} {owner} knows: {', '.join(known) or 'none'}"
    )


def require(module: str, extra: str) -> ModuleType:
    """Imports and gives a module that an extra brings; raises `MissingExtraError` with the install line without it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise MissingExtraError(f"{missing} is missing: pip install 'csvae-hub[{extra}]'", name=missing) from error
