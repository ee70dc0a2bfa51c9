"""Both classes of an attribute count alike: the base rates are those of the training data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from csvae_hub import distributions, losses
from csvae_hub.errors import ConfigError
from csvae_hub.training.parts.balanced import Balanced
from csvae_hub.training.steps import NoOptions, Objective


def test_the_base_rates_are_counted_where_there_are_labels(build, data):
    objective = build(parts={"balanced": {}})
    labels = data().labels
    assert np.isnan(labels).any()
    torch.testing.assert_close(objective.base_rate(), torch.from_numpy(np.nanmean(labels, 0)))
    assert build().base_rate() is None


def test_a_rate_is_kept_from_0_and_1(build, data):
    examples = data()
    examples.labels[:] = [0.0, 1.0, np.nan]
    objective = Objective(build().model, parts=[(Balanced, NoOptions())], data=examples)
    torch.testing.assert_close(objective.base_rate(), torch.tensor([0.01, 0.99, 0.5]))


def test_members_of_a_group_count_alike(build, data):
    examples = data()
    member = np.arange(40) % 10 // 4  # 16, 16 and 8 of them
    examples.labels[:] = np.eye(3, dtype=np.float32)[member]
    model = build(exclusive=(("Smiling", "Hat", "Young"),)).model
    objective = Objective(model, parts=[(Balanced, NoOptions())], data=examples)
    y = torch.from_numpy(examples.labels)
    costs = losses.cross_entropy(distributions.attributes(torch.zeros(40, 3), [[0, 1, 2]]), y, objective.base_rate())
    for i in range(3):
        assert (costs[y[:, i] == 1].sum() / 40).item() == pytest.approx(math.log(3) / 3, rel=1e-4)


def test_the_adversary_s_loss_and_the_term_against_it_are_balanced(build, batch):
    objective = build("cond-vae-info", parts={"balanced": {}})
    rate = objective.base_rate()
    _, step = objective.generative_step(*batch(objective))
    expected = losses.cross_entropy(objective.model.adversary(step.out.z), step.y, rate)
    torch.testing.assert_close(step.terms["negative_cross_entropy"], -expected)
    (loss,) = objective.minimisations[0].losses(step)
    q_y = objective.model.adversary_net(step.out.z)
    torch.testing.assert_close(loss, losses.cross_entropy(q_y, step.y, rate).mean())
    assert not torch.allclose(loss, losses.cross_entropy(q_y, step.y).mean())


def test_it_needs_data(build):
    with pytest.raises(ConfigError, match=r"^parts\.balanced: expected training data, to count the classes, got None"):
        Objective(build().model, parts=[(Balanced, NoOptions())])
