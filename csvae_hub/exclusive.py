"""Edits of attributes that exclude one another, whatever the values are; needs nothing but Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["present", "absent", "borrowed", "number"]
"""The meaning of a value: borrowed is taken over from another picture; a number moves one subspace alone."""

NEUTRAL = "Neutral"
"""The member that takes the place of another of its group, where no other is named."""


def completed(
    values: Mapping[str, Any], groups: Iterable[tuple[str, ...]], kind: Callable[[Any, str], Kind]
) -> dict[str, Any]:
    """The values of an edit, with those that follow from them for other members of a group.

    Args:
        values: by attribute.
        groups: names of attributes of which an example has exactly one.
        kind: gives the kind of a value, called as `kind(value, name)`.

    Raises:
        ValueError: two members of a group are to be present, or one is to be absent and none takes its place.
    """
    found = dict(values)
    for group in groups:
        kinds = {name: kind(value, name) for name, value in values.items() if name in group}
        present = [name for name, its in kinds.items() if its in ("present", "borrowed")]
        absent = [name for name, its in kinds.items() if its == "absent"]
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
            others = [other for other in group if other != name and other not in kinds]
            found |= dict.fromkeys(others, found[name] if kinds.get(name) == "borrowed" else False)
    return found
