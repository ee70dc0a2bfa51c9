from __future__ import annotations

import re

import numpy as np
import pytest

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError
from csvae_hub.evaluation import check_disjoint


def named(data, prefix):
    return AttributeData(data.images, data.labels, data.attributes, [f"{prefix}{i}.jpg" for i in range(len(data))])


@pytest.fixture(scope="module")
def parts(make_halves):
    return {"train": make_halves(20, 10), "valid": make_halves(6, 11), "test": make_halves(8, 12)}


def test_splits_apart_are_taken(parts):
    check_disjoint(parts)
    check_disjoint({name: named(data, name) for name, data in parts.items()})


@pytest.mark.parametrize(("first", "second"), [("", ""), ("a", "b"), ("a", "")])
def test_the_same_picture_under_another_name_is_found(parts, first, second):
    copies = parts["train"].subset([7, 3])
    train, test = (named(d, p) if p else d for d, p in ((parts["train"], first), (copies, second)))
    pair = f"{'a3.jpg' if first else 'example 3'} and {'b1.jpg' if second else 'example 1'}, equal in every value"
    with pytest.raises(DataError, match=re.escape(f"train and test share 2 example(s), such as {pair}: expected none")):
        check_disjoint({"train": train, "valid": parts["valid"], "test": test})


def test_the_same_name_is_found_whatever_the_picture(parts):
    same = {"train": named(parts["train"], "a"), "test": named(parts["test"], "a")}
    with pytest.raises(DataError, match=r"train and test share 8 example\(s\), such as a0.jpg"):
        check_disjoint(same)


def test_one_grey_level_makes_another_picture(parts):
    changed = parts["train"].images.copy()
    changed[:, 0, 0, 0] ^= 1
    check_disjoint({"train": parts["train"], "test": AttributeData(changed, parts["train"].labels, ("Left", "Right"))})


def test_vectors_are_told_apart_by_their_numbers():
    x = np.random.default_rng(0).normal(0, 1, (10, 3)).astype(np.float32)
    first, second = (AttributeData(part, np.zeros((5, 1), np.float32), ["Above"]) for part in (x[:5], x[5:]))
    check_disjoint({"train": first, "test": second})
    with pytest.raises(DataError, match="share 5"):
        check_disjoint({"train": first, "test": first})


def test_an_empty_split_is_named(parts):
    with pytest.raises(DataError, match="valid split: expected at least one example, got none"):
        check_disjoint({"train": parts["train"], "valid": parts["valid"].subset([])})
