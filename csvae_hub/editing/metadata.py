"""Metadata and packing of a picture file: read, made true of the edited picture, and written.

Pillow writes what it is told, so each piece is carried by name. Left out is what would show the old picture or misplace
the new one: thumbnails, and how a TIFF lays out its pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from csvae_hub.images import open_picture

ORIENTATION, WIDTH, HEIGHT = ExifTags.Base.Orientation, ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight
MAX_IN_JPEG = 65_533 - 29
"""Bytes; EXIF or XMP that is longer does not fit into a JPEG and is left out there."""
DEFAULT_PACKING: dict[str, dict[str, Any]] = {
    "BMP": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"quality": 95},
}
LOSSLESS_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma")

_XMP_TAG = 700
_STORAGE_TAGS = frozenset(
    {
        *range(254, 270),
        *range(277, 282),
        273,
        284,
        *range(288, 294),
        297,
        301,
        317,
        *range(320, 326),
        330,
        *range(332, 348),
    }
    | {*range(512, 522), 529, 530, 532, _XMP_TAG, 33723, 34377, 34675, 37724}
)
"""Of a TIFF: how it stores pixels, and blocks that are carried apart or hold previews."""
_XMP_THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", re.DOTALL)
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))\s*\d""")


@dataclass(frozen=True)
class Metadata:
    """The metadata kept of a file. `packing` has, by format, the options that pack pixels as the source does."""

    icc_profile: bytes | None = None
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    packing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options(self, kind: str, size: tuple[int, int]) -> dict[str, Any]:
        """The options of `PIL.Image.save` for a file of this kind that holds a picture of this size (width, height).

        JPEG keeps the quantisation and the colour resolution of a JPEG source, WebP and TIFF whether the source is
        lossless; others get quality 95 or a lossless packing. What a kind can't hold is left out.
        """
        options = {"icc_profile": self.icc_profile, **self.packing.get(kind, DEFAULT_PACKING[kind])}
        if self.dpi is not None:
            options["dpi"] = self.dpi
        exif = self._exif(size)
        if kind == "TIFF":
            return options | self._tiff_tags(exif)
        packed = exif.tobytes() if self.exif else b""
        if kind == "PNG":
            chunks = PngInfo()
            if self.xmp:
                chunks.add_itxt("XML:com.adobe.xmp", self.xmp)
            return options | {"exif": packed, "pnginfo": chunks}
        if kind == "JPEG":
            fitting = {name: part for name, part in (("exif", packed), ("xmp", self.xmp)) if len(part) <= MAX_IN_JPEG}
            return options | fitting | {"comment": self.comment}
        return options | {"exif": packed, "xmp": self.xmp}

    def _exif(self, size: tuple[int, int]) -> Image.Exif:
        exif = Image.Exif()
        if self.exif:
            exif.load(self.exif)
            details = exif.get_ifd(ExifTags.IFD.Exif)
            details.update({tag: side for tag, side in zip((WIDTH, HEIGHT), size, strict=True) if tag in details})
        return exif

    def _tiff_tags(self, exif: Image.Exif) -> dict[str, Any]:
        if self.xmp:
            exif[_XMP_TAG] = self.xmp
        if ExifTags.IFD.Exif not in exif and ExifTags.IFD.GPSInfo not in exif:
            return {"exif": exif}
        exif.get_ifd(ExifTags.IFD.Exif).pop(ExifTags.IFD.Interop, None)
        return {"exif": exif, "compression": "raw"}  # Pillow can't pack pixels beside directories within directories


def open_with_metadata(path: Path) -> tuple[Image.Image, Metadata]:
    """Gives the picture in a file, upright and of 8 bits (L, LA, RGB or RGBA), and what the file says beside.

    Raises:
        ImageError: no such file, no picture, a truncated or tiny one, a decompression bomb; the path is named.
    """
    picture = open_picture(path)
    with Image.open(path) as opened:  # only its head is read again
        return picture, _read(opened, picture)


def _read(opened: Image.Image, picture: Image.Image) -> Metadata:
    kind = "JPEG" if opened.format == "MPO" else opened.format or ""
    try:
        exif = _upright((opened if kind == "TIFF" else picture).getexif())  # a PNG's may come after the pixels
    except Exception:  # Pillow raises whatever it stumbles over; EXIF that can't be read is not worth a picture
        exif = b""
    packings = {"JPEG": _jpeg_packing, "WEBP": _webp_packing, "TIFF": _tiff_packing}
    packing = packings[kind](opened) if kind in packings else {}
    return Metadata(
        opened.info.get("icc_profile") if opened.mode != "CMYK" else None,  # it would describe inks
        exif,
        _clean_xmp(picture.info.get("xmp") or opened.info.get("xmp") or b""),
        opened.info.get("dpi"),
        opened.info.get("comment", b"") if kind == "JPEG" else b"",
        {kind: packing} if packing else {},
    )


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


def _clean_xmp(xmp: object) -> bytes:
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if not isinstance(xmp, bytes):
        return b""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", _XMP_THUMBNAILS.sub(b"", xmp))


def _jpeg_packing(opened: Any) -> dict[str, Any]:
    if opened.mode not in ("L", "RGB") or opened.info.get("adobe_transform") == 0:
        return {}
    used = dict.fromkeys(table for _, _, _, table in opened.layer)  # in the order of the channels
    tables = [opened.quantization[table] for table in used]
    colours = {} if opened.mode == "L" else {"subsampling": max(0, JpegImagePlugin.get_sampling(opened))}
    return {"qtables": tables, **colours, "progressive": bool(opened.info.get("progressive"))}


def _webp_packing(opened: Any) -> dict[str, Any]:
    with Path(opened.filename).open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8 and head[:4] != b"VP8 ":
            if head[:4] == b"VP8L":
                return {"lossless": True, "exact": True}
            length = int.from_bytes(head[4:], "little")
            file.seek(length + length % 2, 1)  # chunks are padded to even lengths
    return {}


def _tiff_packing(opened: Image.Image) -> dict[str, Any]:
    compression = opened.info.get("compression")
    return {"compression": compression} if compression in LOSSLESS_TIFF else {}
