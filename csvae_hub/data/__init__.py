"""Data sets: a folder with a CSV, CelebA as it is published, drawn faces, and the Swiss roll."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from csvae_hub.data.base import AttributeData
from csvae_hub.data.celeba import ATTRIBUTES_FILE, celeba_folder, load_celeba
from csvae_hub.data.swiss_roll import swiss_roll
from csvae_hub.data.synthetic_faces import SyntheticFaces
from csvae_hub.data.table import load_table, table_splits
from csvae_hub.errors import DataError

__all__ = ["AttributeData", "SyntheticFaces", "load_celeba", "load_data", "load_table", "swiss_roll", "table_splits"]

DRAWN: dict[str, Callable[[int, int, int], AttributeData]] = {
    "swiss-roll": lambda n, seed, image_size: swiss_roll(n, seed),
    "synthetic-faces": SyntheticFaces,
}
"""Data sets that are drawn: from the number of examples, the seed and the side of a picture."""

DRAWN_SPLITS = ("train", "valid", "test")


def load_data(
    spec: str | Path,
    attributes: Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    cache_dir: str | Path | None = None,
    examples: int = 10_000,
    seed: int = 0,
    channels: int = 3,
) -> AttributeData:
    """Loads a data set by its name, or from a folder whose layout it recognises.

    Args:
        spec: `swiss-roll` or `synthetic-faces`, which are drawn; a folder in CelebA's layout or Kaggle's
            (`load_celeba`); or a folder with `attributes.csv` (`load_table`).
        attributes: the names, in order; the default is all.
        split: `train`, `valid` or `test`; of a folder also `all`.
        image_size: side of the square pictures in pixels; the Swiss roll has none.
        cache_dir: where decoded pictures are kept; by default `$CSVAE_HUB_CACHE` or `~/.cache/csvae-hub`.
        examples: in each split of drawn data; ignored for folders.
        seed: of drawn data; its splits always differ.
        channels: 3 for RGB; 1 for grey, of a folder.

    Raises:
        DataError: neither the name nor the folder is known, or its data is broken.
        UnknownAttributeError: an attribute that the data lacks.
    """
    if str(spec) in DRAWN:
        if split not in DRAWN_SPLITS:
            raise DataError(f"split: expected {', '.join(DRAWN_SPLITS)} of {spec}, got {split!r}")
        data = DRAWN[str(spec)](examples, len(DRAWN_SPLITS) * seed + DRAWN_SPLITS.index(split), image_size)
        return data if attributes is None else data.select(attributes)
    folder = Path(spec).expanduser()
    if celeba_folder(folder) is not None:
        return load_celeba(folder, attributes, split, image_size, cache_dir, channels=channels)
    if (folder / "attributes.csv").is_file():
        return load_table(folder, attributes, split, image_size, cache_dir=cache_dir, channels=channels)
    got = "no such folder"
    if folder.is_dir():
        got = "a folder without these" if any(folder.iterdir()) else "an empty folder"
    raise DataError(
        f"{spec}: expected {', '.join(DRAWN)}, a folder with images/ and attributes.csv, or CelebA's folder with "
        f"{ATTRIBUTES_FILE} and img_align_celeba/; got {got}"
    )
