"""A folder of pictures with a CSV table of their attributes."""

from __future__ import annotations

import csv as csv_module
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from csvae_hub.data.base import AttributeData, check_split, column_indices, expect, parse_labels
from csvae_hub.data.pictures import load_pictures
from csvae_hub.errors import DataError


def load_table(
    folder: str | Path,
    attributes: Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    csv: str = "attributes.csv",
    cache_dir: str | Path | None = None,
    channels: int = 3,
) -> AttributeData:
    """Reads `folder/images/*` and `folder/attributes.csv`.

    The table has a column `file` (names under `images/`), an optional column `split`, and a column for each attribute:
    0 or 1, -1 or 1, true or false, or an empty cell where the label is missing. Without a column `split` all rows are
    `train`. Commas, semicolons or tabs separate the cells. A column without a name is left out where it is the first,
    as pandas and R write one, or empty.
    With one channel, pictures are grey. The central square of each is resized to `image_size` pixels a side, once, and
    kept in `cache_dir`, by default `$CSVAE_HUB_CACHE` or `~/.cache/csvae-hub`. The attributes are columns, in order, by
    default all; the split `all` takes every row.

    Raises:
        DataError: a missing or broken folder, table, column, split or picture, named.
        UnknownAttributeError: an attribute that the table lacks.
    """
    folder = Path(folder)
    header, rows, splits = _read(folder, csv)
    where = str(folder / csv)
    known = [name for name in header if name not in ("file", "split")]
    names = list(known if attributes is None else attributes)
    positions = [header.index(known[i]) for i in column_indices(names, known)]
    expect(names, f"{where}: expected at least one attribute beside file and split, got none")
    check_split(split, tuple(dict.fromkeys(splits)), where)
    rows = {file: row for (file, row), s in zip(rows.items(), splits, strict=True) if split in ("all", s)}
    labels = parse_labels([[row[i].strip() for i in positions] for row in rows.values()], names, where)
    files = list(rows)
    images = load_pictures(folder / "images", files, image_size, cache_dir, channels=channels)
    return AttributeData(images, labels, names, files)


def table_splits(folder: str | Path, csv: str = "attributes.csv") -> tuple[str, ...]:
    """The splits in the table, in the order of their first rows.

    Raises:
        DataError: as `load_table`.
    """
    return tuple(dict.fromkeys(_read(Path(folder), csv)[-1]))


def _read(folder: Path, csv: str) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """The names of the columns, the cells of each file, and each row's split, checked."""
    path = folder / csv
    expect(folder.is_dir(), f"{folder}: expected a folder with images/ and {csv}, got no folder")
    if not path.is_file():
        content = f"no {csv} in it" if any(folder.iterdir()) else "an empty folder"
        raise DataError(f"{folder}: expected images/ and {csv} with columns file, split and attributes, got {content}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv_module.reader(file, delimiter=_separator(file), strict=True)
            numbered = [(reader.line_num, row) for row in reader if any(row)]
    except (csv_module.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected comma-separated text in UTF-8, got: {error}") from error
    expect(len(numbered) > 1, f"{path}: expected column names and at least one row, got {len(numbered)} lines")
    header = [name.strip() for name in numbered[0][1]]
    said = ", ".join(header)
    for line, row in numbered[1:]:
        expect(len(row) == len(header), f"{path}, line {line}: expected {len(header)} cells, got {len(row)}")
    kept = [i for i, name in enumerate(header) if not _is_left_out(i, name, [row[i] for _, row in numbered[1:]])]
    header, numbered = [header[i] for i in kept], [(line, [row[i] for i in kept]) for line, row in numbered]
    expect("file" in header, f"{path}: expected a column 'file', names under images/, got {said}")
    unique = len(set(header)) == len(header) and all(header)
    expect(unique, f"{path}: expected a name for each column, each once, got {said}")
    rows, lines = {}, {}
    for line, row in numbered[1:]:
        name = row[header.index("file")]
        expect(name, f"{path}, line {line}: expected a file name, got an empty cell")
        expect(name not in rows, f"{path}, line {line}: {name!r} is listed in line {lines.get(name)} already")
        rows[name], lines[name] = row, line
    column = header.index("split") if "split" in header else None
    return header, rows, ["train" if column is None else row[column].strip() for row in rows.values()]


def _separator(file: TextIO) -> str:
    """The character between the names of the columns, one of which is `file`; a comma where there is no such column."""
    first = next((line for line in file if line.strip()), "")
    file.seek(0)
    rows = {mark: next(csv_module.reader([first], delimiter=mark), []) for mark in ",;\t"}
    return next((mark for mark, names in rows.items() if "file" in map(str.strip, names)), ",")


def _is_left_out(position: int, name: str, cells: list[str]) -> bool:
    """True for a column of row numbers, and for one that holds nothing."""
    unnamed = name == "" or re.fullmatch(r"Unnamed: \d+", name) is not None
    return unnamed and (position == 0 or not any(cell.strip() for cell in cells))
