"""Metadata and packing of a picture file: read, made true of the edited picture, and written.

Pillow writes what it is told, so each piece is carried by name. Left out is what would show the old picture or misplace
the new one (thumbnails, and how a TIFF lays out its pixels), and what a format can't hold, which is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from csvae_hub.editing import xmp as xmp_text
from csvae_hub.images import open_picture
from csvae_hub.opening import opened

ORIENTATION, WIDTH, HEIGHT = ExifTags.Base.Orientation, ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight
MAX_IN_JPEG = 65_533 - 29
"""Bytes; EXIF or XMP that is longer does not fit into a JPEG and is left out there."""
MAX_DPI = 65_535
DEFAULT_PACKING: dict[str, dict[str, Any]] = {
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "HEIF": {"quality": 90},
    "JPEG": {"quality": 95, "subsampling": 0},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"quality": 95},
}
LOSSLESS_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma")
WORDS = {
    "exif": "EXIF",
    "xmp": "XMP",
    "icc_profile": "colour profile",
    "dpi": "resolution",
    "comment": "comment",
    "mark": "mark of an edited photo",
    "packing": "way of packing",
}
"""The pieces of `Metadata` that a format may not hold, in words."""
_BLOCKS = {"exif", "xmp", "icc_profile", "mark"}
HELD = {"JPEG": set(WORDS), "BMP": {"dpi"}, "GIF": set[str](), "PNG": _BLOCKS | {"dpi"}, "TIFF": _BLOCKS | {"dpi"}}
HELD |= dict.fromkeys(("AVIF", "HEIF", "WEBP"), _BLOCKS)
"""The pieces that each format holds."""
TIFF_TEXTS = {270, 271, 272, 285, 305, 306, 315, 316, 33432}
"""Tags of text that are kept in a TIFF; libtiff crashes by values of some others."""
TIFF_SILENT = {282, 283, 296, 531, ORIENTATION}
"""Tags that are written anew or say nothing beside the pixels."""

_XMP_TAG = 700
_STORAGE_TAGS = {*range(254, 270), 273, *range(277, 282), 284, *range(288, 294), 297, 301, 317, *range(320, 326), 330}
_STORAGE_TAGS |= {*range(332, 348), *range(512, 522), 529, 530, 532, _XMP_TAG, 33723, 34377, 34675, 37724}
"""Of a TIFF: how it stores pixels, and blocks that are carried apart or hold previews."""


@dataclass(frozen=True)
class Metadata:
    """The metadata kept of a file. `packing` has, by format, the options that pack pixels as the source does."""

    icc_profile: bytes | None = None
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    mark: str = ""
    """The history of an edited photo; it comes with the digital source type: see `editing.xmp`."""
    packing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """The parts that could not be read, in words."""

    def options(self, kind: str, size: tuple[int, int]) -> dict[str, Any]:
        """The options of `PIL.Image.save` for a file of this kind that holds a picture of this size (width, height).

        A file packs pixels as a source of its kind does; others get quality 95 or a lossless packing.
        """
        packing = self.packing.get(kind, DEFAULT_PACKING.get(kind, {}))
        options: dict[str, Any] = {"icc_profile": self.icc_profile, **packing}
        if self.dpi is not None:
            options["dpi"] = self.dpi
        exif, xmp = self._exif(size), self._xmp()
        if kind == "TIFF":
            return options | _tiff_tags(exif, xmp)
        packed = exif.tobytes() if self.exif else b""
        if kind == "PNG":
            chunks = PngInfo()
            if xmp:
                chunks.add_itxt("XML:com.adobe.xmp", xmp)
            return options | {"exif": packed, "pnginfo": chunks}
        if kind == "JPEG":
            return options | {"exif": packed, "xmp": xmp, "comment": self.comment}
        return options | {"exif": packed, "xmp": xmp} if "xmp" in HELD[kind] else options

    def for_file(self, kind: str, mode: str, size: tuple[int, int]) -> tuple[Metadata, list[str]]:
        """The part that a file of this kind can hold and that is true of its pixels; what is left out, in words."""
        without = [name for name in WORDS if name != "packing" and getattr(self, name) and name not in HELD[kind]]
        space = b"GRAY" if mode in ("L", "LA") and kind != "WEBP" else b"RGB "
        if self.icc_profile and len(self.icc_profile) >= 128 and self.icc_profile[16:20] != space:
            without.append("icc_profile")
        if kind == "JPEG":
            without += self._too_long(size)
        words = [WORDS[name] for name in dict.fromkeys(without)]
        if kind == "TIFF" and (tags := self._unsafe_tags()):
            words.append(f"tags {', '.join(map(str, tags[:8]))}{', …' if tags[8:] else ''}")
        return self._without(without), words

    def storable(self, kind: str, mode: str) -> tuple[Metadata, list[str]]:
        """The pieces that Pillow can write, each tried with a small picture; those that it can't, in words."""
        without: list[str] = []
        for name in WORDS:
            try:
                options = Metadata(**{name: getattr(self, name)}).options(kind, (16, 16))
                Image.new(mode, (16, 16)).save(BytesIO(), kind, **options)
            except Exception:  # Pillow raises anything, by the value
                without.append(name)
        return self._without(without), [WORDS[name] for name in without]

    def _without(self, names: list[str]) -> Metadata:
        empty = Metadata()
        return replace(self, **{name: getattr(empty, name) for name in names})

    def _too_long(self, size: tuple[int, int]) -> list[str]:
        """The pieces that are too long for a JPEG; the mark stays without the rest of XMP."""
        longer = {"xmp": len(self._xmp()), "comment": len(self.comment)}
        with suppress(Exception):  # `storable` finds it
            longer["exif"] = len(self._exif(size).tobytes()) if self.exif else 0
        return [name for name, length in longer.items() if length > MAX_IN_JPEG]

    def _xmp(self) -> bytes:
        return xmp_text.marked(self.xmp.decode("utf-8", "replace"), self.mark).encode() if self.mark else self.xmp

    def _exif(self, size: tuple[int, int]) -> Image.Exif:
        exif = Image.Exif()
        if self.exif:
            exif.load(self.exif)
            details = exif.get_ifd(ExifTags.IFD.Exif)
            details.update({tag: side for tag, side in zip((WIDTH, HEIGHT), size, strict=True) if tag in details})
        return exif

    def _unsafe_tags(self) -> list[int]:
        try:
            found = self._exif((0, 0)).items()
            return [tag for tag, value in found if tag not in TIFF_SILENT and not _is_safe(tag, value)]
        except Exception:  # `storable` finds it
            return []


def _tiff_tags(exif: Image.Exif, xmp: bytes) -> dict[str, Any]:
    for tag in [tag for tag, value in exif.items() if not _is_safe(tag, value)]:
        del exif[tag]
    if xmp:
        exif[_XMP_TAG] = xmp
    if ExifTags.IFD.Exif not in exif and ExifTags.IFD.GPSInfo not in exif:
        return {"exif": exif}
    exif.get_ifd(ExifTags.IFD.Exif).pop(ExifTags.IFD.Interop, None)
    return {"exif": exif, "compression": "raw"}  # Pillow can't pack pixels beside directories within directories


def _is_safe(tag: int, value: Any) -> bool:
    """True for a known tag with a value of its type."""
    if tag in TIFF_TEXTS:
        return isinstance(value, str)
    return tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) or (tag == ORIENTATION and value == 1)


def open_with_metadata(path: Path) -> tuple[Image.Image, Metadata]:
    """Gives the picture in a file, upright and of 8 bits (L, LA, RGB or RGBA), and its metadata; see `open_file`."""
    picture = open_picture(path)
    with path.open("rb") as file, opened(file) as header:
        return picture, _read(header, picture, path)


def _read(header: Image.Image, picture: Image.Image, path: Path) -> Metadata:
    kind = "JPEG" if header.format == "MPO" else header.format or ""
    left_out: list[str] = []

    def read(name: str, get: Callable[[], bytes]) -> bytes:
        try:
            return get()
        except Exception:  # Pillow raises anything; what can't be read is not worth a picture
            left_out.append(WORDS[name])
            return b""

    exif = read("exif", lambda: _upright((header if kind == "TIFF" else picture).getexif()))  # a PNG's may come late
    xmp = read("xmp", lambda: xmp_text.clean(picture.info.get("xmp") or header.info.get("xmp") or "").encode())
    packings = {"JPEG": _jpeg_packing, "WEBP": _webp_packing, "TIFF": _tiff_packing}
    packing = {}
    if kind in packings:
        with suppress(Exception):  # the pixels could be read without
            packing = packings[kind](header, path)
    profile, comment = (header.info.get(name) for name in ("icc_profile", "comment"))
    dpi = _dpi(header.info.get("dpi"))
    if dpi is None and "dpi" in header.info:
        left_out.append(WORDS["dpi"])
    if kind != "JPEG" and _is_animated(header):
        left_out.append("frames but the first")
    return Metadata(
        profile if isinstance(profile, bytes) and header.mode != "CMYK" else None,  # it would describe inks
        exif,
        xmp,
        dpi,
        comment if isinstance(comment, bytes) and kind == "JPEG" else b"",
        packing={kind: packing} if packing else {},
        left_out=tuple(left_out),
    )


def _is_animated(header: Image.Image) -> bool:
    try:
        return bool(getattr(header, "is_animated", False))
    except Exception:  # the second frame is broken
        return True


def _dpi(given: Any) -> tuple[float, float] | None:
    """A resolution that can be written, in pixels an inch."""
    try:
        x, y = map(float, given)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(side) and 0 < side <= MAX_DPI for side in (x, y)) else None


def _upright(exif: Image.Exif) -> bytes:
    """EXIF of the picture turned upright; without the thumbnail, which lies in a directory that Pillow doesn't copy."""
    for tag in _STORAGE_TAGS.intersection(exif):
        del exif[tag]
    if not len(exif):
        return b""
    exif[ORIENTATION] = 1
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if directory in exif:
            exif.get_ifd(directory)
    return exif.tobytes()


def _jpeg_packing(header: Any, path: Path) -> dict[str, Any]:
    if header.mode not in ("L", "RGB") or header.info.get("adobe_transform") == 0:
        return {}
    used = dict.fromkeys(table for _, _, _, table in header.layer)  # in the order of the channels
    tables = [header.quantization[table] for table in used]
    colours = {} if header.mode == "L" else {"subsampling": max(0, JpegImagePlugin.get_sampling(header))}
    return {"qtables": tables, **colours, "progressive": bool(header.info.get("progressive"))}


def _webp_packing(header: Any, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8 and head[:4] != b"VP8 ":
            if head[:4] == b"VP8L":
                return {"lossless": True, "exact": True}
            length = int.from_bytes(head[4:], "little")
            file.seek(length + length % 2, 1)  # chunks are padded to even lengths
    return {}


def _tiff_packing(header: Image.Image, path: Path) -> dict[str, Any]:
    compression = header.info.get("compression")
    return {"compression": compression} if compression in LOSSLESS_TIFF else {}
