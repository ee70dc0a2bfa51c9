"""The options of a run, its learning rate, its order and its average."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from csvae_hub.training.options import TrainerConfig, learning_rate_factor
from torch import nn

from csvae_hub.errors import ConfigError
from csvae_hub.training.trainer import batch_order, update_average

CONFIG = TrainerConfig(warmup_steps=3)


def test_cosine_falls_from_one_to_zero_after_the_warm_up():
    config = replace(CONFIG, epochs=10)
    factors = [learning_rate_factor(config.schedule, config, b, 10) for b in range(100)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1], rel=0.01)
    assert factors[50] == pytest.approx(0.5)
    assert factors[-1] < 0.001
    assert all(a > b for a, b in zip(factors[2:], factors[3:], strict=False))


def test_multistep_is_the_papers():
    config = replace(CONFIG, schedule="multistep", epochs=1000, warmup_steps=0)
    factors = {epoch: learning_rate_factor(config.schedule, config, 5 * epoch, 5) for epoch in (0, 1, 2, 3, 728, 729)}
    expected = {0: 0, 1: 1, 2: 1, 3: 2, 728: 6, 729: 7}
    assert factors == pytest.approx({epoch: 0.1 ** (n / 7) for epoch, n in expected.items()})


def test_batch_order_is_a_permutation_of_seed_and_epoch_alone():
    assert batch_order(50, 3, 1).sort().values.tolist() == list(range(50))
    assert torch.equal(batch_order(50, 3, 1), batch_order(50, 3, 1))
    assert not torch.equal(batch_order(50, 3, 1), batch_order(50, 3, 2))
    assert not torch.equal(batch_order(50, 3, 1), batch_order(50, 4, 1))


def test_average_moves_weights_and_batch_norms_buffers_by_the_same_rule_and_copies_integers():
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model(torch.randn(8, 2) + 3)
    nn.init.constant_(model.weight, 5)
    before = average.running_mean.clone()
    update_average(average, model, 0.75, batch=1000)
    assert torch.allclose(average.weight, torch.full((2,), 0.75 * 1 + 0.25 * 5))
    assert torch.allclose(average.running_mean, 0.75 * before + 0.25 * model.running_mean)
    assert average.num_batches_tracked == 1


def test_average_forgets_the_start_early():
    average, model = nn.Linear(2, 2), nn.Linear(2, 2)
    start = average.weight.detach().clone()
    update_average(average, model, 0.999, batch=0)
    assert torch.allclose(average.weight, 0.1 * start + 0.9 * model.weight)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("epochs", 0, "epochs: expected 1 or more, got 0"),
        ("learning_rate", -1.0, "learning_rate: expected a positive number, got -1.0"),
        ("schedule", "cosinus", "schedule: expected constant or cosine or multistep, got 'cosinus'"),
        ("precision", "float16", "precision: expected float32 or bfloat16, got 'float16'"),
        ("ema_decay", 1.0, r"ema_decay: expected a number in \[0, 1\), got 1.0"),
        ("betas", (0.9, 1.0), r"betas: expected two numbers in \[0, 1\)"),
        ("gradient_clip", 0.0, "gradient_clip: expected a positive number, or nothing, got 0.0"),
        ("num_threads", 0, "num_threads: expected 1 or more, or nothing, got 0"),
        ("warmup_steps", -1, "warmup_steps: expected 0 or more, got -1"),
    ],
)
def test_config_names_the_field_what_was_expected_and_what_came(field, value, words):
    with pytest.raises(ConfigError, match=words):
        replace(CONFIG, **{field: value})
