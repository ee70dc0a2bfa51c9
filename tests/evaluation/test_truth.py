from __future__ import annotations

import numpy as np
import pytest

from csvae_hub.errors import DataError
from csvae_hub.evaluation import distance_to_truth
from csvae_hub.evaluation.truth import donors_of
from csvae_hub.models import list_models

FIGURES = ("distance", "unedited", "nothing", "moved", "reconstruction")


def parts(result):
    """All figures of every attribute, direction and region, and the means at the top."""
    entries = [result, result["by_example"]]
    for attribute in result["attributes"].values():
        entries += [attribute[part] for part in ("to_present", "to_absent", "by_example")]
    return [*entries, *(entry[region] for entry in entries for region in ("inside", "outside"))]


def test_a_model_that_gives_the_counterfactual_is_at_the_truth(oracle, faces):
    result = distance_to_truth(oracle(faces), faces)
    for part in parts(result):
        assert part["distance"] == part["reconstruction"] == 0
        assert part["moved"] == part["nothing"] == part["unedited"]
    assert result["nothing"] > 0.001
    assert result["outside"]["moved"] == 0
    assert result["by_example"]["by_value"] > 0  # its own kind is not the other picture's


def test_a_model_that_does_nothing_is_as_far_as_doing_nothing(faultless, faces):
    result = distance_to_truth(faultless(faces.attributes, deaf=True), faces)
    for part in parts(result):
        assert part["distance"] == part["nothing"] == part["unedited"]
        assert part["moved"] == part["reconstruction"] == 0
    assert result["inside"]["nothing"] > 4 * result["nothing"]
    assert result["outside"]["nothing"] == 0


def test_a_model_that_knows_one_kind_gains_nothing_from_an_example(oracle, faces):
    result = distance_to_truth(oracle(faces, kinds=False), faces)
    assert result["by_example"]["distance"] == result["by_example"]["by_value"] > 0
    assert result["attributes"]["Beard"]["to_absent"]["distance"] == 0


@pytest.mark.parametrize("name", list_models())
def test_inside_and_outside_make_the_whole_for_every_model(make_member, faces, name):
    names = ("Hair", "Beard")  # another order than the data's
    result = distance_to_truth(make_member(name, names), faces)
    assert tuple(result["attributes"]) == names
    for entry in result["attributes"].values():
        for part in ("to_present", "to_absent", "by_example"):
            share = entry[part]["share"]
            for figure in FIGURES:
                inside, outside = (entry[part][region][figure] for region in ("inside", "outside"))
                assert entry[part][figure] == pytest.approx(share * inside + (1 - share) * outside)
    directions = [entry[d]["distance"] for entry in result["attributes"].values() for d in ("to_present", "to_absent")]
    assert result["distance"] == pytest.approx(sum(directions) / 4)


def test_edits_are_measured_in_squared_units_of_x(faultless, faces):
    class Lighter(faultless):
        def decode(self, latents):
            return latents.z + 0.5

    result = distance_to_truth(Lighter(faces.attributes, deaf=True), faces)
    assert result["moved"] == pytest.approx(0.25)
    assert result["reconstruction"] == pytest.approx(0.25)


def test_every_example_is_counted_once(faultless, faces):
    result = distance_to_truth(faultless(faces.attributes, deaf=True), faces)
    for i, entry in enumerate(result["attributes"].values()):
        absent = int((faces.labels[:, i] == 0).sum())
        assert entry["to_present"]["count"] == entry["by_example"]["count"] == absent
        assert entry["to_absent"]["count"] == len(faces) - absent


def test_same_seed_same_figures_and_the_examples_differ_by_seed(oracle, faces):
    model = oracle(faces, kinds=False)
    first, second, other = (distance_to_truth(model, faces, seed=seed) for seed in (3, 3, 4))
    assert first == second
    assert first["distance"] == other["distance"]
    assert first["by_example"] != other["by_example"]


def test_labels_that_are_missing_are_named(faultless, faces, monkeypatch):
    labels = faces.labels.copy()
    labels[:, 0], labels[:, 1], labels[:, 2] = np.nan, 1, 0
    monkeypatch.setattr(faces, "labels", labels)
    result = distance_to_truth(faultless(faces.attributes, deaf=True), faces)
    beard, glasses, hair = (result["attributes"][name] for name in ("Beard", "Eyeglasses", "Hair"))
    assert beard == {
        "to_present": None,
        "to_absent": None,
        "by_example": None,
        "reason": "no picture has a label",
    }
    assert (glasses["to_present"], glasses["by_example"]) == (None, None)
    assert glasses["reason"] == "no picture is labelled absent"
    assert glasses["to_absent"]["count"] == len(faces)
    assert (hair["to_absent"], hair["by_example"]) == (None, None)
    assert hair["reason"] == "no picture is labelled present"
    assert result["distance"] > 0


def test_nothing_to_measure_gives_no_figures(faultless, faces, monkeypatch):
    monkeypatch.setattr(faces, "labels", np.full_like(faces.labels, np.nan))
    result = distance_to_truth(faultless(faces.attributes), faces)
    assert all(part[figure] is None for part in (result, result["by_example"]) for figure in FIGURES)


def test_data_without_counterfactuals_is_refused(faultless, make_halves):
    with pytest.raises(DataError, match="expected drawn data, whose counterfactuals are known, .* on synthetic-faces"):
        distance_to_truth(faultless(), make_halves(4, 0))


def test_the_other_picture_has_the_attribute():
    labels = np.array([0, 1, np.nan, 1, 0], np.float32)
    donors = donors_of(labels, seed=0)
    assert len(donors) == 5
    assert set(donors.tolist()) <= {1, 3}
    assert donors_of(np.array([0, np.nan], np.float32), seed=0) is None
