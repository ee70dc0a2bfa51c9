from __future__ import annotations

import numpy as np
import pytest

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import UnknownAttributeError
from csvae_hub.evaluation import attribute_change


def directions(result):
    return [entry[d] for entry in result["attributes"].values() for d in ("to_present", "to_absent")]


def test_a_faultless_model_changes_the_attribute_and_nothing_else(faultless, judge, make_halves):
    data = make_halves(100, 5)
    result = attribute_change(faultless(), data, judge)
    assert result["wished"] > 0.97
    assert result["worst"] == min(d["wished"] for d in directions(result))
    assert result["before"] < 0.03
    assert result["others"] < 0.1
    for i, name in enumerate(data.attributes):
        counts = [result["attributes"][name][d]["count"] for d in ("to_present", "to_absent")]
        assert counts == [int((data.labels[:, i] == y).sum()) for y in (0, 1)]


def test_a_model_whose_edits_do_nothing_is_found_out(faultless, judge, make_halves):
    result = attribute_change(faultless(deaf=True), make_halves(100, 5), judge)
    assert result["wished"] == result["before"] < 0.03
    assert max(result["others"], result["others_original"]) < 1e-6


def test_a_model_that_changes_other_attributes_is_found_out(faultless, judge, make_halves):
    result = attribute_change(faultless(spill=True), make_halves(100, 5), judge)
    assert result["wished"] > 0.97
    assert result["others"] > 0.3


def test_a_direction_without_pictures_says_why(faultless, judge, make_halves):
    data = make_halves(40, 5)
    labels = data.labels.copy()
    labels[:, 0] = np.where(labels[:, 0] == 1, 1, np.nan)
    result = attribute_change(faultless(), AttributeData(data.images, labels, data.attributes), judge)
    assert result["attributes"]["Left"]["to_present"] is None
    assert result["attributes"]["Left"]["reason"] == "no picture is labelled absent"
    assert result["attributes"]["Left"]["to_absent"]["count"] == int((labels[:, 0] == 1).sum())
    assert result["wished"] > 0.9


def test_one_attribute_has_no_others(faultless, judge, make_halves):
    result = attribute_change(faultless(["Left"]), make_halves(20, 5), judge)
    assert result["others"] is None
    assert list(result["attributes"]) == ["Left"]


def test_judges_and_data_must_know_the_attributes(faultless, judge, make_halves):
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'Lefty': did you mean 'Left'. The judge knows"):
        attribute_change(faultless(["Lefty"]), make_halves(20, 5), judge)


def test_models_of_vectors_are_refused(faultless, judge, make_halves):
    model = faultless()
    model.config.is_image, model.config.shape = False, (3,)
    with pytest.raises(ValueError, match=r"expected a model of images, got one of vectors of shape \(3,\)"):
        attribute_change(model, make_halves(4, 5), judge)
