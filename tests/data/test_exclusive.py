"""Labels of groups of which each example has exactly one member."""

from __future__ import annotations

import numpy as np
import pytest

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError, UnknownAttributeError

NAMES = ("Happy", "Hat", "Sad", "Angry")
GROUPS = [("Happy", "Sad", "Angry")]
NAN = float("nan")


def data(labels, files=None):
    labels = np.array(labels, dtype=np.float32)
    return AttributeData(np.zeros((len(labels), 1, 4, 4), np.uint8), labels, NAMES, files)


def test_rows_with_one_member_stay_and_gaps_are_filled_where_they_can_be():
    given = data([[1, 0, 0, 0], [0, NAN, 1, 0], [1, 1, NAN, NAN], [NAN, 1, 0, 0], [NAN, 0, NAN, NAN]])
    found = given.exclusive(GROUPS)
    expected = [[1, 0, 0, 0], [0, NAN, 1, 0], [1, 1, 0, 0], [NAN, 1, NAN, NAN], [NAN, 0, NAN, NAN]]
    np.testing.assert_array_equal(found.labels, np.array(expected, np.float32))
    assert np.isnan(given.labels[2]).sum() == 2  # as they were
    assert found.images is given.images
    np.testing.assert_array_equal(given.exclusive([]).labels, given.labels)


@pytest.mark.parametrize(
    ("row", "got"), [([1, 0, 0, 1], "Happy and Angry"), ([0, 1, 0, 0], "none"), ([1, 0, 1, NAN], "Happy and Sad")]
)
def test_a_row_with_two_members_or_none_is_named_or_masked(row, got):
    given = data([[1, 0, 0, 0], row, row], ["a.png", "b.png", "c.png"])
    words = rf"^b\.png: expected one of Happy, Sad, Angry, got {got}; 2 of 3 examples are so: .* data\.mask = true"
    with pytest.raises(DataError, match=words):
        given.exclusive(GROUPS)
    with pytest.raises(DataError, match=r"^example 1: "):
        data([[1, 0, 0, 0], row]).exclusive(GROUPS)
    masked = given.exclusive(GROUPS, mask=True)
    np.testing.assert_array_equal(masked.labels[1], np.array([NAN, row[1], NAN, NAN], np.float32))
    np.testing.assert_array_equal(masked.labels[0], given.labels[0])


def test_a_name_that_the_data_lacks():
    with pytest.raises(UnknownAttributeError, match="Cap"):
        data([[1, 0, 0, 0]]).exclusive([("Happy", "Cap")])
