"""Picture files from strangers: known formats only, and no more pixels than the limit."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from csvae_hub import FaceEditor, opening
from csvae_hub.errors import ImageError
from csvae_hub.images import open_image, open_picture
from csvae_hub.opening import READ, opened, pixels_in

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(ran) print flush showpage\n%%EOF\n"


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def announced(width, height):
    """A PNG whose header announces a size, without pixels."""
    head = chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".eps", ".jpg", ".png"])
def test_postscript_never_reaches_ghostscript(tmp_path, monkeypatch, suffix):
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **options: started.append(args))
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/true")
    (tmp_path / f"a{suffix}").write_bytes(EPS)
    with pytest.raises(ImageError, match=rf"a{suffix}: expected a picture file .*, got one that begins with b'%!PS-A"):
        open_image(tmp_path / f"a{suffix}")
    assert started == []


@pytest.mark.parametrize("kind", [*(kind for kind in READ if kind != "HEIF"), "JPEG2000", "PPM", "ICO", "TGA"])
def test_known_formats_alone_are_read(tmp_path, kind):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (16, 16), (200, 100, 50)).save(path, kind)
    if kind in READ:
        assert np.abs(np.asarray(open_image(path), dtype=int) - (200, 100, 50)).max() < 20
    else:
        with pytest.raises(ImageError, match="expected a picture file"):
            open_image(path)


def test_size_is_refused_by_the_header_with_the_remedy(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(announced(20_000, 20_000))
    words = r"at most 100 megapixels, got 20000×20000 \(400 megapixels\): make it smaller, or raise .*--max-megapixels"
    with pytest.raises(ImageError, match=f"^{path}: expected a picture of {words}"):
        open_image(path)
    assert pixels_in(path) == 400_000_000
    Image.new("RGB", (100, 100)).save(path)
    assert pixels_in(path) == 10_000
    assert pixels_in(tmp_path / "none.png") == 0
    monkeypatch.setattr(opening, "MAX_PIXELS", 5_000)
    for given in (path, Image.new("RGB", (100, 100))):
        with pytest.raises(ImageError, match="at most 0.005 megapixels"):
            open_picture(given)


def test_limit_is_ours_not_pillows_and_pillows_stays(monkeypatch):
    given = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(opening, "MAX_PIXELS", 500_000_000)
    for size in ((9_600, 9_600), (19_000, 19_000)):  # Pillow warns of the first and refuses the second
        with opened(BytesIO(announced(*size))) as picture:
            assert picture.size == size
    assert given == Image.MAX_IMAGE_PIXELS


def test_threads_leave_pillows_limit_alone(tmp_path):
    given = Image.MAX_IMAGE_PIXELS
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    threads = [threading.Thread(target=open_image, args=[tmp_path / "a.png"]) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given == Image.MAX_IMAGE_PIXELS


def test_a_file_of_16_bits_takes_little_memory(tmp_path):
    """At most 12 bytes a pixel."""
    Image.fromarray(np.zeros((5_000, 5_000), dtype=np.uint16)).save(tmp_path / "a.png")
    code = (
        "import resource, sys; from csvae_hub.images import open_picture\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); open_picture(sys.argv[1]); print((peak() - before) * 1024 / 25e6)"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 12


@pytest.mark.parametrize("read", [open_image, open_picture, lambda address: FaceEditor("celeba-64").open(address)])
def test_a_web_address_is_no_file(read):
    with pytest.raises(ImageError, match="expected the name of a file, got a web address: download the picture first"):
        read("https://example.org/photo.jpg")
