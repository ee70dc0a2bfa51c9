"""The options of a run, its learning rate and its order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from csvae_hub.errors import ConfigError
from csvae_hub.training.config import TrainerConfig, batch_order, learning_rate_factor


def test_cosine_falls_from_one_to_zero_after_the_warm_up():
    factors = [learning_rate_factor("cosine", b, 300, 30) for b in range(300)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1], rel=0.01)
    assert factors[150] == pytest.approx(0.5)
    assert factors[-1] < 0.001
    assert all(a > b for a, b in zip(factors[2:], factors[3:], strict=False))


def test_a_short_training_has_no_warm_up():
    assert learning_rate_factor("cosine", 0, 20, 5) == 1


def test_multistep_is_the_papers():
    factors = {epoch: learning_rate_factor("multistep", 5 * epoch, 5000, 5) for epoch in (0, 1, 2, 3, 728, 729)}
    expected = {0: 0, 1: 1, 2: 1, 3: 2, 728: 6, 729: 7}
    assert factors == pytest.approx({epoch: 0.1 ** (n / 7) for epoch, n in expected.items()})


def test_constant_is_constant():
    assert {learning_rate_factor("constant", batch, 50, 5) for batch in range(50)} == {1.0}


def test_batch_order_is_a_permutation_of_seed_and_epoch_alone():
    assert batch_order(50, 3, 1).sort().values.tolist() == list(range(50))
    assert torch.equal(batch_order(50, 3, 1), batch_order(50, 3, 1))
    assert not torch.equal(batch_order(50, 3, 1), batch_order(50, 3, 2))
    assert not torch.equal(batch_order(50, 3, 1), batch_order(50, 4, 1))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("epochs", 0, "epochs: expected 1 or more, got 0"),
        ("batch_size", 0, "batch_size: expected 2 or more, for batch norm, got 0"),
        ("batch_size", 1, "batch_size: expected 2 or more, for batch norm, got 1"),
        ("seed", -1, "seed: expected 0 or more, got -1"),
        ("learning_rate", -1.0, "learning_rate: expected a positive number, got -1.0"),
        ("adversary_learning_rate", 0.0, "adversary_learning_rate: expected a positive number, got 0.0"),
        ("schedule", "cosinus", "schedule: expected constant or cosine or multistep, got 'cosinus'"),
        ("precision", "half", "precision: expected float32 or bfloat16 or float16, got 'half'"),
        ("ema_decay", 1.0, r"ema_decay: expected a number in \[0, 1\), got 1.0"),
    ],
)
def test_config_names_the_field_what_was_expected_and_what_came(field, value, words):
    with pytest.raises(ConfigError, match=words):
        replace(TrainerConfig(), **{field: value})
