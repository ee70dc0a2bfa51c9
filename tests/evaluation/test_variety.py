from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from csvae_hub.evaluation import variety
from csvae_hub.models import Latents, list_models

FIGURES = ("sampled", "transferred", "truth", "sampled_ratio", "transferred_ratio")


def test_the_truths_own_variety_is_the_yardstick(oracle, faces):
    result = variety(oracle(faces), faces, pictures=20)
    assert result["transferred"] == result["truth"] > 0.01
    assert result["transferred_ratio"] == 1
    assert result["sampled_ratio"] == pytest.approx(1, abs=0.25)  # other kinds of the same distribution
    for figure in FIGURES:
        values = [entry[figure] for entry in result["attributes"].values()]
        assert result[figure] == pytest.approx(np.mean(values))


def test_a_constant_model_has_none(faultless, faces):
    result = variety(faultless(faces.attributes, deaf=True), faces)
    assert result["sampled"] == result["transferred"] == result["transferred_ratio"] == 0
    assert result["truth"] > 0


@pytest.mark.parametrize("name", [name for name in list_models() if name != "csvae"])
def test_models_without_subspaces_have_none(make_member, faces, name, monkeypatch):
    model = make_member(name, faces.attributes)
    monkeypatch.setattr(model, "_filled", lambda y, q: torch.ones_like(q.mean))
    result = variety(model, faces, pictures=8)
    assert result["sampled"] < 1e-6
    assert result["transferred"] < 1e-6


def test_a_subspace_has_some(make_member, make_halves):
    result = variety(make_member("csvae"), make_halves(40, 0), pictures=8)
    assert result["sampled"] > 1e-5
    assert (result["truth"], result["sampled_ratio"]) == (None, None)
    assert (result["pictures"], result["samples"]) == (8, 8)


class Noisy:
    """Sets the left half to its own value plus a number of the standard deviation `scale`; kinds are in w."""

    def __init__(self, inner, scale):
        self.inner, self.scale = inner, scale
        self.config, self.attributes, self.device = inner.config, inner.attributes, inner.device
        self.modules = inner.modules

    def encode(self, x, y=None):
        latents = self.inner.encode(x, y)
        return replace(
            latents, w=self.scale * torch.randn(*latents.w.shape, generator=torch.Generator().manual_seed(0))
        )

    def edit(self, latents, values, *, generator=None):
        ((name, value),) = values.items()
        if isinstance(value, Latents):
            return latents.replace(name, value.w[:, value.index(name)])
        return latents.replace(name, self.scale * torch.randn(len(latents), 1, generator=generator))

    def decode(self, latents):
        return latents.z + latents.w[:, :1, :, None]


@pytest.mark.parametrize("scale", [0.1, 0.3])
def test_it_is_the_standard_deviation_in_units_of_x(faultless, make_halves, scale):
    result = variety(Noisy(faultless(), scale), make_halves(200, 0), pictures=200)
    left = result["attributes"]["Left"]
    assert left["sampled"] == pytest.approx(scale, rel=0.05)
    assert left["transferred"] == pytest.approx(scale, rel=0.15)
    assert result["attributes"]["Right"]["sampled"] == pytest.approx(0, abs=1e-7)


def test_same_seed_same_figures(make_member, make_halves):
    model, data = make_member("csvae"), make_halves(40, 0)
    first, second, other = (variety(model, data, seed=seed, pictures=8) for seed in (3, 3, 4))
    assert first == second
    assert first["sampled"] != other["sampled"]


def test_what_nobody_has_cannot_be_taken_over(oracle, faces, monkeypatch):
    labels = faces.labels.copy()
    labels[:, 0], labels[1:, 1] = np.nan, 0
    labels[0, 1] = 1
    monkeypatch.setattr(faces, "labels", labels)
    result = variety(oracle(faces), faces, pictures=4)
    for name in ("Beard", "Eyeglasses"):
        entry = result["attributes"][name]
        assert (entry["transferred"], entry["truth"], entry["transferred_ratio"]) == (None, None, None)
        assert entry["sampled"] > 0
        assert entry["reason"] == "fewer than two examples are labelled present and taken for present"
    assert "reason" not in result["attributes"]["Hair"]
    assert result["transferred"] > 0


def test_wrong_numbers_are_named(faultless, make_halves):
    for numbers in ({"samples": 1}, {"pictures": 0}):
        with pytest.raises(ValueError, match="expected at least 2 samples of at least 1 picture, got . of "):
            variety(faultless(), make_halves(4, 0), **numbers)
