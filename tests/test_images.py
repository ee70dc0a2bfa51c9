import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from csvae_hub.config import from_dict, to_dict
from csvae_hub.errors import ConfigError, ImageError
from csvae_hub.images import (
    Preprocessor,
    center_square,
    grid,
    load_images,
    open_image,
    to_picture,
)

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"
S = 16
P = Preprocessor(size=S)
ORIENTATION = 0x0112


def pixels(height, width, channels, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(mode="RGB", width=S, height=S):
    """A picture of noise in any mode."""
    if mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return Image.frombytes(mode, (width, height), pixels(height, width, len(mode)).tobytes())
    if mode.startswith("I;16"):
        values = pixels(height, width, 1).astype(np.uint16) * 257
        return Image.frombytes(mode, (width, height), values.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
    if mode == "I":
        return Image.fromarray(pixels(height, width, 1).astype(np.int32) * 257)
    if mode in ("PA", "La"):
        return picture("LA", width, height).convert(mode)
    return picture("RGBA" if mode == "RGBa" else "RGB", width, height).convert(mode)


MODES = {
    "L": ("L", "1", "I;16", "I;16B", "I"),
    "LA": ("LA", "La"),
    "RGB": ("RGB", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"),
    "RGBA": ("RGBA", "PA", "RGBa"),
}
SIZES = [(S, S), (24, 16), (16, 24), (41, 30), (12, 12), (9, 200)]


# -- what comes in comes back ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("restored_mode", "mode"), [(family, mode) for family in MODES for mode in MODES[family]])
def test_every_mode_is_read_and_comes_back_in_its_family(restored_mode, mode):
    given = picture(mode)
    batch = load_images(given, P)
    assert batch.tensor.shape == (1, 3, S, S)
    assert batch.tensor.dtype == torch.float32
    expected = Image.fromarray((np.asarray(given) // 257).astype(np.uint8)) if mode[0] == "I" else given
    expected = expected.convert(restored_mode)
    restored = batch.restore(batch.tensor)
    assert restored.mode == restored_mode
    assert np.array_equal(np.asarray(restored), np.asarray(expected))
    assert torch.equal(load_images(expected.convert("RGB"), P).tensor, batch.tensor)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_only_the_centre_square_is_edited_and_alpha_comes_back(mode, width, height):
    given = picture(mode, width, height)
    batch = load_images(given, P)
    restored = batch.restore(torch.ones_like(batch.tensor))
    assert (restored.mode, restored.size) == (mode, given.size)
    before, after = np.asarray(given), np.asarray(restored)
    left, top, side = center_square(width, height)
    inside = np.zeros((height, width), dtype=bool)
    inside[top : top + side, left : left + side] = True
    assert np.array_equal(after[~inside], before[~inside])
    if mode.endswith("A"):
        assert np.array_equal(after[..., -1], before[..., -1])
        assert (after[inside][:, :-1] == 255).all()
    else:
        assert (after[inside] == 255).all()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_arrays_come_back_as_arrays(channels, width, height):
    given = pixels(height, width, max(channels, 1)).reshape(height, width, *([channels] if channels else []))
    batch = load_images(given, P)
    restored = batch.restore(batch.tensor)
    assert (restored.dtype, restored.shape) == (np.uint8, given.shape)
    if (width, height) == (S, S):
        assert np.array_equal(restored, given)
    restored[:] = 0  # it is writable, and its own


def test_an_array_is_read_as_its_picture():
    given = picture("RGB", 41, 30)
    assert torch.equal(load_images(np.asarray(given), P).tensor, load_images(given, P).tensor)


def test_arrays_of_any_strides():
    given = pixels(30, 41, 3)[::-1, ::-1]
    assert torch.equal(load_images(given, P).tensor, load_images(given.copy(), P).tensor)


@pytest.mark.parametrize("shape", [(3, S, S), (1, 3, S, S), (5, 3, S, S)])
def test_float_tensors_of_the_right_size_pass_through_to_the_bit(shape):
    given = torch.rand(shape)
    batch = load_images(given, P)
    assert torch.equal(batch.tensor, given.reshape(-1, 3, S, S))
    restored = batch.restore(batch.tensor)
    assert restored.shape == shape
    assert torch.equal(restored, given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(3, S, S), (2, 3, S, S), (1, S, S), (2, 1, 20, 31), (3, 31, 20)])
def test_tensors_come_back_in_their_shape_and_dtype(dtype, shape):
    given = torch.rand(shape).to(dtype)
    before = given.clone()
    batch = load_images(given, P)
    assert batch.tensor.dtype == torch.float32
    assert batch.tensor.shape[1:] == (3, S, S)
    restored = batch.restore(batch.tensor)
    assert (restored.shape, restored.dtype) == (given.shape, dtype)
    if shape[-2:] == (S, S):
        assert torch.equal(restored, given.float().to(dtype))
    assert torch.equal(given, before)


@pytest.mark.parametrize(("width", "height"), SIZES[1:])
def test_only_the_centre_square_of_a_tensor_is_edited(width, height):
    given = torch.rand(2, 3, height, width) * 0.9
    batch = load_images(given, P)
    assert 0 <= batch.tensor.min() <= batch.tensor.max() <= 1
    restored = batch.restore(torch.ones_like(batch.tensor))
    left, top, side = center_square(width, height)
    inside = torch.zeros_like(given, dtype=torch.bool)
    inside[..., top : top + side, left : left + side] = True
    assert torch.allclose(restored[inside], torch.ones(()))
    assert torch.equal(restored[~inside], given[~inside])


def test_tensors_and_pictures_are_resized_alike():
    smooth = torch.linspace(0, 1, 50).expand(3, 40, 50).contiguous()
    from_tensor, from_picture = (load_images(x, P).tensor for x in (smooth, to_picture(smooth)))
    assert (from_tensor - from_picture).abs().max() < 2 / 255


def test_gradients_flow_through_tensors():
    given = torch.rand(3, 20, 31, requires_grad=True)
    batch = load_images(given, P)
    batch.restore(batch.tensor).sum().backward()
    assert given.grad is not None
    assert given.grad.ne(0).all()


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_comes_back_as_a_list_of_what_was_in_it(kind, tmp_path):
    path = tmp_path / "a.png"
    picture("RGBA", 20, 30).save(path)
    given = kind([path, str(path), picture("L"), pixels(9, 8, 3), torch.rand(3, S, S), torch.rand(2, 3, 20, 20)])
    batch = load_images(given, P)
    assert len(batch) == batch.tensor.shape[0] == 7
    restored = batch.restore(batch.tensor)
    assert isinstance(restored, list)
    assert [x.mode for x in restored[:3]] == ["RGBA", "RGBA", "L"]
    assert [tuple(x.shape) for x in restored[3:]] == [(9, 8, 3), (3, S, S), (2, 3, 20, 20)]
    assert torch.equal(restored[4], given[4])


def test_a_list_of_one_is_a_list():
    batch = load_images([torch.rand(3, S, S)], P)
    assert isinstance(batch.restore(batch.tensor), list)


def test_the_rows_of_a_batch_are_what_each_picture_gives_alone():
    given = [picture("RGB", 30, 20), pixels(20, 30, 3), torch.rand(3, 20, 20)]
    together = load_images(given, P).tensor
    for row, image in zip(together, given, strict=True):
        assert torch.equal(row, load_images(image, P).tensor[0])


def test_edited_pictures_of_another_shape_are_refused():
    batch = load_images(torch.rand(2, 3, S, S), P)
    with pytest.raises(ImageError, match=r"expected edited pictures of shape \(2, 3, 16, 16\), got \(1, 3, 16, 16\)"):
        batch.restore(torch.rand(1, 3, S, S))


def test_a_device_may_be_given():
    assert load_images(torch.rand(3, S, S), P, device="meta").tensor.is_meta


# -- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_obeyed(orientation, tmp_path):
    given = picture("RGB", 24, 16)
    given.getexif()[ORIENTATION] = orientation
    given.save(tmp_path / "a.png", exif=given.getexif())
    upright = ImageOps.exif_transpose(given)
    for source in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        batch = load_images(source, P)
        restored = batch.restore(batch.tensor)
        assert restored.size == upright.size == ((24, 16) if orientation < 5 else (16, 24))
        assert np.array_equal(np.asarray(restored), np.asarray(upright))
        assert restored.getexif().get(ORIENTATION, 1) == 1
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), np.asarray(upright))


@pytest.mark.parametrize(("mode", "opened"), {"L": "RGB", "RGB": "RGB", "1": "RGB", "P": "RGB", "I;16": "RGB",
                                              "RGBA": "RGBA", "LA": "RGBA"}.items())  # fmt: skip
def test_open_image_gives_rgb_or_rgba(mode, opened, tmp_path):
    picture(mode).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").mode == opened
    assert open_image(str(tmp_path / "a.png")).mode == opened


@pytest.mark.parametrize(("mode", "family"), [("P", "RGBA"), ("RGB", "RGBA"), ("L", "LA")])
def test_one_transparent_colour_becomes_alpha(mode, family, tmp_path):
    given = picture("RGB").quantize(8) if mode == "P" else picture(mode)
    color = {"P": 0, "L": given.getpixel((0, 0)), "RGB": given.getpixel((0, 0))}[mode]
    given.save(tmp_path / "a.png", transparency=color)
    batch = load_images(tmp_path / "a.png", P)
    restored = batch.restore(batch.tensor)
    assert restored.mode == family
    assert 0 in np.asarray(restored)[..., -1]
    assert 255 in np.asarray(restored)[..., -1]


def test_a_cmyk_file_comes_back_as_rgb_without_the_profile_of_its_inks(tmp_path):
    picture("CMYK").save(tmp_path / "a.tif", icc_profile=b"inks")
    picture("RGB").save(tmp_path / "b.tif", icc_profile=b"light")
    batch = load_images([tmp_path / "a.tif", tmp_path / "b.tif"], P)
    cmyk, rgb = batch.restore(batch.tensor)
    assert (cmyk.mode, cmyk.info.get("icc_profile")) == ("RGB", None)
    assert rgb.info["icc_profile"] == b"light"


def test_the_first_picture_of_an_animation_is_taken(tmp_path):
    first, second = Image.new("RGB", (S, S), "red"), Image.new("RGB", (S, S), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert open_image(tmp_path / "a.gif").getpixel((3, 3))[:3] == (255, 0, 0)


def test_files_are_closed(tmp_path):
    picture().save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert opened.getpixel((0, 0))


def test_exif_data_that_is_garbage_does_not_hinder(tmp_path):
    given = picture()
    given.save(tmp_path / "a.png", exif=b"Exif\0\0" + bytes(range(40)))
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), np.asarray(given))


# -- preprocessor, grid ------------------------------------------------------------------------------------------


def test_the_preprocessor_goes_through_json():
    import json

    given = Preprocessor(size=128)
    assert from_dict(Preprocessor, json.loads(json.dumps(to_dict(given)))) == given


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 0), ("crop", "none"), ("interpolation", "nearest"), ("range", [-1.0, 1.0]), ("landmarks", [[1.0, 2.0]])],
)
def test_the_preprocessor_checks_its_fields(field, value):
    with pytest.raises(ConfigError, match=rf"^{field}: expected "):
        from_dict(Preprocessor, {field: value})


@pytest.mark.parametrize(
    ("width", "height", "square"), [(5, 5, (0, 0, 5)), (8, 5, (1, 0, 5)), (178, 218, (0, 20, 178))]
)
def test_center_square(width, height, square):
    assert center_square(width, height) == square


def test_a_picture_of_a_tensor_rounds_and_clips():
    values = torch.tensor([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 2.0]).view(1, 1, 6)
    assert np.asarray(to_picture(values)).tolist() == [[0, 0, 0, 1, 255, 255]]
    assert to_picture(values.expand(3, 1, 6)).mode == "RGB"
    with pytest.raises(ImageError, match=r"expected one picture \(C, H, W\) of 1 or 3 channels, got shape \(2, 4, 4\)"):
        to_picture(torch.rand(2, 4, 4))


def test_a_grid_holds_the_pictures_row_by_row():
    images = torch.rand(5, 3, 6, 4)
    drawn = grid(images, columns=3, gap=2)
    assert drawn.size == (3 * 6 - 2, 2 * 8 - 2)
    for i, image in enumerate(images):
        left, top = i % 3 * 6, i // 3 * 8
        cell = drawn.crop((left, top, left + 4, top + 6))
        assert np.array_equal(np.asarray(cell), np.asarray(to_picture(image)))
    assert drawn.getpixel((4, 0)) == drawn.getpixel((15, 13)) == (255, 255, 255)


def test_a_grid_is_no_wider_than_its_pictures():
    assert grid(torch.rand(2, 1, 4, 4, requires_grad=True), columns=9, gap=0).size == (8, 4)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (3, 4, 4), (1, 2, 4, 4)])
def test_a_grid_of_other_shapes_is_refused(shape):
    with pytest.raises(ImageError, match=r"expected pictures \(B, C, H, W\) of 1 or 3 channels, at least one, got"):
        grid(torch.rand(shape), columns=2)


def test_a_grid_without_columns_is_refused():
    with pytest.raises(ImageError, match="expected at least one column, got 0"):
        grid(torch.rand(1, 3, 4, 4), columns=0)


def test_importing_images_leaves_torchvision_out():
    code = "import sys, csvae_hub.images, csvae_hub.hub; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_real_faces_come_back_to_the_pixel():
    paths = sorted((SHARED / "celeba64" / "images").iterdir())[:20]
    batch = load_images(paths, Preprocessor(size=64))
    for path, restored in zip(paths, batch.restore(batch.tensor), strict=True):
        assert np.array_equal(np.asarray(restored), np.asarray(Image.open(path)))
