"""Data sets of the Hugging Face Hub, and folders and files that the library `datasets` reads, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from csvae_hub.data.base import AttributeData, check_split, expect
from csvae_hub.data.streams import Classes, Example, Stream, load_stream, named_splits, reading
from csvae_hub.errors import require

PICTURES = ("image", "img")
"""The names of the column of pictures, where there are several."""


def load_hugging_face(
    source: str,
    attributes: Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    cache_dir: str | Path | None = None,
    channels: int = 3,
) -> AttributeData:
    """Streams a data set with a column of pictures, once, into the cache; its own files are not stored.

    Attributes are columns of true and false, of 0 and 1 or of -1 and 1, and the classes of class columns
    (`datasets.ClassLabel`), by their names. Two classes called no and yes, or the like, are one attribute by the name
    of the column. A class name that another column has too is called `COLUMN.CLASS`. An empty cell is a missing label.

    Args:
        source: `OWNER/NAME` on the Hub, where wanted with `:CONFIG`, `@REVISION` or both behind it; a folder such as
            `datasets` reads (parquet files, pictures with a metadata.csv); or one parquet file.
        attributes: the names, in order; by default all that there are.
        split: `train`, `valid` (also where it is called validation, val or dev), `test`, another one's name, or `all`.
        image_size: side of the pictures, of which the central square is taken.
        cache_dir: where decoded pictures are kept; by default `$CSVAE_HUB_CACHE` or `~/.cache/csvae-hub`.
        channels: 3 for RGB, 1 for grey.

    Raises:
        MissingExtraError: `datasets` isn't installed.
        DataError: a data set, split or column of pictures that isn't there, or anything that can't be read.
        UnknownAttributeError: an attribute that the data lacks.
    """
    where, builder = _builder(source)
    found = _files(builder)
    known = named_splits(found)
    check_split(split, tuple(known), where)
    names = list(known.values()) if split == "all" else [known[split]]
    files = [[name, list(found[name]), getattr(found[name], "origin_metadata", [])] for name in names]

    def read() -> tuple[Classes, Iterator[Example]]:
        streams = builder.as_streaming_dataset()
        parts = [
            streams[name].reshard() for name in names
        ]  # by row groups: of a whole file Arrow keeps all it has read
        features = parts[0].features or {}
        column = _pictures(features, where)
        of_bytes = require("datasets", "data").Image(decode=False)
        rows = chain.from_iterable(part.cast_column(column, of_bytes) for part in parts)
        classes = {name: f.names for name, f in features.items() if type(f).__name__ == "ClassLabel"}
        return classes, (_example(row, column) for row in rows)

    stream = Stream(where, ["hugging face", builder.config.name, files], read)
    return load_stream(stream, attributes, image_size, cache_dir, channels)


def hugging_face_splits(source: str) -> tuple[str, ...]:
    """The splits, by our names where we have one.

    Raises:
        MissingExtraError, DataError: as `load_hugging_face`.
    """
    return tuple(named_splits(_files(_builder(source)[1])))


def _builder(source: str) -> tuple[str, Any]:
    """The name for errors, and the library's reader of the data set."""
    load_dataset_builder = require("datasets", "data").load_dataset_builder
    path = Path(source).expanduser()
    if path.is_file():
        with reading(str(path)):
            return str(path), load_dataset_builder("parquet", data_files={"train": str(path)})
    if path.is_dir():
        with reading(str(path)):
            return str(path), load_dataset_builder(str(path))
    parts = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)(?::([^@]+))?(?:@(.+))?", source)
    rule = "a folder, a parquet file, or OWNER/NAME[:CONFIG][@REVISION] on the Hub"
    expect(parts, f"hf:{source}: expected {rule}, got none of these")
    assert parts is not None
    name, config, revision = parts.groups()
    with reading(f"hf:{source}"):
        return f"hf:{source}", load_dataset_builder(name, config, revision=revision)


def _files(builder: Any) -> dict[str, Any]:
    """The files of each split, with their times or the commit that they are of, as the library found them."""
    return {str(split): files for split, files in (builder.config.data_files or {}).items()}


def _pictures(features: dict[str, Any], where: str) -> str:
    """The name of the column of pictures."""
    found = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    chosen = found if len(found) == 1 else [name for name in PICTURES if name in found]
    got = ", ".join(found) or f"none among {', '.join(features) or 'no columns'}"
    rule = f"a column of pictures (datasets.Image), of several one called {' or '.join(PICTURES)}"
    expect(chosen, f"{where}: expected {rule}, got {got}")
    return chosen[0]


def _example(row: dict[str, Any], column: str) -> Example:
    picture = row.pop(column) or {}
    path, content = picture.get("path"), picture.get("bytes")
    if content is None and path:
        with require("fsspec", "data").open(path, "rb") as file:
            content = file.read()
    shared = row.pop("json", None)  # of tar files: one cell with all attributes
    cells = row | shared if isinstance(shared, dict) else row
    return Example(Path(path or "").name, content or b"", cells)
