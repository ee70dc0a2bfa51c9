from __future__ import annotations

import numpy as np
import pytest

from csvae_hub.data import load_data, swiss_roll
from csvae_hub.errors import DataError, UnknownAttributeError


def test_points_lie_on_the_roll():
    x = swiss_roll(1000).images.astype(np.float64)
    radius, angle = np.hypot(x[:, 0], x[:, 2]), np.arctan2(x[:, 2], x[:, 0])
    turns = (radius - angle) / (2 * np.pi)
    np.testing.assert_allclose(turns, turns.round(), atol=1e-6)
    assert radius.min() >= 1.5 * np.pi
    assert radius.max() <= 4.5 * np.pi
    assert x[:, 1].min() >= 0
    assert x[:, 1].max() <= 21


def test_the_attribute_is_the_upper_half():
    data = swiss_roll(20_000)
    assert data.attributes == ("Above",)
    assert data.shape == (3,)
    np.testing.assert_array_equal(data.labels[:, 0] == 1, data.images[:, 1] > 10.5)
    assert abs(data.labels.mean() - 0.5) < 0.02


def test_the_spiral_says_nothing_of_the_attribute():
    data = swiss_roll(20_000)
    radius = np.hypot(data.images[:, 0], data.images[:, 2])
    above = data.labels[:, 0] == 1
    for share in (0.1, 0.5, 0.9):
        assert abs(np.quantile(radius[above], share) - np.quantile(radius[~above], share)) < 0.25


def test_noise_has_its_standard_deviation():
    still, noisy = swiss_roll(20_000, seed=3), swiss_roll(20_000, seed=3, noise=0.5)
    np.testing.assert_allclose((noisy.images - still.images).std(axis=0), 0.5, rtol=0.03)


def test_the_seed_decides():
    assert swiss_roll(100, seed=1).fingerprint == swiss_roll(100, seed=1).fingerprint
    assert swiss_roll(100, seed=1).fingerprint != swiss_roll(100, seed=2).fingerprint


@pytest.mark.parametrize(
    ("n", "noise", "text"),
    [
        (0, 0.0, "n: expected at least one point, got 0"),
        (9, -1.0, "noise: expected a standard deviation of 0 or more, got -1.0"),
        (9, float("nan"), "noise: expected .* got nan"),
    ],
)
def test_impossible_rolls(n, noise, text):
    with pytest.raises(DataError, match=text):
        swiss_roll(n, noise=noise)


def test_splits_by_name_share_no_point():
    splits = [
        load_data("swiss-roll", ["Above"], split, seed=seed) for seed in (0, 1) for split in ("train", "valid", "test")
    ]
    points = np.concatenate([split.images for split in splits])
    assert [len(split) for split in splits] == [10_000] * 6
    assert len(np.unique(points, axis=0)) == len(points)
    assert len(load_data("swiss-roll", split="valid", examples=7)) == 7


def test_what_load_data_does_not_know(tmp_path):
    with pytest.raises(UnknownAttributeError, match="did you mean 'Above'?"):
        load_data("swiss-roll", ["above"])
    with pytest.raises(DataError, match="split: expected train, valid, test of swiss-roll, got 'all'"):
        load_data("swiss-roll", split="all")
    with pytest.raises(
        DataError, match="swissroll: expected swiss-roll, synthetic-faces, a folder with images/.* got no"
    ):
        load_data("swissroll")
    with pytest.raises(DataError, match="got an empty folder"):
        load_data(tmp_path)
    (tmp_path / "note.txt").write_text("")
    with pytest.raises(DataError, match="got a folder without these"):
        load_data(tmp_path)
