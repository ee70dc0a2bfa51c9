"""Edits of attributes that exclude one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from csvae_hub.models.values import plain

NEUTRAL = "Neutral"
"""The member that takes the place of another of its group, where no other is named."""


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
    found = dict(values)
    for group in groups:
        named = {name: plain(value, name) for name, value in values.items() if name in group}
        present = [name for name, value in named.items() if _kind(value) == "present"]
        absent = [name for name, value in named.items() if _kind(value) == "absent"]
        if len(present) > 1:
            raise ValueError(
                f"expected one of {', '.join(group)} to be present, got {' and '.join(present)}: choose one"
            )
        if absent and not present:
            others = [name for name in group if name not in absent]
            if NEUTRAL not in others:
                raise ValueError(
                    f"{absent[0]}=False: expected another of its group to take its place: "
                    f"set one of {', '.join(others)} to True"
                    if others
                    else "every member of a group is set to False"
                )
            present = [NEUTRAL]
            found[NEUTRAL] = True
        for name in present:
            borrowed = found[name] if _kind(named.get(name, True), borrowed=True) == "borrowed" else False
            found |= {other: borrowed for other in group if other != name and other not in named}
    return found


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


def _kind(value: Any, borrowed: bool = False) -> str:
    """present, absent, borrowed (a picture or latents, where they are told apart) or number."""
    if isinstance(value, bool):
        return "present" if value else "absent"
    if isinstance(value, str) and value == "sample":
        return "present"
    is_array = isinstance(value, Tensor | np.ndarray)
    is_grey_picture = isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype == np.uint8
    if isinstance(value, Real | list | tuple) or (is_array and value.ndim <= 2 and not is_grey_picture):
        return "number"
    return "borrowed" if borrowed else "present"
