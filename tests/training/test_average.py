"""The exponential average of weights and buffers."""

from __future__ import annotations

import torch
from torch import nn

from csvae_hub.training.average import update_average


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
