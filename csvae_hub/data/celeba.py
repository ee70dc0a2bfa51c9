"""CelebA (Liu et al., ICCV 2015) in its published layout, and in Kaggle's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csvae_hub.data.base import AttributeData, check_split, column_indices, expect, parse_labels
from csvae_hub.data.pictures import load_pictures
from csvae_hub.errors import DataError, did_you_mean
from csvae_hub.images import ALIGNED_SIZE

SPLITS = {"train": "0", "valid": "1", "test": "2"}
CROP_SIDE = 148
"""Side of the usual central crop of an aligned picture, in pixels."""
ATTRIBUTES_FILE, PARTITION_FILE, PICTURES_FOLDER = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"
KAGGLE = ".csv"
"""The ending of Kaggle's lists, whose columns are separated by commas and named in the first line."""


def load_celeba(
    root: str | Path,
    attributes: Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    cache_dir: str | Path | None = None,
    download: bool = False,
    channels: int = 3,
) -> AttributeData:
    """Reads CelebA's aligned pictures, central 148×148 pixels, resized to `image_size`; with one channel, in grey.

    Expects `img_align_celeba/`, `list_attr_celeba.txt` and `list_eval_partition.txt` in `root` or, as torchvision lays
    them out, in `root/celeba`. Kaggle's copy is read as well: its lists end in .csv, and its pictures lie in
    `img_align_celeba/img_align_celeba/`. CelebA is licensed for non-commercial research only.

    The attributes are names out of the 40, in order, by default all; the split is one of CelebA's own, `train`, `valid`
    or `test`, or `all`. Decoded pictures are kept in `cache_dir`, by default `$CSVAE_HUB_CACHE` or
    `~/.cache/csvae-hub`. With `download` torchvision fetches missing files into `root/celeba` (1.4 GB; needs gdown).

    Raises:
        DataError: a missing or broken file, a picture that isn't 178×218, an unknown split, a failed download.
        UnknownAttributeError: an attribute that CelebA lacks.
    """
    if split != "all" and split not in SPLITS:
        hint = did_you_mean(split, SPLITS)
        raise DataError(f"split: expected train, valid, test or all, got {split!r}{':' if hint else ''}{hint}")
    root = Path(root)
    if download:
        _download(root)
    folder = celeba_folder(root)
    if folder is None:
        raise DataError(
            f"{root}: expected CelebA's {ATTRIBUTES_FILE}, {PARTITION_FILE} and {PICTURES_FOLDER}/ in it or in "
            f"{root / 'celeba'}, got no {ATTRIBUTES_FILE}: give another folder, or download=True"
        )
    table, partition_file = folder / ATTRIBUTES_FILE, folder / PARTITION_FILE
    if not table.is_file():
        table, partition_file = table.with_suffix(KAGGLE), partition_file.with_suffix(KAGGLE)
    known, rows = _read_attributes(table)
    names = list(known if attributes is None else attributes)
    columns = column_indices(names, known)
    partition = _read_partition(partition_file)
    without = [file for file in rows if file not in partition]
    expect(not without, f"{partition_file}: expected a line for each picture, got none for {' '.join(without[:1])}")
    codes = {partition[file] for file in rows}
    check_split(split, [name for name, code in SPLITS.items() if code in codes], str(partition_file))
    files = [file for file in rows if split == "all" or partition[file] == SPLITS[split]]
    labels = parse_labels([[rows[file][column] for column in columns] for file in files], names, str(table))
    pictures = folder / PICTURES_FOLDER
    expect(pictures.is_dir(), f"{folder}: expected {pictures.name}/ in it, got none: unpack {pictures.name}.zip there")
    if (pictures / PICTURES_FOLDER).is_dir():
        pictures = pictures / PICTURES_FOLDER
    images = load_pictures(pictures, files, image_size, cache_dir, (ALIGNED_SIZE, CROP_SIDE), channels)
    return AttributeData(images, labels, names, files)


def celeba_folder(root: str | Path) -> Path | None:
    """The folder with CelebA's attribute list: `root` or `root/celeba`; None where neither has it."""
    folders = (Path(root), Path(root) / "celeba")
    lists = [f / Path(ATTRIBUTES_FILE).with_suffix(ending) for ending in (".txt", KAGGLE) for f in folders]
    return next((path.parent for path in lists if path.is_file()), None)


def _read_attributes(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the attributes, and the cells of each file."""
    lines, counted = _read_lines(path), path.suffix != KAGGLE
    header = 2 if counted else 1
    if len(lines) <= header or (counted and not lines[0].strip().isdigit()):
        count = "the number of pictures, " if counted else ""
        raise DataError(f"{path}: expected {count}the names and a line a picture, got another text")
    names = _cells(lines[header - 1], path)[0 if counted else 1 :]
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(lines[header:], header + 1):
        file, *cells = _cells(line, path)
        got = len(cells)
        expect(got == len(names), f"{path}, line {number}: expected a name and {len(names)} values, got {got} values")
        expect(file not in rows, f"{path}, line {number}: {file} is listed twice")
        rows[file] = cells
    if counted:
        n, got = int(lines[0]), len(rows)
        expect(n == got, f"{path}: its first line says {n} pictures, got {got}: fetch it again")
    return names, rows


def _read_partition(path: Path) -> dict[str, str]:
    """The code of each file's split."""
    header = 1 if path.suffix == KAGGLE else 0
    pairs = [_cells(line, path) for line in _read_lines(path)[header:]]
    for number, pair in enumerate(pairs, 1 + header):
        sound = len(pair) == 2 and pair[1] in SPLITS.values()
        expect(sound, f"{path}, line {number}: expected a file name and 0, 1 or 2, got {' '.join(pair)!r}")
    return dict(pairs)


def _cells(line: str, path: Path) -> list[str]:
    return [cell.strip() for cell in line.split("," if path.suffix == KAGGLE else None)]


def _read_lines(path: Path) -> list[str]:
    expect(path.is_file(), f"{path.parent}: expected {path.name}, got none: copy it there")
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text, got: {error}") from error


def _download(root: Path) -> None:
    from torchvision.datasets import CelebA

    try:
        CelebA(str(root), split="all", download=True)
    except (RuntimeError, ImportError, OSError) as error:
        raise DataError(
            f"CelebA could not be downloaded into {root}: {error}. Fetch {PICTURES_FOLDER}.zip, {ATTRIBUTES_FILE} and "
            f"{PARTITION_FILE} from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put them there, unpacked"
        ) from error
