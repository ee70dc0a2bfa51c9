"""The square that a model sees, and its way back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from csvae_hub.preprocessing import square_of, with_square


def noise(mode="RGB", size=(40, 40)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


@pytest.mark.parametrize("size", [16, 40, 64])
def test_the_square_is_pillow_s_bicubic(size):
    expected = noise().resize((size, size), Image.Resampling.BICUBIC)
    assert np.array_equal(square_of(noise(), size), expected)


@pytest.mark.parametrize("size", [(40, 60), (61, 40)])
def test_the_square_is_the_centre(size):
    left, top = ((side - 40) // 2 for side in size)
    assert np.array_equal(square_of(noise(size=size), 40), noise(size=size).crop((left, top, left + 40, top + 40)))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_another_square_is_put_in_its_place(mode):
    before = noise(mode, (40, 60))
    after = with_square(before, Image.new("RGB", (40, 40), (10, 10, 10)))
    old, new = (np.array(picture).reshape(60, 40, -1).copy() for picture in (before, after))
    assert (after.mode, after.size) == (mode, (40, 60))
    colours = len(mode.removesuffix("A"))
    assert (new[10:50, :, :colours] == 10).all()
    old[10:50, :, :colours] = 10
    assert np.array_equal(new, old)
    assert np.array_equal(before, noise(mode, (40, 60)))
