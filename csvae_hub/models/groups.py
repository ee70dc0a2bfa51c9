"""Edits of attributes that exclude one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from csvae_hub.exclusive import Kind, completed
from csvae_hub.models.values import plain


def with_groups(values: Mapping[str, Any], groups: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """The values of an edit, with those that follow from them for other members of a group.

    Args:
        values: by attribute: see `AttributeModel.set_attribute`. True, "sample", a picture and `Latents` say that a
            member is present, or taken over from another picture; False says that it is absent. Numbers and
            coordinates move one subspace alone.
        groups: names of attributes of which an example has exactly one.

    Raises:
        ValueError: two members of a group are to be present, or one is to be absent and none takes its place.
        ImageError: a text is neither a value nor the name of a file.
    """
    return completed(values, groups, lambda value, name: _kind(plain(value, name)))


def together(values: Mapping[str, Any], groups: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
    """The values in parts that can be set one after the other: those of one group together, every other alone.

    >>> together({"Happy": False, "Hat": True, "Sad": True}, [("Happy", "Sad")])
    [{'Happy': False, 'Sad': True}, {'Hat': True}]
    """
    parts: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, value in values.items():
        parts.setdefault(group_of(name, groups) or (name,), {})[name] = value
    return list(parts.values())


def group_of(name: str, groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The group that has this member; none, an empty one."""
    return next((group for group in groups if name in group), ())


def _kind(value: Any) -> Kind:
    if isinstance(value, bool):
        return "present" if value else "absent"
    if isinstance(value, str) and value == "sample":
        return "present"
    is_array = isinstance(value, Tensor | np.ndarray)
    is_grey_picture = isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype == np.uint8
    if isinstance(value, Real | list | tuple) or (is_array and value.ndim <= 2 and not is_grey_picture):
        return "number"
    return "borrowed"
