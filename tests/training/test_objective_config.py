"""The objective's options: their weights, what they refuse, and how edited pictures are disturbed."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from csvae_hub.training.objective import WEIGHTS, ObjectiveConfig, disturbed

from csvae_hub.errors import ConfigError


@pytest.mark.parametrize("name", WEIGHTS)
def test_total_applies_each_weight(name):
    terms = {weight: torch.full((4,), 1.0) for weight in WEIGHTS}
    ones = dict.fromkeys(WEIGHTS, 1.0)
    assert ObjectiveConfig(**ones).total(terms).item() == pytest.approx(len(WEIGHTS))
    expected = len(WEIGHTS) + 2 * (2 if name == "consistency" else 1)  # `others` is relative to `consistency`
    assert ObjectiveConfig(**{**ones, name: 3.0}).total(terms).item() == pytest.approx(expected)


def test_disturbing_keeps_shape_and_range_and_lets_gradients_through():
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    for seed in range(4):
        torch.manual_seed(seed)
        moved = disturbed(images)
        assert moved.shape == images.shape
        assert 0 <= moved.min() < moved.max() <= 1
    moved.sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [f.name for f in fields(ObjectiveConfig) if f.type == "float"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_are_numbers_of_0_or_more(name, value):
    with pytest.raises(ConfigError, match=rf"^objective\.{name}: expected a (number|share) .*, got"):
        ObjectiveConfig(**{name: value})


@pytest.mark.parametrize("name", ["adversary_steps", "adversary_memory"])
def test_counts_are_1_or_more(name):
    with pytest.raises(ConfigError, match=rf"^objective\.{name}: expected 1 to 1000, got 0$"):
        ObjectiveConfig(**{name: 0})
