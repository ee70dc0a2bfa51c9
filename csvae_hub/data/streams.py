"""Examples that come one after the other: decoded into the cache as they come, never all of them in memory."""

from __future__ import annotations

import hashlib
import json
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from csvae_hub.data.base import AttributeData, column_indices, expect, parse_label
from csvae_hub.data.pictures import CACHE_VERSION, cache_folder, read_cached, write_pictures
from csvae_hub.errors import DataError, MissingExtraError
from csvae_hub.hub import replacing

SPLITS = {"train": ("train",), "valid": ("valid", "validation", "val", "dev"), "test": ("test",)}
"""Our names of the splits, and the names that others give them."""

NO, YES = {"0", "-1", "false", "no", "absent", "negative"}, {"1", "true", "yes", "present", "positive"}
"""Names of two classes that say no more than absent and present of their column."""

_log = logging.getLogger(__name__)

Classes: TypeAlias = Mapping[str, Sequence[str]]
"""The names of the classes, by the column that holds their numbers, counted from 0."""


@dataclass(frozen=True)
class Example:
    """The content of a picture file, its name ("" for none), and a row of a table: cells by column."""

    name: str
    picture: bytes
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class Stream:
    """A source of examples.

    where: names it in errors.
    identity: JSON that is equal for equal examples alone, such as names and times of files.
    read: gives the class columns, and the examples.
    """

    where: str
    identity: Any
    read: Callable[[], tuple[Classes, Iterator[Example]]]


@dataclass
class _Table:
    """The cells of all examples as numbers, column by column, NaN where there is none.

    wrong: of the columns that hold something else, the first such cell and its example.
    """

    classes: dict[str, list[str]]
    names: list[str] = field(default_factory=list[str])
    columns: dict[str, array[float]] = field(default_factory=dict[str, "array[float]"])
    wrong: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, example: Example) -> None:
        for column in example.cells:
            if column not in self.columns:
                self.columns[column] = array("f", [np.nan]) * len(self.names)
        for column, values in self.columns.items():
            cell = example.cells.get(column)
            number = np.nan if cell is None else _number(cell)
            if number is None:
                self.wrong.setdefault(column, f"{cell!r:.80} ({example.name or f'row {len(self.names)}'})")
            values.append(np.nan if number is None else number)
        self.names.append(example.name)

    def save(self, path: Path) -> None:
        """Writes it beside the pictures."""
        values = np.stack([np.frombuffer(column, np.float32) for column in self.columns.values()] or [np.zeros(0)])
        texts = {"columns": list(self.columns), "names": self.names, "classes": self.classes, "wrong": self.wrong}
        with replacing(path) as temporary:
            save_file({"values": values}, temporary, {name: json.dumps(text) for name, text in texts.items()})

    @classmethod
    def load(cls, path: Path) -> _Table | None:
        """Reads the file of `save`; None where none is there, or a broken one."""
        try:
            with safe_open(path, "numpy") as file:
                texts = {name: json.loads(text) for name, text in file.metadata().items()}
                values = file.get_tensor("values").astype(np.float32)
        except (OSError, SafetensorError):
            return None
        columns = {name: array("f", column.tobytes()) for name, column in zip(texts["columns"], values, strict=True)}
        return cls(texts["classes"], texts["names"], columns, texts["wrong"])

    def attributes(self) -> dict[str, tuple[str, int | None]]:
        """The column of each attribute and, of a class column, the class; a name that is taken gets the column's."""
        found: list[tuple[str, str, int | None]] = []
        for column in self.columns:
            classes = self.classes.get(column)
            if classes is None:
                found.append((column, column, None))
            elif len(classes) == 2 and classes[0].lower() in NO and classes[1].lower() in YES:
                found.append((column, column, 1))
            else:
                found += [(name, column, i) for i, name in enumerate(classes)]
        taken = Counter(name for name, *_ in found)
        return {
            name if taken[name] == 1 or name == column else f"{column}.{name}": (column, number)
            for name, column, number in found
        }

    def labels(self, column: str, number: int | None) -> NDArray[np.float32] | str:
        """The labels (N,) of an attribute, or in words what is in the column that is no label."""
        if column in self.wrong:
            return self.wrong[column]
        values = np.frombuffer(self.columns[column], np.float32)
        if number is not None:
            return np.where(values < 0, np.float32(np.nan), np.where(np.isnan(values), values, values == number))
        others = values[~np.isnan(values) & ~np.isin(values, (-1, 0, 1))]
        if len(others):
            return f"{others[0]:g}"
        if (values == 0).any() and (values == -1).any():
            return "both 0 and -1"
        return np.where(values < 0, np.float32(0), values)


def load_stream(
    stream: Stream,
    attributes: Sequence[str] | None,
    image_size: int,
    cache_dir: str | Path | None,
    channels: int,
) -> AttributeData:
    """Reads a stream to its end, once: pictures go into the cache as they come, and are memory-mapped from there.

    In memory are a few pictures and the cells of the table. Later calls read the cache. The pixels are those of
    `load_pictures`.

    Args:
        stream: the source.
        attributes: the names, in order; by default each class of a class column, and all columns that hold nothing but
            true and false, 0 and 1 or -1 and 1. An empty cell is a missing label, and so is a class below 0.
        image_size: side of the square pictures in pixels.
        cache_dir: as in `load_data`.
        channels: 3 for RGB, 1 for grey.

    Raises:
        DataError: a source that can't be read, without examples or with a broken picture, or cells that are no labels.
        UnknownAttributeError: an attribute that the source lacks.
    """
    key = json.dumps([CACHE_VERSION, stream.identity, image_size, channels])
    path = cache_folder(cache_dir) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    beside = path.with_suffix(".safetensors")
    table = _Table.load(beside)
    images = None if table is None else read_cached(path, (len(table.names), channels, image_size, image_size))
    if table is None or images is None:
        _log.info("decoding the pictures of %s into %s", stream.where, path)
        with reading(stream.where):
            classes, examples = stream.read()
        table = _Table({name: list(values) for name, values in classes.items()})
        write_pictures(path, _pictures(stream.where, examples, table), image_size, channels)
        table.save(beside)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    known = table.attributes()
    if attributes is None:
        found = {name: table.labels(*place) for name, place in known.items()}
        labels = {n: v for n, v in found.items() if not isinstance(v, str) and not np.isnan(v).all()}
        rule = "one column or more of true and false, of 0 and 1 or of classes"
        expect(labels, f"{stream.where}: expected {rule}, got {', '.join(known) or 'none'}")
    else:
        column_indices(attributes, list(known))
        labels = {name: _checked(table.labels(*known[name]), name, stream.where) for name in attributes}
    files = [name or f"row {i}" for i, name in enumerate(table.names)] if any(table.names) else None
    return AttributeData(images, np.stack(list(labels.values()), 1), list(labels), files)


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns whatever a library raises while a source is read into a DataError that names the source."""
    try:
        yield
    except (DataError, MissingExtraError):
        raise
    except Exception as error:  # of the network, of archives, of tables
        said = " ".join(str(error).split())
        raise DataError(f"{where} can't be read: {type(error).__name__}: {said:.500}") from error


def _pictures(where: str, examples: Iterator[Example], table: _Table) -> Iterator[tuple[str, bytes]]:
    """Names and contents, while the cells go into the table."""
    with reading(where):
        for example in examples:
            yield f"{where}, {example.name or f'row {len(table.names)}'}", example.picture
            table.add(example)
    expect(table.names, f"{where}: expected at least one example, got none")


def _number(cell: object) -> float | None:
    if isinstance(cell, str):
        return parse_label(cell)
    return float(cell) if isinstance(cell, int | float) else None


def _checked(labels: NDArray[np.float32] | str, name: str, where: str) -> NDArray[np.float32]:
    if isinstance(labels, str):
        rule = "true or false, 0 or 1, -1 or 1, or nothing where the label is missing"
        raise DataError(f"{where}: column {name!r}: expected {rule}; got {labels}")
    return labels


def named_splits(found: Mapping[str, Any]) -> dict[str, str]:
    """The splits by our names, where we have one, with the names that they have where they come from."""
    ours = {theirs: name for name, names in SPLITS.items() for theirs in names}
    return {ours.get(theirs, theirs): theirs for theirs in found}
