"""Opens picture files of known formats and bounded size, and gives pictures upright and of 8 bits."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from csvae_hub.errors import ImageError
from csvae_hub.text import is_address

MIN_SIDE = 8
"""Pictures with a shorter side, in pixels, are refused: they show no face."""

MAX_PIXELS = 100_000_000
"""Pictures of more pixels are refused by their header, before memory is taken. Set it to change the limit."""

READ = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")
"""Pillow's names of the formats that are read, where Pillow has them. Others are not tried: EPS starts Ghostscript."""

_PILLOWS_LIMIT = Image.MAX_IMAGE_PIXELS
_HEADER = threading.Lock()
_STRIP_PIXELS = 2**20


@contextmanager
def opened(file: IO[bytes]) -> Iterator[ImageFile.ImageFile]:
    """Opens a picture by its header: a format of `READ` (or UnidentifiedImageError), `MAX_PIXELS` (or ImageError)."""
    with _header(file) as picture:
        _small_enough(picture)
        yield picture


def open_file(path: str | os.PathLike[str]) -> Image.Image:
    """Gives the picture in a file, upright, in the nearest of the modes L, LA, RGB, RGBA.

    Raises:
        ImageError: no such file, no picture, a truncated, tiny or too large one; the path is named.
    """
    if is_address(os.fspath(path)):
        raise ImageError(f"{path}: expected the name of a file, got a web address: download the picture first")
    path = Path(path)
    if not path.is_file():
        got = "a folder: give the files in it" if path.is_dir() else "nothing there: check the name and the folder"
        raise ImageError(f"{path}: expected a picture file, got {got}")
    return _read(str(path), lambda: path.open("rb"))  # by its path, Pillow garbles turned TIFFs


def open_bytes(content: bytes, name: str) -> Image.Image:
    """Gives the picture that a file of this name holds, as `open_image` does; an ImageError names it."""
    return _in_colour(_read(name, lambda: BytesIO(content)))


def _in_colour(picture: Image.Image) -> Image.Image:
    return picture.convert("RGBA" if picture.mode in ("LA", "RGBA") else "RGB")


def _read(name: str, opener: Callable[[], IO[bytes]]) -> Image.Image:
    try:
        with opener() as file, opened(file) as picture:
            return upright_8_bit(picture)
    except UnidentifiedImageError as error:
        with opener() as file:
            head = file.read(16)
        got = f"one that begins with {head!r}" if head else "an empty one"
        raise ImageError(
            f"{name}: expected a picture file (JPEG, PNG, WebP, …), got {got}: convert it, or leave it out"
        ) from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's decoders raise anything
        raise ImageError(f"{name}: {_unreadable(error)}") from error


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Gives the picture in a file, upright, 8-bit RGB, or RGBA where it has transparency; errors as `open_file`."""
    return _in_colour(open_file(path))


def open_picture(image: object) -> Image.Image:
    """Gives a path, PIL image or uint8 array as an upright 8-bit picture of its own: L, LA, RGB or RGBA.

    Raises:
        ImageError: something else, or one that cannot be read or has a shape or type that can't be right.
    """
    if isinstance(image, str | os.PathLike):
        return open_file(image)
    if isinstance(image, Image.Image):
        return upright_8_bit(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    raise ImageError(f"expected a path, a PIL image or a uint8 array (H, W, 3), got {type(image).__name__}")


def from_array(image: np.ndarray[Any, Any]) -> Image.Image:
    """Gives a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as a picture; errors are ImageError."""
    if image.dtype != np.uint8:
        scaled = {"f": "np.round(255 * image)", "u": "(image // 257)"}.get(image.dtype.kind, "image")
        raise ImageError(
            f"expected an array of uint8 (0 to 255), got {image.dtype}: convert it, as by {scaled}.astype(np.uint8),"
            " or give a float tensor (C, H, W) in [0, 1]"
        )
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
        remedy = "give grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4)"
        if image.ndim == 4:
            remedy = "give a batch as list(images)"
        elif image.ndim == 3 and image.shape[0] in (1, 3, 4):
            remedy = "put the channels last, as by image.transpose(1, 2, 0)"
        raise ImageError(f"expected an array of shape (H, W, 3), got {image.shape}: {remedy}")
    check_side(image.shape[1], image.shape[0])
    return Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)


def pixels_in(path: Path) -> int:
    """The number of pixels that a file's header announces; 0 if it can't be read."""
    try:
        with path.open("rb") as file, _header(file) as picture:
            return picture.width * picture.height
    except Exception:  # opening the picture will say what is wrong
        return 0


def upright_8_bit(picture: Image.Image) -> Image.Image:
    """Gives a picture of its own, upright, in the nearest of the modes L, LA, RGB, RGBA; errors are ImageError."""
    check_side(*picture.size)
    _small_enough(picture)
    if picture.mode == "F":
        raise ImageError("expected a picture of 8 or 16 bits, got floats (mode F): scale it to 0…255, mode L")
    try:
        picture.load()
        try:
            upright = ImageOps.exif_transpose(picture)
        except Exception:  # EXIF that cannot be read says nothing, and the pixels may be sound
            upright = picture.copy()
        if isinstance(upright.info.get("transparency"), str):  # text of a PNG that happens to have this name
            del upright.info["transparency"]
        if upright.mode.startswith("I"):
            return _from_16_bit(upright)
        if upright.mode in ("RGBA", "LA") or (upright.mode in ("RGB", "L") and not upright.has_transparency_data):
            return upright
        grey = upright.mode in ("1", "L", "La")
        converted = upright.convert(("L" if grey else "RGB") + "A" * upright.has_transparency_data)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_unreadable(error)) from error
    if upright.mode == "CMYK":
        converted.info.pop("icc_profile", None)  # it describes inks
    return converted


def check_side(width: int, height: int) -> None:
    """Raises ImageError if a side, in pixels, is shorter than `MIN_SIDE`."""
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"expected a picture of at least {MIN_SIDE}×{MIN_SIDE} pixels, got {width}×{height} (width × height):"
            " give a larger one"
        )


def _small_enough(picture: Image.Image) -> None:
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"expected a picture of at most {MAX_PIXELS / 1e6:g} megapixels, got {picture.width}×{picture.height}"
            f" ({pixels / 1e6:.0f} megapixels): make it smaller, or raise the limit (--max-megapixels, or"
            " csvae_hub.opening.MAX_PIXELS)"
        )


@contextmanager
def _header(file: IO[bytes]) -> Iterator[ImageFile.ImageFile]:
    """Opens a picture with our limit in place of Pillow's, unless the user has set Pillow's."""
    _register()
    formats = [name for name in READ if name in Image.OPEN]
    with _HEADER:
        given = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None if given == _PILLOWS_LIMIT else given
        try:
            picture = Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = given
    with picture:
        yield picture


@cache
def _register() -> None:
    """Lets Pillow know its formats and, where pillow-heif is installed, HEIF; once, since looking for it takes time."""
    Image.init()
    if "HEIF" not in Image.OPEN and importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()


def _unreadable(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"expected a picture of a sane size, got {error}: make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
    return f"expected a whole picture, got one that is broken off or corrupt ({error}): copy or download it again"


def _from_16_bit(picture: Image.Image) -> Image.Image:
    """Scales grey values of 16 bits to 8, strip by strip, so that little memory is taken."""
    width, height = picture.size
    grey = np.empty((height, width), dtype=np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        values = np.asarray(strip).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"expected grey values of 16 bits, 0 to 65535, got {values.min()} to {values.max()}:"
                " scale it to 0…255, mode L"
            )
        grey[top : top + rows] = (values + 128) // 257
    return Image.fromarray(grey)
