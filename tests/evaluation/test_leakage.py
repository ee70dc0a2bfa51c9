from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from csvae_hub.evaluation import leakage
from csvae_hub.evaluation.leakage import whitened
from csvae_hub.models import Latents

NAMES = ("A", "B", "C")
SIZES = (1500, 500, 1000)


def codes(seed=0, plant=None):
    """Latents and labels of three splits: w_i = 3 y_i + noise, z random, with `plant(z, y)` done to it."""
    rng = np.random.default_rng(seed)
    latents, labels = [], []
    for n in SIZES:
        y = rng.integers(0, 2, (n, 3)).astype(np.float32)
        z = rng.normal(0, 1, (n, 8)).astype(np.float32)
        w = (3 * y[..., None] + rng.normal(0, 0.5, (n, 3, 2))).astype(np.float32)
        if plant is not None:
            plant(z, y)
        latents.append(Latents(torch.from_numpy(z), torch.from_numpy(w), torch.from_numpy(y), NAMES))
        labels.append(y)
    return tuple(latents), tuple(labels)


def test_a_model_without_subspaces_is_asked_for_z_alone():
    latents, labels = codes()
    without = tuple(replace(part, w=part.w[..., :0]) for part in latents)
    result = leakage(without, labels)
    assert result["z"]["logistic"] == leakage(latents, labels)["z"]["logistic"]
    assert {name for name, entry in result.items() if entry is None} == {"w_own", "w_others", "w_own_labelled"}
    assert result["reason"] == "the model has no subspaces: there is no w to read from"
    assert leakage(without, labels, without) == result


def test_intervals_on_random_z_cover_one_half():
    covered = [
        entry["low"] <= 0.5 <= entry["high"]
        for seed in range(4)
        for entry in leakage(*codes(seed))["z"]["logistic"]["attributes"].values()
    ]
    assert sum(covered) >= 10  # of 12; 95 % each


def test_random_z_leaks_nothing_and_w_tells_its_own_attribute_only():
    result = leakage(*codes())
    for kind in ("logistic", "mlp"):
        assert result["z"][kind]["max"] < 0.56
        assert all(entry["low"] < entry["auc"] < entry["high"] for entry in result["z"][kind]["attributes"].values())
        assert result["w_own"][kind]["min"] > 0.99
        assert result["w_others"][kind]["mean"] == pytest.approx(0.5, abs=0.04)


def test_both_probes_find_a_planted_linear_leak_and_where_it_is():
    def plant(z, y):
        z[:, 3] += 2 * y[:, 1]

    result = leakage(*codes(plant=plant))
    for kind in ("logistic", "mlp"):
        found = result["z"][kind]["attributes"]
        assert found["B"]["auc"] > 0.88
        assert found["B"]["low"] > 0.8
        assert max(found["A"]["auc"], found["C"]["auc"]) < 0.56
        assert result["z"][kind]["max"] == found["B"]["auc"]


def test_the_mlp_finds_a_leak_that_no_linear_probe_sees():
    def plant(z, y):
        z[:, 0] *= np.where(y[:, 2] == 1, 3, 0.3)  # the scale tells, the mean does not

    result = leakage(*codes(plant=plant))["z"]
    assert result["logistic"]["attributes"]["C"]["auc"] < 0.6
    assert result["mlp"]["attributes"]["C"]["auc"] > 0.8


def test_a_correlated_attribute_is_read_from_the_others_subspace():
    latents, labels = codes()
    for part, y in zip(latents, labels, strict=True):
        y[:, 0] = y[:, 1]
        part.y[:, 0] = part.y[:, 1]
    found = leakage(latents, labels)["w_others"]["mlp"]["attributes"]["A"]
    assert found["max"] > 0.99
    assert found["subspace"] == "B"


def test_the_scale_of_z_does_not_matter_to_the_probes():
    def plant(z, y):
        z[:, 3] += 2 * y[:, 1]
        z *= 1e-3
        z[:, 7] = 5  # a dead dimension

    assert leakage(*codes(plant=plant))["z"]["mlp"]["attributes"]["B"]["auc"] > 0.88


def test_a_leak_in_a_small_direction_behind_a_large_shared_one_is_found():
    def plant(z, y):
        z[:, 3] += 3 * y[:, 1]
        z[:] = z[:, :1] + z * 0.01  # all of z is one number, but for a hundredth

    assert leakage(*codes(plant=plant))["z"]["mlp"]["attributes"]["B"]["auc"] > 0.88


def test_whitened_codes_of_the_first_split_have_no_correlations():
    x = torch.randn(2, 500, 4) @ torch.tensor([[1.0, 2, 0, 5], [0, 1e-2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    first, second = whitened([x + 7, x[:, :50] + 7])
    covariance = first.mT @ first / 500
    torch.testing.assert_close(
        covariance, torch.diag_embed(torch.tensor([0.0, 1, 1, 1])).expand(2, 4, 4), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(second, first[:, :50])


def test_same_seed_same_figures_and_the_callers_random_state_is_kept():
    before = torch.get_rng_state()
    assert leakage(*codes()) == leakage(*codes())
    assert torch.equal(torch.get_rng_state(), before)


def test_an_attribute_of_one_class_says_why():
    latents, labels = codes()
    labels[0][:, 0] = 1
    labels[2][:, 1] = np.nan
    result = leakage(latents, labels)
    for kind in ("logistic", "mlp"):
        found = result["z"][kind]
        assert found["attributes"]["A"] == {"auc": None, "reason": "the train split has only the class present"}
        assert found["attributes"]["B"] == {"auc": None, "reason": "the test split has no label"}
        assert found["mean"] == found["attributes"]["C"]["auc"]
        assert result["w_others"][kind]["attributes"]["A"]["auc"] is None


def test_missing_labels_are_left_out():
    latents, labels = codes()
    for y in labels:
        y[::3] = np.nan
    assert leakage(latents, labels)["w_own"]["logistic"]["min"] > 0.99


def test_a_z_with_places_is_read_whole():
    latents, labels = codes(plant=lambda z, y: z.__setitem__((slice(None), 3), z[:, 3] + 2 * y[:, 1]))
    placed = tuple(replace(part, z=part.z.reshape(-1, 2, 2, 2), w=part.w[..., :0]) for part in latents)
    assert leakage(placed, labels)["z"]["logistic"] == leakage(latents, labels)["z"]["logistic"]


def test_labels_must_fit_the_latents():
    latents, labels = codes()
    with pytest.raises(ValueError, match=r"labels: expected shape \(1500, 3\), one row a latent, got \(500, 3\)"):
        leakage(latents, (labels[1], labels[1], labels[2]))
