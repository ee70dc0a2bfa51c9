"""Data sets: folders, the Hugging Face Hub, shards of tar files, drawn faces, and the Swiss roll."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from csvae_hub.data.balance import balanced
from csvae_hub.data.base import AttributeData
from csvae_hub.data.celeba import ATTRIBUTES_FILE, celeba_folder, load_celeba
from csvae_hub.data.hugging_face import hugging_face_splits, load_hugging_face
from csvae_hub.data.pictures import watched_by
from csvae_hub.data.resident import on_device
from csvae_hub.data.shards import load_shards, shard_splits
from csvae_hub.data.swiss_roll import swiss_roll
from csvae_hub.data.synthetic_faces import SyntheticFaces
from csvae_hub.data.table import load_table, table_splits
from csvae_hub.errors import DataError

__all__ = [
    "AttributeData",
    "SyntheticFaces",
    "balanced",
    "has_split",
    "load_celeba",
    "load_data",
    "load_hugging_face",
    "load_shards",
    "load_table",
    "on_device",
    "swiss_roll",
    "table_splits",
    "watched_by",
]

DRAWN: dict[str, Callable[[int, int, int], AttributeData]] = {
    "swiss-roll": lambda n, seed, image_size: swiss_roll(n, seed),
    "synthetic-faces": SyntheticFaces,
}
"""Data sets that are drawn: from the number of examples, the seed and the side of a picture."""

STREAMED = {"hf:": (load_hugging_face, hugging_face_splits), "wds:": (load_shards, shard_splits)}
"""By the beginning of a source: the functions that load it and that name its splits."""

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
            (`load_celeba`); a folder with `attributes.csv` (`load_table`); `hf:` and a data set of the Hugging Face
            Hub, or a folder such as its library reads (`load_hugging_face`); `wds:` and tar files (`load_shards`).
        attributes: the names, in order; the default is all.
        split: `train`, `valid` or `test`; of data that isn't drawn also `all`.
        image_size: side of the square pictures in pixels; the Swiss roll has none.
        cache_dir: where decoded pictures are kept; by default `$CSVAE_HUB_CACHE` or `~/.cache/csvae-hub`.
        examples: in each split of drawn data; ignored for others.
        seed: of drawn data; its splits always differ.
        channels: 3 for RGB; 1 for grey, of data that isn't drawn.

    Raises:
        DataError: neither the name nor the folder is known, or its data is broken.
        MissingExtraError: the library that reads the source isn't installed.
        UnknownAttributeError: an attribute that the data lacks.
    """
    if str(spec) in DRAWN:
        if split not in DRAWN_SPLITS:
            raise DataError(f"split: expected {', '.join(DRAWN_SPLITS)} of {spec}, got {split!r}")
        data = DRAWN[str(spec)](examples, len(DRAWN_SPLITS) * seed + DRAWN_SPLITS.index(split), image_size)
        return data if attributes is None else data.select(attributes)
    for prefix, (load, _) in STREAMED.items():
        if str(spec).startswith(prefix):
            return load(str(spec).removeprefix(prefix), attributes, split, image_size, cache_dir, channels)
    folder = Path(spec).expanduser()
    if celeba_folder(folder) is not None:
        return load_celeba(folder, attributes, split, image_size, cache_dir, channels=channels)
    if (folder / "attributes.csv").is_file():
        return load_table(folder, attributes, split, image_size, cache_dir=cache_dir, channels=channels)
    got = "no such folder"
    if folder.is_dir():
        got = "a folder without these" if any(folder.iterdir()) else "an empty folder"
    raise DataError(
        f"{spec}: expected {', '.join(DRAWN)}, a folder with images/ and attributes.csv, CelebA's folder with "
        f"{ATTRIBUTES_FILE} and img_align_celeba/, hf:OWNER/NAME or wds:SHARDS.tar; got {got}"
    )


def has_split(spec: str | Path, split: str) -> bool:
    """True where `load_data` finds this split in a source that it knows; drawn data and CelebA have all three.

    Raises:
        DataError, MissingExtraError: as `load_data`.
    """
    for prefix, (_, splits) in STREAMED.items():
        if str(spec).startswith(prefix):
            return split in splits(str(spec).removeprefix(prefix))
    folder = Path(spec).expanduser()
    return not (folder / "attributes.csv").is_file() or split in table_splits(folder)
