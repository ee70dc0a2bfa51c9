"""A folder of pictures with a CSV table of their attributes."""

from __future__ import annotations

import csv as csv_module
from collections.abc import Sequence
from pathlib import Path

from csvae_hub.data.base import AttributeData, check_split, column_indices, parse_labels
from csvae_hub.data.pictures import load_pictures
from csvae_hub.errors import DataError


def load_table(
    folder: str | Path,
    attributes: Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    csv: str = "attributes.csv",
    cache_dir: str | Path | None = None,
) -> AttributeData:
    """Reads `folder/images/*` and `folder/attributes.csv`.

    The table has a column `file` (names under `images/`), an optional column `split`, and a column for each attribute:
    0 or 1, -1 or 1, or an empty cell where the label is missing. Without a column `split` all rows are `train`.
    The central square of each picture is resized to `image_size`, once, and kept in the cache folder.

    Args:
        folder: the data set.
        attributes: columns, in order; the default is all.
        split: a value of the column `split`; `all` takes every row.
        image_size: side of the square pictures in pixels.
        csv: name of the table in the folder.
        cache_dir: by default `$CSVAE_HUB_CACHE` or `~/.cache/csvae-hub`.

    Raises:
        DataError: a missing or broken folder, table, column, split or picture, named.
        UnknownAttributeError: an attribute that the table lacks.
    """
    folder = Path(folder)
    table = _Table(folder, csv)
    known = table.attributes
    names = list(known if attributes is None else attributes)
    positions = [table.header.index(known[i]) for i in column_indices(names, known)]
    if not names:
        raise DataError(f"{table.path}: expected at least one attribute beside file and split, got none")
    check_split(split, table.splits, str(table.path))
    rows = [row for row, s in zip(table.rows, table.row_splits, strict=True) if split in ("all", s)]
    labels = parse_labels([[row[i].strip() for i in positions] for row in rows], names, str(table.path))
    files = [row[table.file_column] for row in rows]
    return AttributeData(load_pictures(folder / "images", files, image_size, cache_dir), labels, names, files)


def table_splits(folder: str | Path, csv: str = "attributes.csv") -> tuple[str, ...]:
    """The splits in the table, in the order of their first rows.

    Raises:
        DataError: as `load_table`.
    """
    return _Table(Path(folder), csv).splits


class _Table:
    """The checked text of the table: every row has all cells, every file is listed once."""

    def __init__(self, folder: Path, csv: str) -> None:
        self.path = folder / csv
        if not folder.is_dir():
            raise DataError(f"{folder}: expected a folder with images/ and {csv}, got no folder")
        if not self.path.is_file():
            content = "an empty folder" if not any(folder.iterdir()) else f"no {csv} in it"
            raise DataError(
                f"{folder}: expected images/ and {csv} with columns file, split and attributes, got {content}"
            )
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv_module.reader(file, strict=True)
                numbered = [(reader.line_num, row) for row in reader if row]
        except (csv_module.Error, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: expected comma-separated text in UTF-8, got: {error}") from error
        if len(numbered) < 2:
            raise DataError(f"{self.path}: expected column names and at least one row, got {len(numbered)} lines")
        self.header = [name.strip() for name in numbered[0][1]]
        self.rows = [row for _, row in numbered[1:]]
        if "file" not in self.header:
            raise DataError(f"{self.path}: expected a column 'file', names under images/, got {', '.join(self.header)}")
        if len(set(self.header)) != len(self.header) or not all(self.header):
            raise DataError(f"{self.path}: expected a name for each column, each once, got {', '.join(self.header)}")
        self.file_column = self.header.index("file")
        lines: dict[str, int] = {}
        for line, row in numbered[1:]:
            if len(row) != len(self.header):
                raise DataError(f"{self.path}, line {line}: expected {len(self.header)} cells, got {len(row)}")
            name = row[self.file_column]
            if not name:
                raise DataError(f"{self.path}, line {line}: expected a file name, got an empty cell")
            if name in lines:
                raise DataError(f"{self.path}, line {line}: {name!r} is listed in line {lines[name]} already")
            lines[name] = line
        column = self.header.index("split") if "split" in self.header else None
        self.row_splits = ["train" if column is None else row[column].strip() for row in self.rows]

    @property
    def attributes(self) -> list[str]:
        """All columns but `file` and `split`."""
        return [name for name in self.header if name not in ("file", "split")]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, each once."""
        return tuple(dict.fromkeys(self.row_splits))
