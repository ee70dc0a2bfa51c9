"""Edits a folder of pictures with malformed metadata by the command line, and says what came of them.

    python benchmarks/malformed.py [--count 2000] [--seed 0]

Each picture is broken in one or several ways: EXIF, XMP, colour profiles and text chunks of wrong types and values,
flipped bytes, broken-off ends. `write` is what the tests use. Prints a line of JSON: pictures, failures (each named by
`csvae edit`), crashes, seconds and the peak of memory.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

KINDS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}
TAGS = (256, 259, 270, 271, 273, 274, 282, 296, 305, 306, 318, 330, 529, 700, 33432, 33723, 34665, 34853, 40965, 50728)
NAMES = ("dpi", "exif", "xmp", "icc_profile", "comment", "gamma", "transparency", "Raw profile type exif", "duration")


def exif_block(draw: random.Random) -> bytes:
    """A block of EXIF whose entries have random tags, types, counts and offsets."""
    order = draw.choice("<>")
    entries = b""
    count = draw.randrange(1, 12)
    for _ in range(count):
        tag = draw.choice([draw.choice(TAGS), draw.randrange(65536)])
        number = draw.choice([0, 1, 2, 3, 8, 200, 2**31, 2**32 - 1])
        entries += struct.pack(f"{order}HHLL", tag, draw.randrange(0, 15), number, draw.choice([0, 8, 50, 2**32 - 1]))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    following = struct.pack(f"{order}L", draw.choice([0, 8, 2**32 - 1]))
    data = head + struct.pack(f"{order}H", count) + entries + following + draw.randbytes(draw.randrange(60))
    return b"Exif\0\0" + data[: draw.choice([len(data), draw.randrange(len(data))])]


def xmp_block(draw: random.Random) -> bytes:
    """Half a packet of XMP, or none."""
    parts = [b"<x:xmpmeta>", b"<rdf:RDF>", b'<rdf:Description hdrgm:Version="1', b"<xmp:Thumbnails>", b"</rdf:Seq>"]
    parts += [b"<xmpMM:History>", b"\xff\xfe\0", b"</x:xmpmeta>", b'tiff:Orientation="', b"&#x0;", b"<!DOCTYPE a ["]
    return b"".join(draw.choices(parts, k=draw.randrange(1, 12)))


def picture(draw: random.Random) -> tuple[str, bytes]:
    """A picture as (ending, content)."""
    kind = draw.choice(KINDS)
    mode = draw.choice(["L", "RGB"] if kind in ("JPEG", "BMP") else ["L", "RGB", "RGBA", "P"])
    size = draw.choice([(24, 20), (16, 16), (64, 48)])
    image = Image.frombytes("RGB", size, draw.randbytes(3 * size[0] * size[1])).convert(mode)
    options: dict[str, object] = {}
    if kind in ("JPEG", "PNG", "WEBP") and draw.random() < 0.7:
        options["exif"] = exif_block(draw)
    if kind in ("JPEG", "WEBP") and draw.random() < 0.5:
        options["xmp"] = xmp_block(draw)
    if kind in ("JPEG", "PNG", "WEBP", "TIFF") and draw.random() < 0.4:
        options["icc_profile"] = draw.randbytes(draw.choice([0, 3, 127, 128, 400]))
    if kind == "JPEG" and draw.random() < 0.3:
        options["comment"] = draw.randbytes(40)
    if kind == "PNG":
        chunks = PngInfo()
        for name in draw.sample(NAMES, draw.randrange(4)):
            chunks.add_text(name, draw.choice(["abc", "", "1e999", "\n exif\n 4\n00zz", "9" * 5000]))
        if draw.random() < 0.4:
            chunks.add_itxt("XML:com.adobe.xmp", xmp_block(draw).decode("latin-1"))
        options["pnginfo"] = chunks
    file = BytesIO()
    image.save(file, kind, **options)
    content = bytearray(file.getvalue())
    if kind == "BMP":
        content[38:46] = struct.pack("<LL", *draw.choices([0, 1, 2**31, 2**32 - 1], k=2))
    if draw.random() < 0.4:
        for _ in range(draw.randrange(1, 6)):
            content[draw.randrange(min(len(content), draw.choice([60, 400, len(content)])))] = draw.randrange(256)
    if draw.random() < 0.1:
        del content[draw.randrange(len(content)) :]
    return SUFFIXES[kind], bytes(content)


def write(folder: Path, count: int, seed: int = 0) -> None:
    """Writes so many pictures into a folder."""
    draw = random.Random(seed)
    for i in range(count):
        suffix, content = picture(draw)
        (folder / f"{i:05}{suffix}").write_bytes(content)


def tiny_model(folder: Path) -> None:
    """Saves an untrained model of 16-pixel pictures."""
    from csvae_hub.config import BackboneConfig, ModelConfig
    from csvae_hub.models import create_model

    backbone = BackboneConfig(width=4, depth=1, features=8)
    create_model(ModelConfig(("Smiling",), shape=(3, 16, 16), z_dim=4, backbone=backbone)).save_pretrained(folder)


def edit(folder: Path, model: Path, output: Path) -> dict[str, object]:
    """Runs `csvae edit` on a folder, and gives what came of it."""
    with tempfile.TemporaryDirectory() as scratch:
        status = Path(scratch) / "status"
        code = (
            "import atexit, pathlib; from csvae_hub.cli import main; "
            "read = pathlib.Path('/proc/self/status').read_text; "
            f"atexit.register(lambda: pathlib.Path({str(status)!r}).write_text(read())); main()"
        )
        command = [sys.executable, "-W", "ignore", "-c", code, "edit", folder, "Smiling=1", "-o", output]
        command += ["--aligned", "--model", model, "--device", "cpu", "--json"]
        began = time.monotonic()
        run = subprocess.run(command, capture_output=True, text=True)
        seconds = round(time.monotonic() - began, 1)
        # not ru_maxrss, which begins with the parent's
        peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    result = {"exit": run.returncode, "seconds": seconds, "peak_mb": round(int(peak[1]) / 1024) if peak else None}
    if run.returncode not in (0, 1) or "Traceback" in run.stderr:
        return result | {"crashed": run.stderr[-2000:]}
    report = json.loads(run.stdout)
    named = [failure["error"].startswith(failure["input"]) for failure in report["failed"]]
    return result | {"edited": len(report["edited"]), "failed": len(named), "unnamed": named.count(False)}


def main() -> None:
    """Writes the pictures and edits them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        write(folder / "in", options.count, options.seed)
        tiny_model(folder / "model")
        print(json.dumps({"pictures": options.count} | edit(folder / "in", folder / "model", folder / "out")))


if __name__ == "__main__":
    main()
