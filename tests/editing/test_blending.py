"""Putting a crop back: what is changed, by how much, and what is left to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.editing import blending
from csvae_hub.editing.alignment import Similarity, warped
from csvae_hub.editing.blending import FEATHER, add_change, feather, replace_crop

S = 16
MODES = ["L", "LA", "RGB", "RGBA"]


def placed(degrees=20.0, side=60.0, middle=(50.0, 40.0)):
    """The transform of a square of the photo to a crop of S pixels."""
    a = S / side * np.exp(1j * np.deg2rad(degrees))
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return Similarity(linear, S / 2 - linear @ middle)


def photo(mode="RGB", width=100, height=90, low=0, high=256):
    bands = len(mode)
    values = np.random.default_rng(1).integers(low, high, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(values[..., 0] if bands == 1 else values)


def mask_of(picture, transform):
    """The mask (h, w) at the middles of the photo's pixels."""
    places = np.stack(np.mgrid[: picture.height, : picture.width][::-1], -1) + 0.5
    return feather(torch.from_numpy(transform(places) / S)).numpy()


def colours(picture):
    values = np.asarray(picture, dtype=int)
    return values if values.ndim == 2 else values[..., : 3 if values.shape[-1] >= 3 else 1]


def test_the_feather_rises_from_the_border_without_a_jump_or_a_kink():
    t = torch.linspace(-0.5, 1.5, 2001, dtype=torch.float64)
    mask = feather(torch.stack([t, torch.full_like(t, 0.5)], -1))
    assert (mask[(t <= 0) | (t >= 1)] == 0).all()
    assert (mask[(t >= FEATHER) & (t <= 1 - FEATHER)] == 1).all()
    assert mask.flip(0) == pytest.approx(mask, abs=1e-12)
    assert (mask[: len(mask) // 2].diff() >= 0).all()
    assert mask.diff().diff().abs().max() < 1e-3
    places = torch.rand(100, 2, dtype=torch.float64)
    assert torch.equal(feather(places), feather(places.flip(-1)))


@pytest.mark.parametrize("blend", [add_change, replace_crop])
@pytest.mark.parametrize("degrees", [0, 20, 45, 180])
@pytest.mark.parametrize("mode", MODES)
def test_outside_the_crop_and_in_alpha_every_pixel_stays_to_the_bit(mode, degrees, blend):
    picture, transform = photo(mode), placed(degrees)
    edited = picture.copy()
    blend(edited, torch.ones(3, S, S), transform)
    assert (edited.mode, edited.size) == (picture.mode, picture.size)
    outside = mask_of(picture, transform) == 0
    assert 0.3 < outside.mean() < 0.8
    assert np.array_equal(np.asarray(edited)[outside], np.asarray(picture)[outside])
    assert not np.array_equal(np.asarray(edited), np.asarray(picture))
    if mode.endswith("A"):
        assert edited.getchannel("A").tobytes() == picture.getchannel("A").tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_a_pixel_whose_change_is_0_stays_to_the_bit(mode):
    picture, transform = photo(mode), placed(0, side=4 * S)
    change = torch.zeros(3, S, S)
    edited = picture.copy()
    add_change(edited, change, transform)
    assert edited.tobytes() == picture.tobytes()
    change[:, :, : S // 2] = 0.5
    add_change(edited, change, transform)
    far = transform(np.stack(np.mgrid[: picture.height, : picture.width][::-1], -1) + 0.5)[..., 0] > S / 2 + 2.5
    assert np.array_equal(np.asarray(edited)[far], np.asarray(picture)[far])
    assert not np.array_equal(np.asarray(edited), np.asarray(picture))


@pytest.mark.parametrize("side", [5, 16, 60, 85])
@pytest.mark.parametrize("mode", MODES)
def test_an_even_change_is_added_in_full_within_and_by_the_mask_at_the_border(mode, side):
    picture, transform = photo(mode, low=60, high=190), placed(side=side)
    edited = picture.copy()
    add_change(edited, torch.full((3, S, S), 40 / 255), transform)
    expected = 40 * mask_of(picture, transform)
    change = (colours(edited) - colours(picture)).reshape(*expected.shape, -1)
    assert np.abs(change - expected[..., None]).max() <= 0.51
    assert (change[expected == 40] == 40).all()
    assert (expected == 40).any()


@pytest.mark.parametrize(("change", "expected"), [(1.0, 255), (-1.0, 0)])
def test_values_are_clipped(change, expected):
    picture, transform = photo(low=1, high=255), placed()
    edited = picture.copy()
    add_change(edited, torch.full((3, S, S), change), transform)
    assert (np.asarray(edited)[mask_of(picture, transform) == 1] == expected).all()


@pytest.mark.parametrize("degrees", [0, 20, 90, -130])
@pytest.mark.parametrize("side", [40, 80, 300])
def test_each_pixel_of_the_photo_gets_the_crop_at_its_place(side, degrees):
    transform = placed(degrees, side, middle=(50, 45))
    picture = Image.new("RGB", (100, 90), (20, 20, 20))
    ramp = torch.linspace(0.5 / S, 1 - 0.5 / S, S)
    add_change(
        picture, torch.stack([ramp.expand(S, S), ramp[:, None].expand(S, S), torch.zeros(S, S)]) * 0.8, transform
    )
    places = transform(np.stack(np.mgrid[:90, :100][::-1], -1) + 0.5) / S
    within = mask_of(picture, transform) == 1
    change = np.asarray(picture, dtype=int) - 20
    assert np.abs(change[..., :2] - 255 * 0.8 * places)[within].max() < 1.5
    assert (change[..., 2] == 0).all()


@pytest.mark.parametrize("side", [5, 7])
def test_a_change_finer_than_the_photo_is_averaged_not_aliased(side):
    picture = Image.new("RGB", (100, 90), (128, 128, 128))
    add_change(picture, (torch.arange(S) % 2 - 0.5).expand(3, S, S), placed(0, side))
    assert np.abs(np.asarray(picture, dtype=int) - 128).max() < 13


def test_a_grey_photo_gets_the_luma_of_the_change():
    picture, transform = photo("L", low=60, high=190), placed()
    edited = picture.copy()
    change = torch.zeros(3, S, S)
    change[1] = 100 / 255
    add_change(edited, change, transform)
    within = mask_of(picture, transform) == 1
    assert (colours(edited) - colours(picture))[within] == pytest.approx(round(58.7))


@pytest.mark.parametrize("mode", MODES)
def test_a_replaced_crop_hides_what_was_there(mode):
    picture, transform = photo(mode), placed()
    replace_crop(picture, torch.full((3, S, S), 0.2), transform)
    assert (colours(picture)[mask_of(picture, transform) == 1] == 51).all()


@pytest.mark.parametrize("degrees", [0, 33])
def test_a_crop_goes_back_to_where_it_was_taken_from(degrees):
    y, x = np.mgrid[:90, :100]
    values = np.stack([128 + 90 * np.sin(x / 17), 128 + 90 * np.cos(y / 15), x + y], -1).round().astype(np.uint8)
    picture, transform = Image.fromarray(values), placed(degrees)
    crop = torch.from_numpy(np.array(warped(picture, transform, S))).movedim(-1, 0) / 255
    replace_crop(picture, crop, transform)
    assert np.abs(np.asarray(picture, dtype=int) - values).max() < 12
    assert np.abs(np.asarray(picture, dtype=int) - values).mean() < 1.5


def test_strips_of_a_large_photo_give_the_same_pixels(monkeypatch):
    whole, strips = photo(), photo()
    change = torch.rand(3, S, S, generator=torch.Generator().manual_seed(0)) - 0.5
    add_change(whole, change, placed())
    monkeypatch.setattr(blending, "_STRIP_PIXELS", 7 * 60)
    add_change(strips, change, placed())
    assert strips.tobytes() == whole.tobytes()


@pytest.mark.parametrize("middle", [(-500.0, 40.0), (50.0, 900.0)])
def test_a_crop_beyond_the_photo_changes_nothing(middle):
    picture = photo()
    add_change(picture, torch.ones(3, S, S), placed(middle=middle))
    assert picture.tobytes() == photo().tobytes()
