from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from csvae_hub.data import SyntheticFaces, load_data
from csvae_hub.data.face_renderer import ATTRIBUTES, FACTORS, _View, render
from csvae_hub.errors import DataError, UnknownAttributeError

N = 96
ALL = range(N)

each_attribute = pytest.mark.parametrize("attribute", ATTRIBUTES)


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return SyntheticFaces(N, seed=1)


@pytest.fixture(scope="module")
def many() -> SyntheticFaces:
    return SyntheticFaces(4000, seed=2, image_size=16)


def other_kinds(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(N)


def changed(faces: SyntheticFaces, attribute: str, kinds_seed: int | None = None) -> torch.Tensor:
    """The largest change of a channel between absent and present, (N, S, S)."""
    kinds = None if kinds_seed is None else other_kinds(kinds_seed)
    present = faces.counterfactual(ALL, attribute, True, kinds)
    return (present - faces.counterfactual(ALL, attribute, False)).abs().amax(1)


def test_the_seed_decides(faces):
    again, other = SyntheticFaces(N, seed=1), SyntheticFaces(N, seed=2)
    assert again.fingerprint == faces.fingerprint
    assert not (other.images == faces.images).all(axis=(1, 2, 3)).any()
    assert len(np.unique(faces.images.reshape(N, -1), axis=0)) == N


@pytest.mark.parametrize("image_size", [16, 32, 128, 256])
def test_every_size_shows_the_same_faces(faces, image_size):
    resized = SyntheticFaces(8, seed=1, image_size=image_size)
    other = SyntheticFaces(8, seed=1, image_size=64)
    assert resized.shape == (3, image_size, image_size)
    np.testing.assert_array_equal(resized.labels, other.labels)
    pooled = [
        torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(data.images).float(), 16) for data in (resized, other)
    ]
    assert (pooled[0] - pooled[1]).abs().mean() < 5


def test_the_factors_are_uniform_and_independent(many):
    assert tuple(many.factors) == tuple(FACTORS)
    values = torch.stack(list(many.factors.values()))
    assert values.min() >= 0
    assert values.max() <= 1
    assert (values.mean(1) - 0.5).abs().max() < 5 * math.sqrt(1 / 12 / 4000)
    together = torch.cat([values, torch.from_numpy(many.labels.T)])
    off_diagonal = torch.corrcoef(together) - torch.eye(len(together))
    assert off_diagonal.abs().max() < 5 / math.sqrt(4000)


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_is_to_be_seen(name):
    faces = SyntheticFaces(8, seed=3, base_rates=0.0 if name == "mouth" else 1.0)
    present = {a: torch.full((8,), name != "mouth") for a in ATTRIBUTES}
    present["Eyeglasses"] = torch.full((8,), name.startswith("Eyeglasses"))
    ends = [render(faces.factors | {name: torch.full((8,), end)}, present, 64).int() for end in (0.0, 1.0)]
    seen = (ends[1] - ends[0]).abs().amax((1, 2, 3))
    assert seen.min() >= 16


def test_a_face_has_the_same_bits_in_every_batch(faces):
    for i in range(0, N, 7):
        factors = {name: values[i : i + 1] for name, values in faces.factors.items()}
        present = {name: torch.from_numpy(faces.labels[i : i + 1, j] == 1) for j, name in enumerate(ATTRIBUTES)}
        np.testing.assert_array_equal(render(factors, present, 64).numpy()[0], faces.images[i])


@pytest.mark.parametrize("image_size", [16, 64])
def test_every_part_lies_inside_its_window(monkeypatch, image_size):
    generator = torch.Generator().manual_seed(0)
    factors = {name: torch.randint(2, (64,), generator=generator).float() for name in FACTORS}
    present = {name: torch.rand(64, generator=generator) < 0.8 for name in ATTRIBUTES}
    in_windows = render(factors, present, image_size)
    monkeypatch.setattr(_View, "window", lambda view, *_: view)
    assert torch.equal(render(factors, present, image_size), in_windows)


@each_attribute
def test_the_own_value_and_kind_give_the_face_itself(faces, attribute):
    x, y = faces.batch(ALL)
    for value in (True, False):
        own = y[:, ATTRIBUTES.index(attribute)] == value
        same = (faces.counterfactual(ALL, attribute, value) == x).flatten(1).all(1)
        assert torch.equal(same, own)


@each_attribute
def test_there_and_back_is_the_identity(attribute):
    with_it, without = (SyntheticFaces(24, seed=4, base_rates={attribute: rate}) for rate in (1.0, 0.0))
    assert torch.equal(without.counterfactual(range(24), attribute, True), with_it.batch(range(24))[0])
    assert torch.equal(with_it.counterfactual(range(24), attribute, False), without.batch(range(24))[0])


@each_attribute
def test_presence_is_seen_in_every_face(faces, attribute):
    for kinds_seed in (None, 1, 2):
        visible = changed(faces, attribute, kinds_seed) > 25 / 255
        assert visible.flatten(1).sum(1).min() >= 20


UNTOUCHED = {
    "Beard": np.s_[:26, :],
    "Eyeglasses": np.s_[42:, :],
    "Hair": np.s_[:, :6],
    "Smiling": np.s_[:38, :],
    "Wearing_Hat": np.s_[28:, :],
}


@each_attribute
def test_only_the_attributes_part_of_the_face_changes(faces, attribute):
    union = torch.stack([changed(faces, attribute, seed) for seed in (None, 1, 2)]).amax((0, 1)) > 0
    rows, columns = UNTOUCHED[attribute]
    assert not union[rows, columns].any()
    if attribute != "Wearing_Hat":
        edges = torch.cat([union[0], union[:, 0], union[:, -1]])
        assert not edges.any()


@pytest.mark.parametrize(
    ("first", "second"),
    [("Eyeglasses", "Smiling"), ("Eyeglasses", "Wearing_Hat"), ("Smiling", "Wearing_Hat"), ("Beard", "Wearing_Hat")],
)
def test_attributes_in_different_places_share_no_pixel(faces, first, second):
    for kinds_seed in (None, 1):
        both = (changed(faces, first, kinds_seed) > 0) & (changed(faces, second, kinds_seed) > 0)
        assert not both.any()


@each_attribute
def test_a_kind_is_the_others_variation_and_nothing_else(faces, attribute):
    kinds = other_kinds(5)
    factors = {
        name: values[torch.from_numpy(kinds)] if name.split(".")[0] == attribute else values
        for name, values in faces.factors.items()
    }
    present = {name: torch.from_numpy(faces.labels[:, j] == 1) for j, name in enumerate(ATTRIBUTES)}
    present[attribute] = torch.ones(N, dtype=torch.bool)
    drawn = faces.counterfactual(ALL, attribute, True, kinds)
    assert torch.equal((drawn * 255).round().to(torch.uint8), render(factors, present, 64))
    absent = faces.counterfactual(ALL, attribute, False)
    assert torch.equal(faces.counterfactual(ALL, attribute, False, kinds), absent)


@each_attribute
def test_kinds_differ_to_the_eye(faces, attribute):
    ten = faces.counterfactual([3] * 10, attribute, True, range(10))
    distances = (ten[:, None] - ten).abs().amax((2, 3, 4))[~torch.eye(10, dtype=torch.bool)]
    assert distances.min() > 4 / 255
    assert distances.median() > 60 / 255


def test_base_rates_come_out_as_asked():
    base_rates = {"Beard": 0.1, "Hair": 0.8}
    means = SyntheticFaces(4000, image_size=16, base_rates=base_rates).labels.mean(0)
    for mean, wanted in zip(means, [0.1, 0.5, 0.8, 0.5, 0.5], strict=True):
        assert abs(mean - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / 4000)
    labels = SyntheticFaces(50, image_size=16, base_rates={"Beard": 1, "Hair": 0}).labels
    assert labels[:, 0].all()
    assert not labels[:, 2].any()


def test_correlations_come_out_as_asked():
    correlations = {("Smiling", "Eyeglasses"): 0.9, ("Beard", "Wearing_Hat"): -0.5}
    labels = SyntheticFaces(4000, image_size=16, correlations=correlations).labels
    wanted = np.eye(5)
    for (first, second), value in correlations.items():
        i, j = ATTRIBUTES.index(first), ATTRIBUTES.index(second)
        wanted[i, j] = wanted[j, i] = 2 / math.pi * math.asin(value)
    assert abs(np.corrcoef(labels.T) - wanted).max() < 5 / math.sqrt(4000)
    assert abs(labels.mean(0) - 0.5).max() < 5 * math.sqrt(1 / 4 / 4000)


def test_a_correlation_of_1_makes_attributes_equal_and_of_minus_1_opposite():
    correlations = {("Beard", "Hair"): -1, ("Smiling", "Eyeglasses"): 1}
    labels = SyntheticFaces(200, image_size=16, correlations=correlations).labels
    np.testing.assert_array_equal(labels[:, 0], 1 - labels[:, 2])
    np.testing.assert_array_equal(labels[:, 1], labels[:, 3])


def test_base_rates_and_correlations_change_the_attributes_only(faces):
    other = SyntheticFaces(N, seed=1, image_size=16, base_rates=0.2, correlations={("Beard", "Hair"): 0.5})
    assert all(torch.equal(other.factors[name], faces.factors[name]) for name in FACTORS)
    assert not np.array_equal(other.labels, faces.labels)


def test_select_and_subset_keep_the_counterfactuals(faces):
    part = faces.select(["Hair", "Smiling"]).subset([9, 5, 3, 3]).subset([1, 2, 3, 0])
    assert part.has_counterfactuals
    wanted = faces.counterfactual([5, 9, 3], "Hair", True, kinds=[3, 5, 3])
    assert torch.equal(part.counterfactual([0, -1, 2], "Hair", True, kinds=[1, 0, 2]), wanted)
    first_two = faces.counterfactual([5, 3], "Hair", False)
    assert torch.equal(part.counterfactual(torch.tensor([True, True, False, False]), "Hair", False), first_two)
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'Beard'.* This data knows: Hair, Smiling"):
        part.counterfactual([0], "Beard", True)
    with pytest.raises(IndexError):
        part.counterfactual([4], "Hair", True)
    assert part.counterfactual([], "Hair", True).shape == (0, 3, 64, 64)


def test_a_pickled_copy_draws_the_same():
    faces = SyntheticFaces(8, image_size=16)
    copy = pickle.loads(pickle.dumps(faces))
    assert torch.equal(copy.counterfactual(range(8), "Hair", True), faces.counterfactual(range(8), "Hair", True))


def test_splits_by_name_share_no_face():
    splits = [
        load_data("synthetic-faces", None, split, 16, examples=50, seed=seed)
        for seed in (0, 1)
        for split in ("train", "valid", "test")
    ]
    pictures = np.concatenate([split.images for split in splits])
    assert pictures.shape == (300, 3, 16, 16)
    assert len(np.unique(pictures.reshape(300, -1), axis=0)) == 300
    selected = load_data("synthetic-faces", ["Hair"], "test", 16, examples=50, seed=1)
    assert selected.attributes == ("Hair",)
    assert selected.has_counterfactuals
    np.testing.assert_array_equal(selected.images, splits[-1].images)
    with pytest.raises(DataError, match="split: expected train, valid, test of synthetic-faces, got 'all'"):
        load_data("synthetic-faces", split="all")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n": 0}, "n: expected at least one face, got 0"),
        ({"image_size": 48}, "image_size: expected one of 16, 32, 64, 128, 256, got 48"),
        ({"base_rates": 1.5}, "base_rates: expected the base rate of Beard between 0 and 1, got 1.5"),
        ({"base_rates": {"Hair": float("nan")}}, "base_rates: expected the base rate of Hair between 0 and 1, got nan"),
        ({"base_rates": {"Hat": 0.5}}, "base_rates: expected attributes among Beard, .*, Wearing_Hat, got 'Hat'"),
        ({"correlations": {("Hair", "Smilng"): 0.5}}, "got 'Smilng': did you mean 'Smiling'?"),
        ({"correlations": {("Hair", "Beard"): -1.1}}, "expected a number from -1 to 1 for Hair, Beard, got -1.1"),
        ({"correlations": {("Hair", "Beard"): math.nan}}, "expected a number from -1 to 1 for Hair, Beard, got nan"),
        ({"correlations": {("Hair", "Hair"): 1}}, "expected each pair of two attributes once, got Hair, Hair"),
        (
            {"correlations": {("Hair", "Beard"): 0.1, ("Beard", "Hair"): 0.1}},
            "expected each pair of two attributes once, got Hair, Beard",
        ),
        (
            {"correlations": {("Beard", "Hair"): 0.9, ("Hair", "Smiling"): 0.9, ("Beard", "Smiling"): -0.9}},
            "expected a positive semi-definite matrix, got one with the eigenvalue -0.80: .* bring the numbers closer",
        ),
    ],
)
def test_faces_that_cannot_be(arguments, text):
    with pytest.raises(DataError, match=text):
        SyntheticFaces(**({"n": 4, "image_size": 16} | arguments))
