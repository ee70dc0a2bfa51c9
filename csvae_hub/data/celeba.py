"""CelebA (Liu et al., ICCV 2015) in its published layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csvae_hub.data.base import AttributeData, check_split, column_indices, parse_labels
from csvae_hub.data.pictures import load_pictures
from csvae_hub.errors import DataError, did_you_mean

SPLITS = {"train": "0", "valid": "1", "test": "2"}
ALIGNED_SIZE = (178, 218)
"""Width and height of CelebA's aligned pictures, in pixels."""
CROP_SIDE = 148
"""Side of the usual central crop of an aligned picture, in pixels."""
ATTRIBUTES_FILE, PARTITION_FILE, PICTURES_FOLDER = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"


def load_celeba(
    root: str | Path,
    attributes: Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    cache_dir: str | Path | None = None,
    download: bool = False,
) -> AttributeData:
    """Reads CelebA's aligned pictures, central 148×148 pixels, resized to `image_size`.

    Expects `img_align_celeba/`, `list_attr_celeba.txt` and `list_eval_partition.txt` in `root` or, as torchvision lays
    them out, in `root/celeba`. CelebA is licensed for non-commercial research only.

    Args:
        root: the folder.
        attributes: names out of the 40, in order; the default is all.
        split: `train`, `valid` or `test`, CelebA's official partitions; `all` takes every picture.
        image_size: side of the square pictures in pixels.
        cache_dir: where decoded pictures are kept; by default `$CSVAE_HUB_CACHE` or `~/.cache/csvae-hub`.
        download: let torchvision fetch missing files into `root/celeba` (1.4 GB; needs the package gdown).

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
    known, rows = _read_attributes(folder / ATTRIBUTES_FILE)
    names = list(known if attributes is None else attributes)
    columns = column_indices(names, known)
    partition = _read_partition(folder / PARTITION_FILE)
    without = [file for file in rows if file not in partition]
    if without:
        raise DataError(f"{folder / PARTITION_FILE}: expected a line for each picture, got none for {without[0]}")
    codes = {partition[file] for file in rows}
    check_split(split, [name for name, code in SPLITS.items() if code in codes], str(folder / PARTITION_FILE))
    files = [file for file in rows if split == "all" or partition[file] == SPLITS[split]]
    cells = [[rows[file][column] for column in columns] for file in files]
    labels = parse_labels(cells, names, str(folder / ATTRIBUTES_FILE))
    if not (folder / PICTURES_FOLDER).is_dir():
        raise DataError(f"{folder}: expected {PICTURES_FOLDER}/ in it, got none: unpack {PICTURES_FOLDER}.zip there")
    crop = (ALIGNED_SIZE, CROP_SIDE)
    images = load_pictures(folder / PICTURES_FOLDER, files, image_size, cache_dir, crop)
    return AttributeData(images, labels, names, files)


def celeba_folder(root: str | Path) -> Path | None:
    """The folder with CelebA's attribute list: `root` or `root/celeba`; None where neither has it."""
    return next((f for f in (Path(root), Path(root) / "celeba") if (f / ATTRIBUTES_FILE).is_file()), None)


def _read_attributes(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the attributes, and the cells of each file."""
    lines = _read_lines(path)
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise DataError(f"{path}: expected the number of pictures, the names and a line a picture, got another text")
    names = lines[1].split()
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(lines[2:], 3):
        file, *cells = line.split()
        if len(cells) != len(names):
            raise DataError(f"{path}, line {number}: expected a name and {len(names)} values, got {len(cells)} values")
        if file in rows:
            raise DataError(f"{path}, line {number}: {file} is listed twice")
        rows[file] = cells
    if len(rows) != int(lines[0]):
        raise DataError(f"{path}: its first line says {int(lines[0])} pictures, got {len(rows)}: fetch it again")
    return names, rows


def _read_partition(path: Path) -> dict[str, str]:
    partition: dict[str, str] = {}
    for number, line in enumerate(_read_lines(path), 1):
        file, *code = line.split()
        if len(code) != 1 or code[0] not in SPLITS.values():
            raise DataError(f"{path}, line {number}: expected a file name and 0, 1 or 2, got {line.strip()!r}")
        partition[file] = code[0]
    return partition


def _read_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path.parent}: expected {path.name}, got none: copy it there")
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
