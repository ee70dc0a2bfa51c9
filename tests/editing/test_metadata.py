"""What a file says beside its pixels: kept, made true of the edited picture, and without the old one's thumbnail."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from csvae_hub.editing.files import FORMATS, save_picture
from csvae_hub.editing.metadata import Metadata, open_with_metadata
from csvae_hub.errors import ImageError

KINDS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
THUMBNAIL = b"the old face, small"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:creator="Ann"/>'
    b"<tiff:Orientation>6</tiff:Orientation><xmp:Thumbnails><xmpGImg:image>" + THUMBNAIL + b"</xmpGImg:image>"
    b"</xmp:Thumbnails></x:xmpmeta>"
)


def exif_of(width, height):
    """EXIF as a camera writes it: turned by 90°, with a place, and a thumbnail in a directory of its own."""
    exif = Image.Exif()
    exif[Base.Orientation], exif[Base.Make], exif[Base.Copyright] = 6, "Maker", "Ann"
    exif.get_ifd(IFD.Exif).update(
        {Base.DateTimeOriginal: "2020:01:02 03:04:05", Base.ExifImageWidth: width, Base.ExifImageHeight: height}
    )
    exif.get_ifd(IFD.Exif)[Base.ExposureTime] = 0.02
    exif.get_ifd(IFD.GPSInfo).update({1: "N", 2: (52.0, 30.0, 1.5)})
    data = bytearray(exif.tobytes())
    start = 6 + 8 + 2 + 12 * struct.unpack_from(">H", data, 14)[0]
    struct.pack_into(">L", data, start, len(data) - 6)
    data += struct.pack(">HHHLLHHLLL", 2, 0x201, 4, 1, len(data) - 6 + 30, 0x202, 4, 1, len(THUMBNAIL), 0) + THUMBNAIL
    loaded = Image.Exif()
    loaded.load(bytes(data))
    assert loaded.get_ifd(IFD.IFD1)[0x202] == len(THUMBNAIL)
    return bytes(data)


def write(path, picture, kind, **options):
    extra = {"xmp": XMP} if kind in ("JPEG", "WEBP") else {}
    exif = exif_of(*picture.size)
    if kind == "PNG":
        extra["pnginfo"] = PngInfo()
        extra["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    if kind == "TIFF":
        loaded = Image.Exif()
        loaded.load(exif)
        loaded[700] = XMP
        exif = loaded
    picture.save(path, kind, exif=exif, icc_profile=PROFILE, dpi=(300, 300), **extra, **options)
    assert kind == "TIFF" or THUMBNAIL in path.read_bytes()
    return path


def noise(mode="RGB", size=(48, 32)):
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze()).resize(size, Image.Resampling.BICUBIC)


def copied(source, target):
    """A file edited by an edit that changes nothing."""
    picture, metadata = open_with_metadata(source)
    save_picture(picture, target, metadata)
    return Image.open(target)


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_everything_is_kept_and_true_of_the_upright_picture(tmp_path, source, target):
    write(tmp_path / f"source{KINDS[source]}", noise(), source)
    target_path = tmp_path / f"target{KINDS[target]}"
    written = copied(tmp_path / f"source{KINDS[source]}", target_path)
    assert (written.format, written.size, written.mode) == (target, (32, 48), "RGB")
    written.load()
    exif = written.getexif()
    assert (exif[Base.Orientation], exif[Base.Make], exif[Base.Copyright]) == (1, "Maker", "Ann")
    details = exif.get_ifd(IFD.Exif)
    assert (details[Base.DateTimeOriginal], float(details[Base.ExposureTime])) == ("2020:01:02 03:04:05", 0.02)
    assert (details[Base.ExifImageWidth], details[Base.ExifImageHeight]) == (32, 48)
    assert exif.get_ifd(IFD.GPSInfo)[2] == (52.0, 30.0, 1.5)
    assert not exif.get_ifd(IFD.IFD1)
    assert written.info["icc_profile"] == PROFILE
    if "WEBP" not in (source, target):  # which says no resolution
        assert written.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    xmp = written.info["xmp"]
    assert b'dc:creator="Ann"' in xmp
    assert b'tiff:Orientation="1"' in xmp or b'tiff:Orientation="6"' not in xmp
    assert b"Orientation>6" not in xmp
    assert THUMBNAIL not in target_path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pictures_stay_upright_grey_and_transparent(tmp_path, kind, mode):
    picture = noise(mode)
    if kind == "JPEG":
        picture = picture.convert(mode.removesuffix("A"))
    exif, options = Image.Exif(), {"TIFF": {"compression": "tiff_lzw"}, "PNG": {}}.get(kind, {"quality": 98})
    exif[Base.Orientation] = 6
    picture.save(tmp_path / f"a{KINDS[kind]}", exif=exif, **options)
    written = copied(tmp_path / f"a{KINDS[kind]}", tmp_path / f"b{KINDS[kind]}")
    upright = np.asarray(picture.transpose(Image.Transpose.ROTATE_270).convert("RGBA")).astype(int)
    got = np.asarray(written.convert("RGBA")).astype(int)
    lossless = kind in ("PNG", "TIFF")
    assert np.abs(got - upright)[..., :3][upright[..., 3] > 0].mean() <= (0 if lossless else 6)
    assert np.array_equal(got[..., 3], upright[..., 3])
    expected = {"L": "RGB", "LA": "RGBA"}.get(mode, mode) if kind == "WEBP" else picture.mode
    assert written.mode == expected


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [60, 98])
def test_jpeg_keeps_its_quantisation_and_colour_resolution(tmp_path, sampling, quality):
    noise().save(tmp_path / "a.jpg", quality=quality, subsampling=sampling, progressive=quality == 60, comment=b"hi")
    with Image.open(tmp_path / "a.jpg") as source, copied(tmp_path / "a.jpg", tmp_path / "b.jpg") as written:
        assert written.quantization == source.quantization
        assert JpegImagePlugin.get_sampling(written) == JpegImagePlugin.get_sampling(source)
        assert written.info.get("progressive") == source.info.get("progressive")
        assert written.info["comment"] == b"hi"
        difference = np.abs(np.asarray(written).astype(int) - np.asarray(source))
        assert difference.mean() < 1.5  # the same grid of blocks and steps: hardly anything is lost a second time


def test_grey_jpeg_keeps_its_one_table(tmp_path):
    noise("L").save(tmp_path / "a.jpg", quality=50)
    with Image.open(tmp_path / "a.jpg") as source, copied(tmp_path / "a.jpg", tmp_path / "b.jpg") as written:
        assert written.mode == "L"
        assert written.quantization == source.quantization


def test_what_was_no_jpeg_becomes_one_of_quality_95_and_full_colour(tmp_path):
    noise().save(tmp_path / "a.png")
    noise().save(tmp_path / "expected.jpg", quality=95, subsampling=0)
    with Image.open(tmp_path / "expected.jpg") as expected, copied(tmp_path / "a.png", tmp_path / "b.jpg") as written:
        assert written.quantization == expected.quantization
        assert JpegImagePlugin.get_sampling(written) == 0
        assert not written.getexif()


def test_jpeg_of_inks_becomes_one_of_colours_without_their_profile(tmp_path):
    noise().convert("CMYK").save(tmp_path / "a.jpg", icc_profile=PROFILE)
    with copied(tmp_path / "a.jpg", tmp_path / "b.jpg") as written:
        assert written.mode == "RGB"
        assert "icc_profile" not in written.info


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_is_lossless_where_the_source_is(tmp_path, lossless):
    picture = noise("RGBA")
    picture.save(tmp_path / "a.webp", lossless=lossless, exact=True, exif=exif_of(48, 32))
    with copied(tmp_path / "a.webp", tmp_path / "b.webp") as written:
        upright = picture.transpose(Image.Transpose.ROTATE_270)
        assert np.array_equal(np.asarray(written), np.asarray(upright)) == lossless


@pytest.mark.parametrize(
    ("compression", "kept"),
    [("raw", "raw"), ("tiff_lzw", "tiff_lzw"), ("tiff_adobe_deflate", "tiff_adobe_deflate"), ("jpeg", "tiff_lzw")],
)
def test_tiff_keeps_its_packing_unless_it_loses(tmp_path, compression, kept):
    noise().save(tmp_path / "a.tif", compression=compression, dpi=(72, 72), icc_profile=PROFILE)
    with copied(tmp_path / "a.tif", tmp_path / "b.tif") as written:
        assert written.info["compression"] == kept
        assert written.info["dpi"] == (72, 72)


def test_fax_is_read_and_written(tmp_path):
    noise("L").convert("1").save(tmp_path / "a.tif", compression="group4")
    with copied(tmp_path / "a.tif", tmp_path / "b.tif") as written:
        assert written.mode == "L"


def test_a_camera_with_two_pictures_in_a_file_gives_the_first(tmp_path):
    other = noise().rotate(180)
    noise().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[other], quality=70)
    with Image.open(tmp_path / "a.jpg") as source, copied(tmp_path / "a.jpg", tmp_path / "b.jpg") as written:
        assert (source.format, written.format) == ("MPO", "JPEG")
        assert written.quantization == source.quantization


def test_what_does_not_fit_into_a_jpeg_is_left_out(tmp_path):
    metadata = Metadata(exif=b"", xmp=b"x" * 70_000, dpi=(100, 100))
    save_picture(noise(), tmp_path / "a.jpg", metadata)
    with Image.open(tmp_path / "a.jpg") as written:
        assert "xmp" not in written.info
        assert written.info["dpi"] == (100, 100)
    save_picture(noise(), tmp_path / "a.png", metadata)
    with Image.open(tmp_path / "a.png") as written:
        written.load()
        assert written.info["xmp"] == b"x" * 70_000


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_that_cannot_be_read_does_not_cost_the_picture(tmp_path):
    noise().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    with copied(tmp_path / "a.jpg", tmp_path / "b.jpg") as written:
        assert written.size == (48, 32)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_picture_of_another_size_is_what_its_exif_says(tmp_path, suffix):
    write(tmp_path / "a.jpg", noise(), "JPEG")
    _, metadata = open_with_metadata(tmp_path / "a.jpg")
    save_picture(Image.new("RGB", (16, 16)), tmp_path / f"b{suffix}", metadata)
    with Image.open(tmp_path / f"b{suffix}") as written:
        details = written.getexif().get_ifd(IFD.Exif)
        expected = None if suffix in (".bmp", ".gif") else 16
        assert (details.get(Base.ExifImageWidth), details.get(Base.ExifImageHeight)) == (expected, expected)


def test_no_picture_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ImageError, match=r"a\.jpg: expected a picture file"):
        open_with_metadata(tmp_path / "a.jpg")


# -- what can't be kept -------------------------------------------------------------------------------------------


def exif_with(**tags):
    exif = Image.Exif()
    exif[Base.Make] = "Maker"
    for tag, value in tags.items():
        exif[int(tag[1:])] = value
    return exif


@pytest.mark.parametrize(
    "tags",
    [
        {"t40965": 8},
        {"t50728": (0.5, 0.25, 0.125)},
        {"t50728": (0.5, 0.25, 0.125, 1.0), "t65000": "text", "t40965": 8},
        {"t318": (0.3, 0.3), "t319": (0.1,) * 6},
        {"t18246": 5, "t40091": b"a\0b\0"},
    ],
)
def test_a_tiff_gets_known_tags_of_safe_types_alone(tmp_path, tags):
    path = tmp_path / "a.jpg"
    noise().save(path, exif=exif_with(**tags))
    code = (  # libtiff may end the process
        "import sys; from pathlib import Path\n"
        "from csvae_hub.editing.metadata import open_with_metadata\n"
        "from csvae_hub.editing.files import save_picture\n"
        "picture, metadata = open_with_metadata(Path(sys.argv[1]))\n"
        "print(save_picture(picture, Path(sys.argv[2]), metadata))"
    )
    command = [sys.executable, "-c", code, path, tmp_path / "b.tif"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "b.tif") as written:
        assert written.getexif()[Base.Make] == "Maker"
        assert not {int(tag[1:]) for tag in tags} & set(written.getexif())
    for tag in tags:
        assert tag[1:] in run.stdout


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("dpi", "abc", "left out: resolution"),
        ("dpi", "1", "left out: resolution"),
        ("icc_profile", "text", ""),
        ("comment", "text", ""),
        ("exif", "text", "left out: EXIF"),
        ("xmp", "text", ""),
        ("transparency", "text", ""),
        ("gamma", "text", ""),
    ],
)
@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_text_in_a_png_is_not_taken_for_more(tmp_path, name, value, words, suffix):
    chunks = PngInfo()
    chunks.add_text(name, value)
    noise().save(tmp_path / "a.png", pnginfo=chunks)
    picture, metadata = open_with_metadata(tmp_path / "a.png")
    notes = save_picture(picture, tmp_path / f"b{suffix}", metadata)
    assert [note for note in notes if words and words in note] == ([words] if words else [])
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert written.size == picture.size


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("per_metre", [2**32 - 1, 0])
def test_a_resolution_beyond_all_sense_is_left_out(tmp_path, suffix, per_metre):
    noise().save(tmp_path / "a.bmp")
    data = bytearray((tmp_path / "a.bmp").read_bytes())
    data[38:46] = struct.pack("<LL", per_metre, per_metre)
    (tmp_path / "a.bmp").write_bytes(data)
    picture, metadata = open_with_metadata(tmp_path / "a.bmp")
    assert save_picture(picture, tmp_path / f"b{suffix}", metadata) == ["left out: resolution"]


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize("piece", ["exif", "dpi", "packing"])
def test_a_piece_that_pillow_cannot_write_costs_neither_picture_nor_the_others(tmp_path, suffix, piece):
    kind = FORMATS[suffix]
    bad = {
        "exif": b"no EXIF at all",
        "dpi": (float("nan"), 3),
        "packing": {kind: {"qtables": "x", "compression": "no such", "quality": "no"}},
    }
    metadata = Metadata(**{"exif": exif_with().tobytes(), "icc_profile": PROFILE, piece: bad[piece]})
    save_picture(noise(), tmp_path / f"b{suffix}", metadata)
    with Image.open(tmp_path / f"b{suffix}") as written:
        written.load()
        if kind not in ("BMP", "GIF"):
            assert written.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_becomes_white_and_is_told(tmp_path, suffix, mode):
    clear = Image.new("RGBA", (16, 16), (10, 10, 10, 255)).convert(mode)
    assert save_picture(clear, tmp_path / f"a{suffix}") == []
    clear.putalpha(Image.new("L", (16, 16), 0))
    (note,) = save_picture(clear, tmp_path / f"b{suffix}")
    assert note == f"what was transparent is white: {FORMATS[suffix]} has no transparency"
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert np.asarray(written).min() > 250


def profile_of(space):
    """A profile of a colour space, by its header."""
    return PROFILE[:16] + space + PROFILE[20:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("space", [b"GRAY", b"RGB ", b"CMYK", b"Lab "])
def test_a_profile_of_another_colour_space_is_left_out(tmp_path, suffix, mode, space):
    written_mode = "RGB" if suffix == ".webp" else mode
    fits = space == (b"GRAY" if written_mode == "L" else b"RGB ")
    notes = save_picture(noise(mode), tmp_path / f"a{suffix}", Metadata(icc_profile=profile_of(space)))
    assert notes == ([] if fits else ["left out: colour profile"])
    with Image.open(tmp_path / f"a{suffix}") as written:
        assert ("icc_profile" in written.info) == fits


def test_an_animation_is_its_first_frame_and_that_is_told(tmp_path):
    noise().save(tmp_path / "a.gif", save_all=True, append_images=[noise().rotate(90)])
    picture, metadata = open_with_metadata(tmp_path / "a.gif")
    assert save_picture(picture, tmp_path / "b.png", metadata) == ["left out: frames but the first"]
