"""Putting a crop back: what is changed, by how much, and what is left to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.editing import blending
from csvae_hub.editing.alignment import Similarity, warped
from csvae_hub.editing.blending import FEATHER, FLOOR, WEAK, feather, layer, put_back

S = 16
MODES = ["L", "LA", "RGB", "RGBA"]
SIZE = 64
"""Of the crops whose layers are looked at."""


def add_change(picture, change, transform):
    zero = torch.zeros_like(change)
    put_back(picture, layer(change, zero, zero, "difference"), transform)


def replace_crop(picture, crop, transform):
    put_back(picture, layer(crop, crop, crop, "whole"), transform)


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


# -- what changed -------------------------------------------------------------------------------------------------


def smooth(seed, size=SIZE, low=0.2, high=0.7):
    """Something as smooth as a decoded face."""
    values = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * torch.nn.functional.interpolate(values, (size, size), mode="bilinear")[0]


def edited_in(own, top=20, left=24, height=12, width=14, by=0.3):
    edited = own.clone()
    edited[:, top : top + height, left : left + width] += by
    return edited


def distance_to(mask):
    """Of each pixel to the nearest of a mask, in pixels of the longer side."""
    there = mask.nonzero().float()
    places = torch.stack(torch.meshgrid(*map(torch.arange, mask.shape), indexing="ij"), -1).flatten(0, 1).float()
    return torch.cdist(places, there, p=float("inf")).amin(1).view(mask.shape)


def test_a_changed_place_is_the_decoded_face_itself_and_beyond_the_smoothing_the_layer_is_0():
    own = smooth(0)
    edited = edited_in(own)
    found = layer(edited, own, own, "changed")
    apart = distance_to((edited - own).abs().amax(0) > 0)
    assert (found[:, apart > 6] == 0).all()
    inside = distance_to((edited - own).abs().amax(0) == 0) > 2
    assert (found[3, inside] > 1 - 1e-5).all()
    assert (found[3, apart == 0] > 0.85).all()  # no ghost of what was there at the edge
    assert (found[:3] - edited)[:, inside].abs().max() < 1e-4
    assert ((found[3] >= 0) & (found[3] < 1 + 1e-5)).all()
    assert found[3].diff(dim=0).abs().max() < 0.5  # no seam


def test_the_photos_own_detail_goes_where_the_change_is_strong_and_stays_where_it_is_weak():
    own = smooth(0)
    detail = torch.where(torch.arange(SIZE) % 2 == 0, 0.1, -0.1).expand(3, SIZE, SIZE)
    edited = edited_in(edited_in(own, by=0.2), top=45, by=2.2 * WEAK * 0.2)
    colour, opacity = layer(edited, own, own + detail, "changed").split([3, 1])
    after = (own + detail) * (1 - opacity) + colour
    strong, weak, apart = np.s_[:, 24:28, 28:34], np.s_[:, 49:53, 28:34], np.s_[:, :10]
    rough = [(after - own)[place].diff(dim=2).abs().mean().item() for place in (strong, weak, apart)]
    assert rough[0] < 0.01
    assert rough[1] == pytest.approx(0.2, rel=0.1)
    assert rough[2] == pytest.approx(0.2, rel=1e-3)
    assert (after - own - detail)[weak].mean() == pytest.approx(2.2 * WEAK * 0.2, rel=0.1)


def test_nothing_below_the_floor_and_no_tint_beside_a_strong_change():
    own = smooth(0)
    assert not layer(own + 0.95 * FLOOR, own, own, "changed").any()
    assert not layer(own, own, own, "changed").any()
    tinted = edited_in(own, by=0.5) + 0.9 * WEAK * 0.5
    assert not layer(tinted, own, own, "changed")[:, :, :16].any()
    assert layer(tinted, own, own, "difference")[:3, :, :16].any()


def test_beside_a_very_strong_change_the_decoded_face_itself_begins_later():
    own = smooth(0)
    edited = edited_in(edited_in(own, by=0.9), top=45, by=1.2 * WEAK * 0.9)
    opacity = layer(edited, own, own, "changed")[3]
    assert opacity[24:28, 28:34].min() > 0.99
    assert 0.05 < opacity[49:53, 28:34].mean() < 0.2


def test_the_decoded_face_takes_the_colours_of_the_photo_around_it():
    own, cast = smooth(0), torch.tensor([0.1, -0.05, 0.02])[:, None, None]
    edited = edited_in(own)
    crop = own + cast
    crop[:, 22:30, 26:36] -= 0.5  # a thing under the edit that the model did not draw
    colour, opacity = layer(edited, own, crop, "changed").split([3, 1])
    after = crop * (1 - opacity) + colour
    assert (after - edited - cast)[:, 24:28, 28:34].abs().max() < 0.02


def test_a_stronger_edit_shows_more_without_a_jump():
    own = smooth(0)
    direction = edited_in(own, by=1.0) - own
    layers = [layer(own + s * direction, own, own, "changed") for s in torch.linspace(0, 0.3, 61)]
    steps = [(b - a).abs().max().item() for a, b in zip(layers, layers[1:], strict=False)]
    assert max(steps) < 0.2
    shown = [found[3].sum().item() for found in layers]
    assert np.diff(shown).min() > -1e-3
    assert shown[-1] > 100


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("degrees", [0, 33])
def test_a_photo_is_changed_near_the_edit_alone(mode, degrees):
    picture, transform = photo(mode), placed(degrees, side=80)
    own = smooth(0, S)
    edited = edited_in(own, 6, 6, 4, 4)
    result = picture.copy()
    put_back(result, layer(edited, own, own, "changed"), transform)
    places = transform(np.stack(np.mgrid[: picture.height, : picture.width][::-1], -1) + 0.5)
    near = (np.abs(places - 8) < 2 + 4).all(-1)
    assert np.array_equal(np.asarray(result)[~near], np.asarray(picture)[~near])
    assert not np.array_equal(np.asarray(result), np.asarray(picture))


@pytest.mark.parametrize("paste", ["", "all", None])
def test_an_unknown_way_is_refused(paste):
    with pytest.raises(ValueError, match="paste: expected changed, difference, whole, got"):
        blending.check_paste(paste)
