import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.errors import ImageError
from csvae_hub.images import Preprocessor, load_images

S = 16
P = Preprocessor(size=S)


def picture(width=S, height=S):
    return Image.effect_noise((width, height), 64).convert("RGB")


def error_of(images):
    with pytest.raises(ImageError) as caught:
        load_images(images, P)
    return str(caught.value)


# -- files -------------------------------------------------------------------------------------------------------


def test_a_text_file_named_jpg(tmp_path):
    path = tmp_path / "face.jpg"
    path.write_text("hello, I am a text")
    assert error_of(path) == (
        f"{path}: expected a picture file (JPEG, PNG, WebP, …), got one that begins with b'hello, I am a te':"
        " convert it, or leave it out"
    )


def test_an_empty_file(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert "a.jpg: expected a picture file (JPEG, PNG, WebP, …), got an empty one" in error_of(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp"])
def test_a_truncated_file(name, tmp_path):
    path = tmp_path / name
    picture(100, 100).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    text = error_of(str(path))
    assert text.startswith(f"{path}: expected a ")
    assert name == "a.webp" or text.startswith(
        f"{path}: expected a whole picture, got one that is broken off or corrupt"
    )


def test_a_truncated_picture_that_the_caller_opened(tmp_path):
    path = tmp_path / "a.jpg"
    picture(100, 100).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as opened:
        assert "expected a whole picture, got one that is broken off or corrupt" in error_of(opened)


def test_a_missing_file_and_a_folder(tmp_path):
    path = tmp_path / "absent.jpg"
    assert error_of(path) == f"{path}: expected a picture file, got nothing there: check the name and the folder"
    assert error_of(tmp_path) == f"{tmp_path}: expected a picture file, got a folder: give the files in it"


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    picture(40, 40).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    text = error_of(tmp_path / "bomb.png")
    assert text.startswith(f"{tmp_path / 'bomb.png'}: expected a picture of a sane size, got Image size (1600 pixels)")
    assert text.endswith("make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS")


def test_a_picture_of_one_pixel(tmp_path):
    path = tmp_path / "dot.png"
    picture(1, 1).save(path)
    words = "expected a picture of at least 8×8 pixels, got 1×1 (width × height): give a larger one"
    assert error_of(path) == f"{path}: {words}"
    for image in (picture(1, 1), np.zeros((1, 1, 3), dtype=np.uint8), torch.rand(3, 1, 1)):
        assert error_of(image) == words


def test_the_one_broken_picture_of_a_list_is_named(tmp_path):
    (tmp_path / "b.jpg").write_text("text")
    text = error_of([picture(), tmp_path / "b.jpg"])
    assert text.startswith(f"images[1]: {tmp_path / 'b.jpg'}: expected a picture file")


# -- what can't be right -----------------------------------------------------------------------------------------

TENSOR = "expected a float tensor in [0, 1] of shape (C, H, W) or (B, C, H, W)"
CHANNELS = f"{TENSOR} with C of 3 (or 1, grey), got shape"


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (
            torch.rand(4, S, S),
            f"{CHANNELS} (4, 16, 16): drop the alpha channel, as by images[..., :3, :, :]",
        ),
        (torch.rand(2, 5, S, S), f"{CHANNELS} (2, 5, 16, 16): give RGB"),
        (torch.rand(S, S, 3), f"{CHANNELS} (16, 16, 3): put the channels first, as by images.movedim(-1, -3)"),
        (torch.rand(S, S), f"{TENSOR}, got shape (16, 16)"),
        (torch.rand(1, 1, 3, S, S), f"{TENSOR}, got shape (1, 1, 3, 16, 16)"),
        (
            torch.rand(0, 3, S, S),
            f"{TENSOR}, got an empty batch, shape (0, 3, 16, 16): leave the call out where there are none",
        ),
        (
            torch.zeros(3, S, S, dtype=torch.uint8),
            f"{TENSOR}, got torch.uint8: convert it with images.float() / 255",
        ),
        (
            torch.zeros(3, S, S, dtype=torch.int64),
            f"{TENSOR}, got torch.int64: convert it with images.float(), scaled to [0, 1]",
        ),
        (
            torch.full((3, S, S), -1.0).index_fill(0, torch.tensor(0), 1.0),
            f"{TENSOR}, got values from -1 to 1: rescale with (images + 1) / 2, or clip with images.clamp(0, 1)",
        ),
        (
            torch.arange(256.0).view(1, S, S),
            f"{TENSOR}, got values from 0 to 255: rescale with images / 255, or clip with images.clamp(0, 1)",
        ),
        (torch.full((3, S, S), 1.001), f"{TENSOR}, got values from 1.001 to 1.001: clip with images.clamp(0, 1)"),
        (
            torch.full((3, S, S), -1.5).index_fill(0, torch.tensor(0), 2.0),
            f"{TENSOR}, got values from -1.5 to 2: clip with images.clamp(0, 1)",
        ),
        (
            torch.zeros(3, S, S).index_fill(1, torch.tensor(3), torch.nan),
            f"{TENSOR}, got NaN or infinity: look at where they arise, or replace them",
        ),
        (torch.full((3, S, S), torch.inf), f"{TENSOR}, got NaN or infinity: look at where they arise, or replace them"),
        (
            np.zeros((S, S, 3)),
            "expected an array of uint8 (0 to 255), got float64: convert it, as by"
            " np.round(255 * image).astype(np.uint8), or give a float tensor (C, H, W) in [0, 1]",
        ),
        (
            np.zeros((S, S, 3), dtype=np.int64),
            "expected an array of uint8 (0 to 255), got int64: convert it, as by"
            " image.astype(np.uint8), or give a float tensor (C, H, W) in [0, 1]",
        ),
        (
            np.zeros((S, S), dtype=np.uint16),
            "expected an array of uint8 (0 to 255), got uint16: convert it, as by"
            " (image // 257).astype(np.uint8), or give a float tensor (C, H, W) in [0, 1]",
        ),
        (
            np.zeros((2, S, S, 3), dtype=np.uint8),
            "expected an array of shape (H, W, 3), got (2, 16, 16, 3): give a batch as list(images)",
        ),
        (
            np.zeros((3, S, S), dtype=np.uint8),
            "expected an array of shape (H, W, 3), got (3, 16, 16):"
            " put the channels last, as by image.transpose(1, 2, 0)",
        ),
        (
            np.zeros((S, S, 7), dtype=np.uint8),
            "expected an array of shape (H, W, 3), got (16, 16, 7): give grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4)",
        ),
        ([], "expected at least one picture, got an empty list: leave the call out where there are none"),
        (
            Image.new("F", (S, S)),
            "expected a picture of 8 or 16 bits, got floats (mode F): scale it to 0…255, mode L",
        ),
        (
            Image.new("I", (S, S), 70_000),
            "expected grey values of 16 bits, 0 to 65535, got 70000 to 70000: scale it to 0…255, mode L",
        ),
        (
            7,
            "expected a path, a PIL image, a uint8 array (H, W, 3), a float tensor in [0, 1] of shape (C, H, W) or"
            " (B, C, H, W), or a list of these, got int",
        ),
    ],
    ids=lambda x: x[-40:] if isinstance(x, str) else None,
)
def test_what_cannot_be_right_is_answered_with_expected_got_remedy(image, text):
    assert error_of(image) == text
    if not isinstance(image, list):
        assert error_of([image]) == f"images[0]: {text}"


@pytest.mark.parametrize("image", [None, b"bytes", {"a": 1}, 0.5])
def test_other_things_are_named_by_their_type(image):
    assert error_of(image).endswith(f"or a list of these, got {type(image).__name__}")


def test_lists_are_not_nested():
    assert error_of([[picture()]]).endswith("or a list of these, got list")


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, S, 3), (S, 0, 3)])
def test_arrays_without_pixels(shape):
    assert "expected a picture of at least 8×8 pixels" in error_of(np.zeros(shape, dtype=np.uint8))
