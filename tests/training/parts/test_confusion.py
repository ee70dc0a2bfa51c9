"""The confusion: the divergence from knowing nothing, and where it still pushes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent

from csvae_hub import losses
from csvae_hub.distributions import attributes
from csvae_hub.training.parts.confusion import confusion


def test_it_is_the_divergence_from_knowing_nothing():
    logits = 3 * torch.randn(6, 4)
    ignorant = Independent(Bernoulli(torch.full((6, 4), 0.5)), 1)
    expected = torch.distributions.kl_divergence(ignorant, Independent(Bernoulli(logits=logits), 1))
    torch.testing.assert_close(confusion(attributes(logits)), expected)
    assert confusion(attributes(torch.zeros(1, 4))).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [20.0, -20.0])
def test_it_still_pushes_where_the_entropy_no_longer_does(size):
    def slope(term):
        logits = torch.full((1, 1), size, requires_grad=True)
        return torch.autograd.grad(term(attributes(logits)).sum(), logits)[0].item()

    assert slope(confusion) == pytest.approx(math.copysign(0.5, size), abs=1e-3)
    assert abs(slope(losses.negative_entropy)) < 1e-6


@pytest.mark.parametrize("kind", ["csvae", "cond-vae-info"])
def test_the_part_adds_it_for_the_adversary_s_answer(build, batch, kind):
    objective = build(kind, parts={"confusion": {"weight": 5.0}})
    loss, step = objective.generative_step(*batch(objective))
    term = step.terms["confusion"]
    torch.testing.assert_close(term, confusion(objective.model.adversary(step.out.z)))
    others = sum(t.mean() for name, t in step.terms.items() if name != "confusion")
    torch.testing.assert_close(loss, others + 5 * term.mean())


def test_a_model_without_an_adversary_has_none(build, batch):
    objective = build("cond-vae", parts={"confusion": {}})
    assert "confusion" not in objective.generative_step(*batch(objective))[1].terms


def test_of_a_group_it_is_the_distance_from_the_uniform_distribution():
    logits = torch.randn(6, 4)
    q = logits[:, [0, 1, 3]].log_softmax(1)
    of_group = (1 / 3 * (math.log(1 / 3) - q)).sum(1)
    expected = of_group + confusion(attributes(logits[:, 2:3]))
    torch.testing.assert_close(confusion(attributes(logits, [[0, 1, 3]])), expected)
