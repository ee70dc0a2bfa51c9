"""Refuses test data that was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError


def check_disjoint(splits: Mapping[str, AttributeData]) -> None:
    """Checks that no two splits share a file name or an example with the same values.

    Raises:
        DataError: a split is empty, or two share an example.
    """
    for name, data in splits.items():
        if len(data) == 0:
            raise DataError(f"{name} split: expected at least one example, got none")
    contents = {name: _rows_by_digest(data) for name, data in splits.items()}
    for (first, a), (second, b) in combinations(splits.items(), 2):
        if a.files is not None and b.files is not None:
            _refuse(first, second, sorted(set(a.files) & set(b.files)))
        shared = contents[first].keys() & contents[second].keys()
        pairs = sorted((contents[first][digest], contents[second][digest]) for digest in shared)
        _refuse(first, second, [f"{_name(a, i)} and {_name(b, j)}, equal in every value" for i, j in pairs])


def _refuse(first: str, second: str, shared: list[str]) -> None:
    if shared:
        raise DataError(
            f"the splits {first} and {second} share {len(shared)} example(s), such as {shared[0]}: expected none, "
            "since figures from examples that were trained on say nothing. Give each example to one split"
        )


def _rows_by_digest(data: AttributeData) -> dict[bytes, int]:
    """The first row of each content."""
    rows: dict[bytes, int] = {}
    for row, image in enumerate(data.images):
        rows.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), row)
    return rows


def _name(data: AttributeData, row: int) -> str:
    return f"example {row}" if data.files is None else data.files[row]
