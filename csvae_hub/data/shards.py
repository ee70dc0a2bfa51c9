"""Pictures in tar files, as the library `webdataset` reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from csvae_hub.data.base import AttributeData, check_split, expect
from csvae_hub.data.streams import SPLITS, Example, Stream, load_stream
from csvae_hub.errors import DataError, require

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "heic", "heif")
"""The endings of pictures' names."""

END = 1024
"""Zero bytes at the end of an archive."""


def load_shards(
    pattern: str,
    attributes: Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    cache_dir: str | Path | None = None,
    channels: int = 3,
) -> AttributeData:
    """Reads tar files in which each picture `KEY.jpg` (or another format) has its attributes beside it in `KEY.json`.

    The JSON is an object with true or false, 0 or 1, -1 or 1 for each attribute; null or no entry is a missing label,
    and a picture without a JSON has none. Pictures are decoded into the cache, once.

    Args:
        pattern: a tar file, several by `{000000..000003}` or `*`, or a folder of `*.tar`. With `{split}` in it, that
            stands for `train`, `valid` (also validation, val or dev) and `test`; in a folder the names of the files may
            begin with these. Else all is `train`.
        attributes: the names, in order; by default all that there are.
        split: `train`, `valid`, `test` or `all`.
        image_size: side of the pictures, of which the central square is taken.
        cache_dir: where decoded pictures are kept; by default `$CSVAE_HUB_CACHE` or `~/.cache/csvae-hub`.
        channels: 3 for RGB, 1 for grey.

    Raises:
        MissingExtraError: `webdataset` isn't installed.
        DataError: no such file or split, a broken file, or an example without a picture.
        UnknownAttributeError: an attribute that the data lacks.
    """
    tars = require("webdataset.tariterators", "data")
    found = _files(pattern)
    check_split(split, tuple(found), pattern)
    files = [file for files in found.values() for file in files] if split == "all" else found[split]

    def samples() -> Iterator[Mapping[str, Any]]:
        for path in files:
            _expect_whole(path)
            with path.open("rb") as file:  # opened here: the library takes some names for commands of a shell
                yield from tars.group_by_keys(tars.tar_file_expander([{"url": str(path), "stream": file}]))

    times = [[str(file), (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]
    stream = Stream(pattern, ["shards", times], lambda: ({}, map(_example, samples())))
    return load_stream(stream, attributes, image_size, cache_dir, channels)


def shard_splits(pattern: str) -> tuple[str, ...]:
    """The splits of `load_shards`; its errors."""
    return tuple(_files(pattern))


def _files(pattern: str) -> dict[str, list[Path]]:
    """The tar files of each split."""
    folder, place = Path(pattern).expanduser(), "{split}"
    if folder.is_dir():
        pattern = f"{pattern}/{place}*.tar"
        if not any(_matching(pattern.replace(place, name)) for names in SPLITS.values() for name in names):
            pattern = f"{folder}/*.tar"
    if place not in pattern:
        files = _matching(pattern)
        expect(files, f"{pattern}: expected one tar file or more, got none of this name")
        return {"train": files}
    found = {
        split: next(filter(None, (_matching(pattern.replace(place, name)) for name in names)), [])
        for split, names in SPLITS.items()
    }
    found = {split: files for split, files in found.items() if files}
    expect(found, f"{pattern}: expected tar files with train, valid or test for {place}, got none")
    return found


def _matching(pattern: str) -> list[Path]:
    """The files of a pattern with braces and stars, in order; nothing where one that is named is missing."""
    found: list[Path] = []
    for name in require("braceexpand", "data").braceexpand(pattern):
        path = Path(name).expanduser().absolute()
        files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
        if not files or not all(file.is_file() for file in files):
            return []
        found += files
    return found


def _expect_whole(path: Path) -> None:
    """Checks the zeros that end an uncompressed archive: a reader takes one that breaks off for a shorter one."""
    if path.suffix == ".tar":
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END))
            whole = file.read() == bytes(END)
        expect(whole, f"{path}: expected a whole tar file, got one that is broken off: copy or download it again")


def _example(sample: Mapping[str, Any]) -> Example:
    ending = next((ending for ending in PICTURES if ending in sample), None)
    key, where = sample["__key__"], f"{Path(sample['__url__']).name}, {sample['__key__']}"
    got = ", ".join(name for name in sample if not name.startswith("__"))
    expect(ending, f"{where}: expected a picture ({', '.join(PICTURES)}), got {got}")
    try:
        cells = json.loads(sample.get("json", b"{}"))
    except ValueError as error:
        raise DataError(f"{where}.json: expected JSON, got: {error}") from error
    expect(isinstance(cells, dict), f"{where}.json: expected an object, attributes by name, got {type(cells).__name__}")
    return Example(f"{Path(key).name}.{ending}", sample[str(ending)], cells)
