"""Picture files, decoded once into a memory-mapped array in a cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csvae_hub.data.base import expect
from csvae_hub.errors import DataError, ImageError
from csvae_hub.hub import replacing
from csvae_hub.images import center_square
from csvae_hub.opening import open_bytes, open_image

Picture: TypeAlias = "Path | tuple[str, bytes]"
"""A picture file, or a file's name and content."""

Crop: TypeAlias = tuple[tuple[int, int], int]
"""((width, height), side): all pictures have this size, and the central square of this side is taken from them."""

CACHE_VERSION = 1
"""Part of every cache key: raise it when decoding changes."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode by the number of channels."""

AT_ONCE = 64
"""Pictures that are decoded side by side, and whose files are in memory together."""

Watch: TypeAlias = Callable[[int, "int | None"], None]
"""Is told how many pictures are decoded, and of how many, where that is known."""

_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)
_log = logging.getLogger(__name__)


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """Within it `watch` is called while pictures are decoded into the cache, `AT_ONCE` of them at a time."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Where decoded pictures are kept: the argument, else `$CSVAE_HUB_CACHE`, else `~/.cache/csvae-hub`."""
    return Path(cache_dir or os.environ.get("CSVAE_HUB_CACHE") or "~/.cache/csvae-hub").expanduser()


def load_pictures(
    folder: Path,
    files: Sequence[str],
    image_size: int,
    cache_dir: str | Path | None = None,
    crop: Crop | None = None,
    channels: int = 3,
) -> NDArray[np.uint8]:
    """The pictures as one read-only, memory-mapped array, uint8 (N, channels, image_size, image_size), RGB or grey.

    The first call decodes them into the cache folder, under a fingerprint of folder, file names, sizes and times of
    change. Later calls read the cache; a changed file is decoded again. The largest central square is taken, or that of
    `crop`.

    Raises:
        DataError: files that are missing or broken, each named; no files; a cache folder that can't be written.
    """
    expect(image_size > 0, f"image_size: expected a positive number of pixels, got {image_size}")
    expect(files, f"{folder}: expected at least one picture, got none")
    expect(channels in MODES, f"channels: expected 1 (grey) or 3 (RGB), got {channels}")
    shape = (len(files), channels, image_size, image_size)
    cached = cache_folder(cache_dir) / f"{_key(folder, files, shape, crop)}.npy"
    images = read_cached(cached, shape)
    if images is None:
        _log.info("decoding %d pictures of %s into %s", len(files), folder, cached)
        write_pictures(cached, [folder / name for name in files], image_size, channels, crop)
        images = np.load(cached, mmap_mode="r", allow_pickle=False)
    return images


def read_cached(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The pictures in a file of the cache, memory-mapped; None where they are missing, cut off or of another shape."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.uint8 and array.shape == shape else None


def decode(source: Picture, image_size: int, crop: Crop | None = None, channels: int = 3) -> NDArray[np.uint8]:
    """One picture as uint8 (channels, image_size, image_size): central square, then a bicubic, antialiased resize.

    Without `crop` these are the pixels that `csvae_hub.images.load_images` gives a model. An `ImageError` names a file
    that is broken or of another size than `crop` asks for.
    """
    name, content = (source, None) if isinstance(source, Path) else source
    picture = (open_image(name) if content is None else open_bytes(content, str(name))).convert(MODES[channels])
    if crop is not None:
        (width, height), side = crop
        if picture.size != (width, height):
            got = f"{picture.width}×{picture.height}"
            raise ImageError(f"{name}: expected a picture of {width}×{height} pixels, got {got}")
        left, top = (width - side) // 2, (height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    left, top, side = center_square(*picture.size)
    box = (left, top, left + side, top + side)
    picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _key(folder: Path, files: Sequence[str], shape: tuple[int, ...], crop: Crop | None) -> str:
    missing = [name for name in files if not (folder / name).exists()]
    are = "is" if len(missing) == 1 else "are"
    remedy = "add the files or drop their rows"
    expect(not missing, f"{_some(missing)} {are} listed but missing from {folder}: {remedy}")
    stats = [(name, (stat := (folder / name).stat()).st_size, stat.st_mtime_ns) for name in files]
    mode = [] if shape[1] == 3 else [MODES[shape[1]]]
    parts = json.dumps([CACHE_VERSION, str(folder.resolve()), shape[-1], crop, stats, *mode])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def write_pictures(
    target: Path, pictures: Iterable[Picture], image_size: int, channels: int, crop: Crop | None = None
) -> int:
    """Decodes pictures into a file of the cache, `AT_ONCE` of them in memory at a time; gives their number.

    Writes into a file of another name and renames it, so that no process sees a half-written cache.

    Raises:
        DataError: pictures that are broken, each named; a cache folder that can't be written.
    """

    def attempt(picture: Picture) -> NDArray[np.uint8] | str:
        try:
            return decode(picture, image_size, crop, channels)
        except ImageError as error:
            return str(error)

    broken: list[str] = []
    count, remaining, watch = 0, iter(pictures), _WATCH.get()
    total = len(pictures) if isinstance(pictures, Sequence) else None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Ordinary writes: a full disk ends a process that writes through a memory map.
        with replacing(target) as temporary, temporary.open("wb") as file, ThreadPoolExecutor() as pool:
            _write_header(file, (0, channels, image_size, image_size))
            while part := list(islice(remaining, AT_ONCE)):
                count += len(part)
                for result in pool.map(attempt, part):
                    if isinstance(result, str):
                        broken.append(result)
                    elif not broken:
                        file.write(result.tobytes())
                if watch is not None:
                    watch(count, total)
            expect(not broken, f"{len(broken)} of {count} pictures can't be used: {_some(broken, '; ')}")
            file.seek(0)
            _write_header(file, (count, channels, image_size, image_size))
    except OSError as error:
        raise DataError(
            f"the cache folder {target.parent} can't be written ({error}): "
            "give another as cache_dir or in the environment variable CSVAE_HUB_CACHE"
        ) from error
    return count


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The header of a .npy file; NumPy leaves room in it, so that its length is the same for any first number."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _some(names: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more
