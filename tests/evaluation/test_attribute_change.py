from __future__ import annotations

import numpy as np
import pytest

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import UnknownAttributeError
from csvae_hub.evaluation import attribute_change


def directions(result):
    return [entry[d] for entry in result["attributes"].values() for d in ("to_present", "to_absent")]


def test_a_faultless_model_changes_the_attribute_and_nothing_else(faultless, judges, make_halves):
    data = make_halves(100, 5)
    result = attribute_change(faultless(), data, judges)
    assert result["wished"] > 0.97
    assert result["worst"] == min(d["wished"] for d in directions(result))
    assert result["before"] < 0.03
    assert result["others"] < 0.1
    for i, name in enumerate(data.attributes):
        counts = [result["attributes"][name][d]["count"] for d in ("to_present", "to_absent")]
        assert counts == [int((data.labels[:, i] == y).sum()) for y in (0, 1)]


def test_a_model_whose_edits_do_nothing_is_found_out(faultless, judges, make_halves):
    result = attribute_change(faultless(deaf=True), make_halves(100, 5), judges)
    assert result["wished"] == result["before"] < 0.03
    assert max(result["others"], result["others_original"]) < 1e-6


def test_a_model_that_changes_other_attributes_is_found_out(faultless, judges, make_halves):
    result = attribute_change(faultless(spill=True), make_halves(100, 5), judges)
    assert result["wished"] > 0.97
    assert result["others"] > 0.3


def relabelled(data, values):
    """The data with other labels of its first attribute."""
    labels = data.labels.copy()
    labels[:, 0] = values
    return AttributeData(data.images, labels, data.attributes)


@pytest.mark.parametrize(
    ("labels", "reason", "doubt"),
    [
        (lambda y: np.where(y == 1, 1, np.nan), "no picture is labelled absent", "only the class present"),
        (lambda y: np.where(y == 0, 0, np.nan), "no picture is labelled present", "only the class absent"),
        (lambda y: np.full_like(y, np.nan), "no picture has a label", None),
    ],
)
def test_an_attribute_of_one_class_is_named_and_not_counted(faultless, judges, make_halves, labels, reason, doubt):
    data = make_halves(40, 5)
    data = relabelled(data, labels(data.labels[:, 0]))
    result = attribute_change(faultless(), data, judges)
    left, right = (result["attributes"][name] for name in ("Left", "Right"))
    assert left["reason"] == reason
    there = [left[d] for d in ("to_present", "to_absent") if left[d] is not None]
    assert len(there) == (doubt is not None)
    for entry in there:
        assert entry["count"] == (~np.isnan(data.labels[:, 0])).sum()
        assert (entry["wished"], entry["before"]) == (None, None)
        assert entry["reason"] == f"the pictures have {doubt}: whether the judges read the attribute can't be told"
        assert entry["others"] < 0.1
    assert right["to_present"]["others"] is None  # Left, the only other, is not to be trusted
    assert result["wished"] == np.mean([right[d]["wished"] for d in ("to_present", "to_absent")])


def test_a_judge_at_chance_is_named_and_not_counted(faultless, judges, make_halves):
    data = make_halves(200, 5)
    data = relabelled(data, np.random.default_rng(0).integers(0, 2, 200))  # what the judges can't know
    result = attribute_change(faultless(), data, judges)
    left, right = (result["attributes"][name] for name in ("Left", "Right"))
    for direction in ("to_present", "to_absent"):
        assert (left[direction]["wished"], left[direction]["before"]) == (None, None)
        assert "a judge is at chance: its ROC AUC on unedited pictures is 0." in left[direction]["reason"]
        assert left[direction]["others"] < 0.1
        assert right[direction]["wished"] > 0.97
    assert result["wished"] == np.mean([right[d]["wished"] for d in ("to_present", "to_absent")])
    assert result["worst"] > 0.97


def test_one_attribute_has_no_others(faultless, judges, make_halves):
    result = attribute_change(faultless(["Left"]), make_halves(20, 5), judges)
    assert result["others"] is None
    assert list(result["attributes"]) == ["Left"]


def test_judges_and_data_must_know_the_attributes(faultless, judges, make_halves):
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'Lefty': did you mean 'Left'. The judges know"):
        attribute_change(faultless(["Lefty"]), make_halves(20, 5), judges)


def test_models_of_vectors_are_refused(faultless, judges, make_halves):
    model = faultless()
    model.config.is_image, model.config.shape = False, (3,)
    with pytest.raises(ValueError, match=r"expected a model of images, got one of vectors of shape \(3,\)"):
        attribute_change(model, make_halves(4, 5), judges)
