from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from csvae_hub.data.base import AttributeData, parse_labels
from csvae_hub.errors import DataError, UnknownAttributeError

NAMES = ["Smiling", "Eyeglasses", "Male"]


def pictures(n: int = 6) -> AttributeData:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    labels = generator.integers(0, 2, (n, 3)).astype(np.float32)
    labels[0, 1] = np.nan
    return AttributeData(images, labels, NAMES, [f"{i}.png" for i in range(n)])


def test_pictures_are_floats_between_0_and_1():
    data = pictures()
    x, y = data.batch([4, 0])
    assert x.dtype == y.dtype == torch.float32
    assert torch.equal((x * 255).round().to(torch.uint8), torch.from_numpy(data.images[[4, 0]]))
    assert x.min() >= 0
    assert x.max() <= 1
    assert torch.isnan(y[1, 1])
    assert data.shape == (3, 8, 8)


def test_vectors_stay_as_they_are():
    vectors = np.array([[-3, 20, 5], [0, 1, 2]], dtype=np.float32)
    data = AttributeData(vectors, np.zeros((2, 1), dtype=np.float32), ["Above"])
    assert torch.equal(data.batch([1, 0])[0], torch.from_numpy(vectors[[1, 0]]))
    assert data.shape == (3,)
    assert data.files is None


@pytest.mark.parametrize("indices", [[1, 3], np.array([1, 3]), torch.tensor([1, 3]), torch.arange(6) % 4 % 2 == 1])
def test_a_batch_is_its_examples(indices):
    data = pictures()
    wanted = torch.as_tensor(indices)
    wanted = wanted.nonzero()[:, 0] if wanted.dtype == torch.bool else wanted
    x, y = data.batch(indices)
    for i, index in enumerate(wanted.tolist()):
        one_x, one_y = data[index]
        assert torch.equal(x[i], one_x)
        assert torch.allclose(y[i], one_y, rtol=0, atol=0, equal_nan=True)


def test_a_batch_is_a_copy():
    data = pictures()
    before = data.fingerprint
    x, y = data.batch([0, 1])
    x.zero_()
    y.zero_()
    assert pictures().fingerprint == before
    assert data.batch([0])[0].any()
    assert torch.isnan(data.batch([0])[1]).any()


def test_an_empty_batch_has_the_shape_of_the_data():
    x, y = pictures().batch([])
    assert x.shape == (0, 3, 8, 8)
    assert y.shape == (0, 3)


def test_loads_with_torch():
    data = pictures()
    (x, y), *_ = DataLoader(data, batch_size=4)
    assert torch.equal(x, data.batch(range(4))[0])
    assert torch.allclose(y, data.batch(range(4))[1], equal_nan=True)
    assert len(list(data)) == len(data)
    with pytest.raises(IndexError):
        data[6]


def test_select_takes_columns_in_order():
    data = pictures()
    selected = data.select(["Male", "Smiling"])
    assert selected.attributes == ("Male", "Smiling")
    np.testing.assert_array_equal(selected.labels, data.labels[:, [2, 0]])
    assert selected.images is data.images
    assert data.attributes == tuple(NAMES)


def test_unknown_attribute_gets_the_near_one():
    with pytest.raises(UnknownAttributeError) as error:
        pictures().select(["Eyeglases"])
    assert "unknown attribute 'Eyeglases': did you mean 'Eyeglasses'?" in str(error.value)
    assert "This data knows: Smiling, Eyeglasses, Male" in str(error.value)


@pytest.mark.parametrize("indices", [[2, 3, 4], [4, 2, 2], [-1, 0, 1], [5], []])
def test_subset_is_a_batch_of_the_whole(indices):
    data = pictures()
    subset = data.subset(indices)
    assert len(subset) == len(indices)
    assert subset.files == [data.files[i] for i in indices]
    assert torch.equal(subset.batch(range(len(subset)))[0], data.batch(indices)[0])
    np.testing.assert_array_equal(subset.labels, data.labels[np.array(indices, dtype=int)])


def test_subset_of_neighbours_shares_memory():
    data = pictures()
    assert np.shares_memory(data.subset([1, 2, 3]).images, data.images)


def test_fingerprint_tells_data_apart():
    data = pictures()
    labels, images = data.labels.copy(), data.images.copy()
    labels[5, 0] = 1 - labels[5, 0]
    images[5, 2, 7, 7] ^= 1
    others = [
        AttributeData(data.images, labels, NAMES, data.files),
        AttributeData(images, data.labels, NAMES, data.files),
        AttributeData(data.images, data.labels, NAMES, None),
        AttributeData(data.images, data.labels, NAMES[::-1], data.files),
        data.subset(range(5)),
        data.select(["Male"]),
    ]
    fingerprints = {data.fingerprint, *(other.fingerprint for other in others)}
    assert len(fingerprints) == 7
    assert pictures().fingerprint == data.fingerprint == data.subset(range(6)).fingerprint
    assert len(data.fingerprint) == 64


def numbered(rows, attribute, value, kinds) -> np.ndarray:
    """Stands in for a renderer: a picture tells what was asked for."""
    asked = np.stack([rows, np.full_like(rows, value), kinds], axis=1) + len(attribute)
    return np.broadcast_to(asked[:, :, None, None], (len(rows), 3, 8, 8)).astype(np.uint8)


def drawn() -> AttributeData:
    data = pictures()
    return AttributeData(data.images, data.labels, NAMES, renderer=numbered)


@pytest.mark.parametrize(
    ("part", "indices", "kinds", "rows", "other_rows"),
    [
        (lambda data: data, [4, 0], None, [4, 0], [4, 0]),
        (lambda data: data, np.array([-1]), torch.tensor([2]), [5], [2]),
        (lambda data: data.subset([5, 3, 1]), [0, 2], [1, 1], [5, 1], [3, 3]),
        (lambda data: data.subset([2, 3, 4]).select(["Male"]).subset([2, 0]), [1, 0], None, [2, 4], [2, 4]),
    ],
)
def test_counterfactuals_are_those_of_the_rows_as_drawn(part, indices, kinds, rows, other_rows):
    data = part(drawn())
    assert data.has_counterfactuals
    for value in (True, False):
        x = data.counterfactual(indices, "Male", value, kinds)
        assert x.dtype == torch.float32
        assert x.shape == (len(rows), 3, 8, 8)
        wanted = np.stack([rows, [value] * len(rows), other_rows], axis=1) + len("Male")
        np.testing.assert_array_equal((x[:, :, 0, 0] * 255).round().int().numpy(), wanted)


def test_a_renderer_leaves_the_fingerprint():
    data = pictures()
    assert drawn().fingerprint == AttributeData(data.images, data.labels, NAMES).fingerprint


def test_counterfactuals_that_cannot_be():
    assert not pictures().has_counterfactuals
    with pytest.raises(
        DataError, match="counterfactual: expected data drawn from known factors, .*: load synthetic-faces"
    ):
        pictures().counterfactual([0], "Male", True)
    with pytest.raises(DataError, match="kinds: expected one example an index, 2, got 1"):
        drawn().counterfactual([0, 1], "Male", True, kinds=[3])
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'Mael': did you mean 'Male'?"):
        drawn().counterfactual([0], "Mael", True)
    for indices, kinds in (([6], [0]), ([0], [6])):
        with pytest.raises(IndexError):
            drawn().counterfactual(indices, "Male", True, kinds)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"images": np.zeros((2, 3, 8, 8))},
            r"expected pictures as uint8 \(N, C, H, W\) or .*got float64 \(2, 3, 8, 8\)",
        ),
        ({"images": np.full((2, 5), np.inf, np.float32)}, "images: expected finite numbers, got NaN or infinity"),
        ({"labels": np.zeros((3, 1), dtype=np.float32)}, r"expected one row an example .*\(2, 1\), got \(3, 1\)"),
        ({"labels": np.full((2, 1), -1, dtype=np.float32)}, "expected 0 .absent., 1 .present. or NaN"),
        ({"labels": np.zeros((2, 2), dtype=np.float32), "attributes": ["A", "A"]}, "expected each name once, got A, A"),
        ({"files": ["a.png"]}, "files: expected 2 names, one an example, got 1"),
        ({"rows": np.arange(3)}, r"rows: expected shape \(2,\), one an example, got \(3,\)"),
    ],
)
def test_impossible_arrays_are_refused(change, text):
    sound = {
        "images": np.zeros((2, 3, 8, 8), dtype=np.uint8),
        "labels": np.zeros((2, 1), dtype=np.float32),
        "attributes": ["A"],
        "files": ["a.png", "b.png"],
    }
    AttributeData(**sound)
    with pytest.raises(DataError, match=text):
        AttributeData(**(sound | change))


def test_cells_of_both_customs():
    labels = parse_labels([["1", "-1", ""], ["0", "1", "nan"], ["0.0", "-1", "1.0"]], ["a", "b", "c"], "here")
    np.testing.assert_array_equal(labels, np.array([[1, 0, np.nan], [0, 1, np.nan], [0, 0, 1]], dtype=np.float32))


def test_cells_that_say_nothing_clear():
    with pytest.raises(DataError, match="here: column 'b': expected 0 or 1, -1 or 1, or nothing .* got 'yes'"):
        parse_labels([["1", "yes"]], ["a", "b"], "here")
    with pytest.raises(DataError, match="here: column 'a' has both 0 and -1"):
        parse_labels([["0"], ["-1"]], ["a"], "here")
