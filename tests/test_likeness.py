"""The benchmark of how near to real pictures edits could come."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture
def likeness(script):
    return script("likeness")


def test_the_most_alike_rows_are_taken_once_each(likeness):
    labels = np.array([[0, 0], [1, 1], [0, 0], [1, 0]], np.float32)
    wished = np.array([[0, 0], [0, 0], [1, 1], [0, 1]], np.float32)
    rows, unlike = likeness.most_alike(labels, wished)
    assert rows.tolist() == [0, 2, 1, 3]
    assert unlike == 2 / 4


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_people_with_other_attributes_are_farther_from_those_with_the_wished_value(likeness, share):
    generator = np.random.default_rng(0)
    wished = generator.random(4000) < 0.5
    other = generator.random(4000) < np.where(wished, 0.5, share)
    labels = np.stack([wished, other], 1).astype(np.float32)
    seen = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)) + 2 * torch.from_numpy(labels[:, 1:])
    found = likeness.others_kept([seen, seen[:, :2]], labels, 0, True, 400)
    assert found["unlike"] == 0
    if share == 0.5:
        assert 0.4 < found["others_kept"] < 2.5
    else:  # a tenth has it where half of the real ones do: the means differ by 0.8 in four places
        assert found["others_kept"] > 10


def test_too_few_pictures_give_none(likeness):
    labels = np.array([[1, 0], [0, 1]] * 200, np.float32)
    seen = [torch.zeros(400, 2)] * 2
    assert likeness.others_kept(seen, labels, 0, True, 9) == {"others_kept": None, "unlike": None}
    assert likeness.others_kept(seen, labels, 0, True, 51) == {"others_kept": None, "unlike": None}
