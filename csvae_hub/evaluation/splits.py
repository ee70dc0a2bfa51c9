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
    rows: dict[str, dict[bytes, int]] = {}
    for name, data in splits.items():
        if len(data) == 0:
            raise DataError(f"{name} split: expected at least one example, got none")
        digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in data.images)
        rows[name] = {digest: row for row, digest in enumerate(digests)}
    for (first, a), (second, b) in combinations(splits.items(), 2):
        pairs = sorted((row, rows[second][digest]) for digest, row in rows[first].items() if digest in rows[second])
        shared = sorted(set(a.files or ()) & set(b.files or ()))
        shared = shared or [f"{_name(a, i)} and {_name(b, j)}, equal in every value" for i, j in pairs]
        if shared:
            raise DataError(
                f"the splits {first} and {second} share {len(shared)} example(s), such as {shared[0]}: expected none, "
                "since figures from examples that were trained on say nothing. Give each example to one split"
            )


def _name(data: AttributeData, row: int) -> str:
    return f"example {row}" if data.files is None else data.files[row]
