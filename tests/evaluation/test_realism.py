from __future__ import annotations

import pytest
import torch

from csvae_hub.evaluation import Judges, attribute_change, frechet_over_floor
from csvae_hub.evaluation.attribute_change import frechet_distance


def normal(n, loc, scale, seed):
    return loc + scale * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_that_of_gaussians():
    first, second = normal(50_000, 0.0, torch.tensor([1.0, 2.0, 3.0]), 0), normal(50_000, 0.5, 1.0, 1)
    assert frechet_distance(first, second) == pytest.approx(3 * 0.25 + 0 + 1 + 4, rel=0.03)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_real_pictures_score_about_one_and_others_more():
    real = normal(2000, 0.0, 1.0, 0)
    ratios = [frechet_over_floor(normal(n, 0.0, 1.0, n), real, seed=seed) for n in (1000, 3000) for seed in range(20)]
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.6)
    assert frechet_over_floor(normal(1000, 0.5, 1.0, 1), real) > 20


def test_the_number_of_pictures_does_not_matter():
    real = normal(4000, 0.0, 1.0, 0)
    few = [frechet_over_floor(normal(100, 0.0, 1.0, 100 + seed), real, seed=seed) for seed in range(30)]
    assert sum(few) / len(few) == pytest.approx(1, abs=0.6)  # against all of the real ones it would be far above


def test_too_few_pictures_have_none():
    assert frechet_over_floor(normal(9, 0.0, 1.0, 0), normal(100, 0.0, 1.0, 1)) is None
    assert frechet_over_floor(normal(100, 0.0, 1.0, 0), normal(19, 0.0, 1.0, 1)) is None
    assert frechet_over_floor(normal(10, 0.0, 1.0, 0), normal(20, 0.0, 1.0, 1)) is not None


def test_edits_that_look_like_no_picture_are_far_from_real_ones(faultless, judges, make_halves):
    class Grey(faultless):
        def decode(self, latents):
            return 0.2 + 0.1 * latents.z

    data = make_halves(200, 5)
    near, far = (attribute_change(model, data, judges)["frechet_over_floor"] for model in (faultless(), Grey()))
    assert far > 3 * near


def test_the_judge_that_finds_edits_farther_from_real_pictures_counts(judges, faultless, make_halves):
    model, data = faultless(), make_halves(100, 5)

    def ratios(members):
        found = attribute_change(model, data, Judges(members))["attributes"]
        return {
            (name, to): found[name][to]["frechet_over_floor"] for name in found for to in ("to_present", "to_absent")
        }

    alone, both = [ratios([member]) for member in judges.members], ratios(judges.members)
    assert any(first != pytest.approx(second) for first, second in zip(*(one.values() for one in alone), strict=True))
    assert both == {key: pytest.approx(max(one[key] for one in alone)) for key in both}
