"""The exponential average of weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import nn

from csvae_hub.training.average import Average


def test_average_moves_weights_and_batch_norms_buffers_by_the_same_rule_and_copies_integers():
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model(torch.randn(8, 2) + 3)
    nn.init.constant_(model.weight, 5)
    before = average.running_mean.clone()
    Average(average, model).update(0.75, batch=1000)
    assert torch.allclose(average.weight, torch.full((2,), 0.75 * 1 + 0.25 * 5))
    assert torch.allclose(average.running_mean, 0.75 * before + 0.25 * model.running_mean)
    assert average.num_batches_tracked == 1


def test_average_forgets_the_start_early():
    average, model = nn.Linear(2, 2), nn.Linear(2, 2)
    start = average.weight.detach().clone()
    Average(average, model).update(0.999, batch=0)
    assert torch.allclose(average.weight, 0.1 * start + 0.9 * model.weight)


def test_average_follows_tensors_that_were_replaced_and_counts_what_is_shared_once():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.BatchNorm1d(2), shared)
    average = copy.deepcopy(model)
    averaging = Average(average, model)
    before = average[1].running_mean.clone(), average[0].weight.detach().clone()
    model[1].running_mean = torch.full((2,), 3.0)
    model[0].weight = nn.Parameter(torch.full((2, 2), 5.0))
    averaging.update(0.5, batch=1000)
    assert torch.allclose(average[1].running_mean, 0.5 * before[0] + 1.5)
    assert torch.allclose(average[2].weight, 0.5 * before[1] + 2.5)
