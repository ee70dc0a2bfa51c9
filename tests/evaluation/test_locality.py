from __future__ import annotations

import pytest
import torch

from csvae_hub.data import SyntheticFaces
from csvae_hub.evaluation import attribute_change
from csvae_hub.evaluation.attribute_change import LOCAL, Change
from csvae_hub.evaluation.judges import train_judges


def changed(rows, columns, by=0.5, size=40):
    after = torch.zeros(2, 3, size, size)
    after[..., rows, columns] = by
    change = Change()
    change.add(torch.zeros(2, 3, size, size), after)
    return change


def test_an_even_change_is_as_large_everywhere():
    assert changed(slice(None), slice(None)).ratios("lower third") == pytest.approx({"lower third": 1, "border": 1})


def test_a_change_in_one_place_is_no_change_elsewhere():
    eyes = changed(slice(10, 20), slice(10, 30))
    assert eyes.ratios("lower third") == {"lower third": 0, "border": 0}
    assert eyes.ratios("upper third")["upper third"] == pytest.approx(3 * 20 / (13 * 40))
    chin = changed(slice(30, 40), slice(10, 30))
    assert chin.ratios("upper third")["upper third"] == 0
    assert chin.ratios("lower third")["border"] == pytest.approx(4 * 20 / (1600 - 32 * 32))


def test_nothing_changed_has_no_ratio():
    assert Change().ratios("upper third") is None
    assert changed(slice(0), slice(0)).ratios("lower third") is None


def test_true_edits_of_drawn_faces_stay_where_they_belong(oracle):
    faces = SyntheticFaces(60, seed=1, image_size=32)
    judges = train_judges(SyntheticFaces(40, seed=2, image_size=32), epochs=1)
    found = attribute_change(oracle(faces), faces, judges)["locality"]
    assert set(found) == {"Eyeglasses", "Smiling"} < set(LOCAL)
    assert found["Eyeglasses"]["lower third"] == found["Smiling"]["upper third"] == 0
    assert max(ratios["border"] for ratios in found.values()) < 0.05

    class Dimmed(oracle):
        def decode(self, latents):
            return super().decode(latents) * (0.8 if latents.z[0, 1] >= 0 else 1)

    found = attribute_change(Dimmed(faces), faces, judges)["locality"]
    assert min(min(ratios.values()) for ratios in found.values()) > 0.2
