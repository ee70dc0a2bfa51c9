from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvae_hub.data import pictures
from csvae_hub.data.pictures import cache_folder, decode, load_pictures
from csvae_hub.errors import DataError
from csvae_hub.images import Preprocessor, load_images


def write_picture(path: Path, width: int = 16, height: int = 16, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        write_picture(folder / f"{i}.png", seed=i)
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


FILES = [f"{i}.png" for i in range(5)]


def count_decodes(monkeypatch) -> list[Path]:
    seen: list[Path] = []

    def counted(path, image_size, crop=None, channels=3):
        seen.append(path)
        return decode(path, image_size, crop, channels)

    monkeypatch.setattr(pictures, "decode", counted)
    return seen


def test_pixels_and_order_are_those_of_the_files(folder, cache):
    images = load_pictures(folder, FILES[::-1], 16, cache)
    assert images.dtype == np.uint8
    assert images.shape == (5, 3, 16, 16)
    for i in range(5):
        expected = np.random.default_rng(4 - i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        np.testing.assert_array_equal(images[i], expected.transpose(2, 0, 1))


def test_the_array_is_memory_mapped_and_read_only(folder, cache):
    images = load_pictures(folder, FILES, 16, cache)
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_files_are_decoded_once(folder, cache, monkeypatch):
    seen = count_decodes(monkeypatch)
    first = load_pictures(folder, FILES, 16, cache)
    second = load_pictures(folder, FILES, 16, cache)
    assert len(seen) == 5
    np.testing.assert_array_equal(first, second)


def test_another_size_file_or_list_is_decoded_anew(folder, cache, monkeypatch):
    load_pictures(folder, FILES, 16, cache)
    seen = count_decodes(monkeypatch)
    assert load_pictures(folder, FILES, 8, cache).shape == (5, 3, 8, 8)
    assert load_pictures(folder, FILES[:2], 16, cache).shape == (2, 3, 16, 16)
    assert len(seen) == 7
    pixels = write_picture(folder / "0.png", seed=9)
    os.utime(folder / "0.png", ns=(1, 1))
    np.testing.assert_array_equal(load_pictures(folder, FILES, 16, cache)[0], pixels.transpose(2, 0, 1))


def test_same_names_in_another_folder_are_other_pictures(folder, cache, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for at, value in ((folder, 10), (other, 200)):
        Image.new("RGB", (8, 8), (value,) * 3).save(at / "a.bmp")
        os.utime(at / "a.bmp", ns=(1, 1))
    assert load_pictures(folder, ["a.bmp"], 8, cache)[0, 0, 0, 0] == 10
    assert load_pictures(other, ["a.bmp"], 8, cache)[0, 0, 0, 0] == 200


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_a_damaged_cache_is_made_again(folder, cache, damage):
    expected = np.array(load_pictures(folder, FILES, 16, cache))
    (cached,) = cache.iterdir()
    cached.write_bytes(cached.read_bytes()[:-100] if damage is None else damage)
    np.testing.assert_array_equal(load_pictures(folder, FILES, 16, cache), expected)


def test_two_at_once_agree_and_leave_one_file(folder, cache):
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(lambda _: load_pictures(folder, FILES, 16, cache), range(4)))
    for array in arrays:
        np.testing.assert_array_equal(array, arrays[0])
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(("width", "height"), [(16, 16), (16, 24), (37, 20), (64, 64), (9, 11)])
def test_any_size_gives_what_a_model_is_given(tmp_path, width, height):
    write_picture(tmp_path / "a.png", width, height)
    as_model = load_images(tmp_path / "a.png", Preprocessor(size=16)).tensor[0]
    decoded = decode(tmp_path / "a.png", 16)
    np.testing.assert_array_equal(decoded, (as_model * 255).round().numpy())


def test_the_resize_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert np.ptp(decode(tmp_path / "a.png", 16).astype(int)[:, :, 1:-1]) <= 4


def test_grey_and_palette_pictures_become_rgb(tmp_path):
    Image.new("L", (16, 16), 77).save(tmp_path / "grey.png")
    Image.new("RGB", (16, 16), (10, 20, 30)).quantize(4).save(tmp_path / "palette.png")
    assert (decode(tmp_path / "grey.png", 16) == 77).all()
    np.testing.assert_array_equal(decode(tmp_path / "palette.png", 16)[:, 3, 3], [10, 20, 30])


def test_broken_pictures_are_all_named_and_nothing_is_cached(folder, cache):
    (folder / "1.png").write_text("no picture")
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as error:
        load_pictures(folder, FILES, 16, cache)
    assert "2 of 5 pictures can't be used" in str(error.value)
    assert "1.png" in str(error.value)
    assert "3.png" in str(error.value)
    assert list(cache.iterdir()) == []


def test_missing_files_are_named(folder, cache):
    with pytest.raises(
        DataError, match=r"^7.png is listed but missing from .*images: add the files or drop their rows$"
    ):
        load_pictures(folder, [*FILES, "7.png"], 16, cache)
    with pytest.raises(DataError, match=r"^10.png, .*14.png and 15 more are listed but missing"):
        load_pictures(folder, [f"{i}.png" for i in range(10, 30)], 16, cache)


def test_nothing_to_load(folder, cache):
    with pytest.raises(DataError, match="expected at least one picture, got none"):
        load_pictures(folder, [], 16, cache)
    with pytest.raises(DataError, match="image_size: expected a positive number of pixels, got 0"):
        load_pictures(folder, FILES, 0, cache)


def test_a_cache_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written .*cache_dir or in the environment variable CSVAE_HUB_CACHE"):
        load_pictures(folder, FILES, 16, tmp_path / "file")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CSVAE_HUB_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache/csvae-hub"
    monkeypatch.setenv("CSVAE_HUB_CACHE", str(tmp_path / "env"))
    assert cache_folder() == tmp_path / "env"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"


def test_one_channel_is_grey_and_has_a_cache_of_its_own(folder, cache, monkeypatch):
    grey = load_pictures(folder, FILES[:2], 16, cache, channels=1)
    colour = load_pictures(folder, FILES[:2], 16, cache)
    assert (grey.shape, colour.shape) == ((2, 1, 16, 16), (2, 3, 16, 16))
    with Image.open(folder / FILES[0]) as picture:
        np.testing.assert_array_equal(grey[0, 0], np.asarray(picture.convert("L")))
    decoded = count_decodes(monkeypatch)
    np.testing.assert_array_equal(load_pictures(folder, FILES[:2], 16, cache, channels=1), grey)
    np.testing.assert_array_equal(load_pictures(folder, FILES[:2], 16, cache), colour)
    assert decoded == []
    with pytest.raises(DataError, match=r"channels: expected 1 \(grey\) or 3 \(RGB\), got 2"):
        load_pictures(folder, FILES, 16, cache, channels=2)


def test_who_decodes_may_be_watched(folder, cache, monkeypatch):
    monkeypatch.setattr(pictures, "AT_ONCE", 2)
    told = []
    with pictures.watched_by(lambda count, total: told.append((count, total))):
        load_pictures(folder, FILES, 8, cache)
        load_pictures(folder, FILES, 8, cache)  # from the cache: nothing is decoded
    load_pictures(folder, FILES, 9, cache)
    assert told == [(2, 5), (4, 5), (5, 5)]
