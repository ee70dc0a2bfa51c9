"""A data set held as two arrays: examples and their binary attributes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from csvae_hub.errors import DataError, did_you_mean, unknown_attribute

Indices: TypeAlias = "Sequence[int] | NDArray[np.int64] | Tensor"

_WORDS = {"true": "1", "false": "0"}
_WORDS |= dict.fromkeys(("", "na", "n/a", "<na>", "none", "null"), "nan")


Renderer: TypeAlias = Callable[["NDArray[np.int64]", str, bool, "NDArray[np.int64]"], "NDArray[np.uint8]"]
"""Draws examples again with one attribute changed and all else equal.

From rows (B,) of the drawn data, an attribute, its value, and the rows (B,) whose variation inside the attribute is
shown, to pictures, uint8 (B, C, H, W). An example's own value and kind give the example itself, to the bit.
"""


def expect(sound: object, text: str) -> None:
    """Raises a DataError with this text where something is not sound."""
    if not sound:
        raise DataError(text)


class AttributeData(Dataset[tuple[Tensor, Tensor]]):
    """Examples x with k binary attributes y: a map-style data set that also gives batches.

    Args:
        images: pictures, uint8 (N, C, H, W), possibly memory-mapped; or vectors, float32 (N, D).
        labels: float32 (N, k): 0 absent, 1 present, NaN where the label is missing.
        attributes: the k names, in the order of the columns of `labels`.
        files: the N file names, where the examples come from files.
        renderer: draws counterfactuals, where the examples are drawn from known factors.
        rows: (N,), the renderer's row of each example; by default 0 to N - 1.
        weights: (N,), how often an epoch of training draws each example, relative to the others; by default once each.

    Raises:
        DataError: arrays of another type or shape, labels other than 0, 1 and NaN, or a repeated name.
    """

    def __init__(
        self,
        images: NDArray[Any],
        labels: NDArray[np.float32],
        attributes: Sequence[str],
        files: Sequence[str] | None = None,
        *,
        renderer: Renderer | None = None,
        rows: NDArray[np.int64] | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        n, k = len(images), len(attributes)
        got, kinds = f"got {images.dtype} {images.shape}", ((np.dtype(np.uint8), 4), (np.dtype(np.float32), 2))
        pictures = "pictures as uint8 (N, C, H, W) or vectors as float32 (N, D)"
        expect((images.dtype, images.ndim) in kinds, f"images: expected {pictures}, {got}")
        finite = images.dtype == np.uint8 or bool(np.isfinite(images).all())
        expect(finite, "images: expected finite numbers, got NaN or infinity")
        rule = f"one row an example and one column an attribute, {(n, k)}"
        expect(labels.shape == (n, k), f"labels: expected {rule}, got {labels.shape}")
        known = (labels == 0) | (labels == 1) | np.isnan(labels)
        expect(known.all(), "labels: expected 0 (absent), 1 (present) or NaN (missing), got other values")
        expect(len(set(attributes)) == k, f"attributes: expected each name once, got {', '.join(attributes)}")
        if files is not None:
            expect(len(files) == n, f"files: expected {n} names, one an example, got {len(files)}")
        if rows is not None:
            expect(rows.shape == (n,), f"rows: expected shape {(n,)}, one an example, got {rows.shape}")
        if weights is not None:
            sound = weights.shape == (n,) and (weights >= 0).all() and 0 < weights.sum() < np.inf
            expect(sound, f"weights: expected {n} numbers of 0 or more, one an example, got shape {weights.shape}")
        self.images = images
        self.labels = np.asarray(labels, dtype=np.float32)
        self.attributes = tuple(attributes)
        self.files = None if files is None else list(files)
        self.weights = None if weights is None else torch.from_numpy(weights)
        self._renderer = renderer
        self._rows = np.arange(len(images)) if rows is None else rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, H, W) of a picture, (D,) of a vector."""
        return self.images.shape[1:]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, as 64 hexadecimal digits, of examples, labels, names and files: equal data, equal fingerprint."""
        digest = hashlib.sha256()
        for part in (self.images.dtype.str, self.images.shape, self.attributes, self.files):
            digest.update(repr(part).encode())
        for start in range(0, len(self), 1024):
            digest.update(self.images[start : start + 1024].tobytes())
        digest.update(np.where(np.isnan(self.labels), np.float32(-1), self.labels).tobytes())
        if self.weights is not None:
            digest.update(self.weights.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def drawn_labels(self) -> NDArray[np.float32]:
        """The labels (N, k) of what an epoch draws: those of the data or, with weights, in these shares."""
        if self.weights is None:
            return self.labels
        ends = np.cumsum(self.weights.numpy())
        return self.labels[np.searchsorted(ends, (np.arange(len(self)) + 0.5) * ends[-1] / len(self))]

    @property
    def known(self) -> float:
        """The share of the labels of what an epoch draws that are known; 1 where none is."""
        return float(1 - np.isnan(self.drawn_labels).mean()) or 1.0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.batch([index])
        return x[0], y[0]

    def __getitems__(self, indices: Indices) -> list[tuple[Tensor, Tensor]]:
        """The examples one by one, for `torch.utils.data.DataLoader`."""
        x, y = self.batch(indices)
        return list(zip(x, y, strict=True))

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Copies of x, float32 (B, C, H, W) in [0, 1] or (B, D), and y, float32 (B, k), on the CPU.

        Raises:
            IndexError: an index beyond the data.
        """
        rows = row_numbers(indices)
        x = torch.from_numpy(self.images[rows])
        if x.dtype == torch.uint8:
            x = x.float().div_(255)
        return x, torch.from_numpy(self.labels[rows])

    def names(self, indices: Indices) -> list[str]:
        """The files of the examples at these indices, or where there are none "row 0" and so on."""
        return [f"row {i}" if self.files is None else self.files[i] for i in row_numbers(indices).tolist()]

    def batches(self, size: int, mirrored: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples, in order, in batches of up to so many as `batch` gives them; then all of them mirrored."""
        return in_batches(self.batch, len(self), size, mirrored)

    @property
    def has_counterfactuals(self) -> bool:
        """True where `counterfactual` can draw the examples with one attribute changed."""
        return self._renderer is not None

    def counterfactual(self, indices: Indices, attribute: str, value: bool, kinds: Indices | None = None) -> Tensor:
        """The examples with one attribute set, all else equal: pictures, float32 (B, C, H, W) in [0, 1].

        They are the true result of an edit. The examples at `kinds` lend the variation inside the attribute (the hat's
        shape, the beard's length), whether they have it or not; by default each example keeps its own. An example's own
        value and kind give the example itself, to the bit.

        Raises:
            DataError: data that isn't drawn from known factors, or another number of kinds than of indices.
            UnknownAttributeError: an attribute that the data lacks.
            IndexError: an index beyond the data.
        """
        column_indices([attribute], self.attributes)
        if self._renderer is None:
            raise DataError(
                "counterfactual: expected data drawn from known factors, got pictures or points as they are: "
                "load synthetic-faces"
            )
        rows = self._rows[row_numbers(indices)]
        kind_rows = rows if kinds is None else self._rows[row_numbers(kinds)]
        expect(len(kind_rows) == len(rows), f"kinds: expected one example an index, {len(rows)}, got {len(kind_rows)}")
        return torch.from_numpy(self._renderer(rows, attribute, bool(value), kind_rows)).float().div_(255)

    def select(self, attributes: Sequence[str]) -> AttributeData:
        """The same examples with these attributes, in this order.

        Raises:
            UnknownAttributeError: a name that the data lacks; the error suggests near ones.
        """
        return self._with(self.labels[:, column_indices(attributes, self.attributes)], attributes, self.weights)

    def exclusive(self, groups: Sequence[Sequence[str]], mask: bool = False) -> AttributeData:
        """The same examples, each with exactly one member of each group, or with no label in it.

        A missing label beside a member that is present stands for absent; beside absent ones alone the whole group
        counts as missing.

        Args:
            groups: names of attributes of which an example has exactly one.
            mask: count a group as missing where two members are present, or none is, instead of raising.

        Raises:
            UnknownAttributeError: a name that the data lacks.
            DataError: an example has two members of a group, or none.
        """
        labels = self.labels.copy()
        for group in groups:
            columns = column_indices(group, self.attributes)
            part = labels[:, columns]
            present, known = (part == 1).sum(1), ~np.isnan(part).any(1)
            wrong = np.flatnonzero((present > 1) | (known & (present == 0)))
            if len(wrong) and not mask:
                row = int(wrong[0])
                names = [name for name, value in zip(group, part[row], strict=True) if value == 1]
                where = f"example {row}" if self.files is None else self.files[row]
                raise DataError(
                    f"{where}: expected one of {', '.join(group)}, "
                    f"got {' and '.join(names) or 'none'}; {len(wrong)} of {len(self)} examples are so: "
                    "mend their labels, or set data.mask = true to count them as missing"
                )
            labels[:, columns] = np.where((present == 1)[:, None], (part == 1).astype(np.float32), np.float32("nan"))
        return self._with(labels, self.attributes, self.weights)

    def weighted(self, weights: NDArray[np.float64]) -> AttributeData:
        """The same examples, of which an epoch of training draws each so often, relative to the others.

        Raises:
            DataError: not one number of 0 or more for each example.
        """
        return self._with(self.labels, self.attributes, weights)

    def _with(
        self, labels: NDArray[np.float32], names: Sequence[str], weights: Tensor | NDArray[np.float64] | None
    ) -> AttributeData:
        weights = weights.numpy() if isinstance(weights, Tensor) else weights
        return AttributeData(
            self.images, labels, names, self.files, renderer=self._renderer, rows=self._rows, weights=weights
        )

    def subset(self, indices: Indices) -> AttributeData:
        """The examples at these indices, in this order, without weights; consecutive ones share the memory.

        Raises:
            IndexError: an index beyond the data.
        """
        rows = row_numbers(indices)
        labels = self.labels[rows]
        files = None if self.files is None else [self.files[i] for i in rows]
        run = len(rows) > 0 and rows[0] >= 0 and bool(np.all(np.diff(rows) == 1))
        images = self.images[rows[0] : rows[-1] + 1] if run else self.images[rows]
        return AttributeData(images, labels, self.attributes, files, renderer=self._renderer, rows=self._rows[rows])


def row_numbers(indices: Indices) -> NDArray[np.int64]:
    """Row numbers, or a mask of rows, as row numbers (B,) in NumPy."""
    values = indices.cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    return np.flatnonzero(values) if values.dtype == np.bool_ else values.astype(np.int64)


def in_batches(
    batch: Callable[[Tensor], tuple[Tensor, Tensor]], examples: int, size: int, mirrored: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Calls `batch` for all examples in order, so many at a time; where wanted gives all of them again, mirrored."""
    for flip in (False, True) if mirrored else (False,):
        for part in torch.arange(examples).split(size):
            x, y = batch(part)
            yield (x.flip(-1) if flip else x), y


def column_indices(attributes: Sequence[str], known: Sequence[str], owner: str = "This data") -> list[int]:
    """The position of each attribute among the known ones; an `UnknownAttributeError` where one is not."""
    for name in attributes:
        if name not in known:
            raise unknown_attribute(name, known, owner)
    return [known.index(name) for name in attributes]


def parse_labels(cells: Sequence[Sequence[str]], attributes: Sequence[str], where: str) -> NDArray[np.float32]:
    """Text cells, N rows of k, as labels (N, k): 1 or true present; 0, -1 or false absent; nothing, NaN or NA missing.

    Case, spaces and decimals (1.0 or 1,0) don't matter. A column with both 0 and -1 is ambiguous and refused.
    """
    known = {cell: parse_label(cell) for cell in {cell for row in cells for cell in row}}
    for row in cells:
        for name, cell in zip(attributes, row, strict=True):
            if known[cell] is None:
                rule = "0 or 1, -1 or 1, or nothing where the label is missing; true and false will do"
                raise DataError(f"{where}: column {name!r}: expected {rule}, got {cell!r}")
    values = np.array([[known[cell] for cell in row] for row in cells], np.float32).reshape(len(cells), len(attributes))
    for name, column in zip(attributes, values.T, strict=True):
        both, remedy = {0, -1} <= set(column.tolist()), "for absent write one of them, for missing nothing"
        expect(not both, f"{where}: column {name!r} has both 0 and -1: {remedy}")
    return np.where(values <= 0, np.float32(0), values)


def parse_label(cell: str) -> float | None:
    """The number in a cell, NaN where it is empty; None for another text."""
    word = cell.strip().lower().replace(",", ".")
    try:
        value = float(_WORDS.get(word, word))
    except ValueError:
        return None
    return value if value in (-1, 0, 1) or math.isnan(value) else None


def check_split(split: str, known: Sequence[str], where: str) -> None:
    """Checks that the data has this split; `all` always passes."""
    if split != "all" and split not in known:
        hint = did_you_mean(split, (*known, "all"))
        hint = f":{hint}" if hint else "."
        raise DataError(f"{where} has no split {split!r}{hint} Splits here: {', '.join(known)}; all takes all")
