"""Missing labels: nothing that judges by y reads what q(y | x) fills in for them, or anything else in their place."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from csvae_hub.distributions import attributes
from csvae_hub.losses import cross_entropy
from csvae_hub.models import list_models
from csvae_hub.training.guards import linear_leakage, watched
from csvae_hub.training.parts import critic

PARTS = {"critic": {}, "stronger_adversary": {"steps": 2}, "balanced": {}}
GROUP = {"exclusive": (("Hat", "Young"),)}


@pytest.fixture
def halved(build, batch):
    """An objective, and a generative step in which half of the labels are missing."""

    def make(kind="csvae", missing=0.5, **model):
        objective = build(kind, parts=PARTS, **model)
        x, y = batch(objective, 16, missing=0.0)
        if model:
            y[:, 2] = 1 - y[:, 1]
        torch.manual_seed(3)
        gaps = (torch.rand(16, 3) < missing)[:, [0, 1, 1] if model else [0, 1, 2]]
        return objective, objective.generative_step(x, y.masked_fill(gaps, torch.nan))[1]

    return make


def gradients(objective, loss):
    objective.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("model", [{}, GROUP], ids=["alone", "a group"])
@pytest.mark.parametrize("kind", list_models())
def test_what_fills_a_gap_moves_nothing_that_learns_from_labels(halved, kind, model):
    objective, step = halved(kind, **model)
    gaps = step.y.isnan()
    assert gaps.any()
    others = [torch.where(gaps, value, step.out.y) for value in (0.0, 1.0, torch.rand(16, 3))]
    for game in objective.minimisations:
        found = []
        for y in (step.out.y, *others):
            torch.manual_seed(1)
            for part in objective.parts:
                if hasattr(part, "steps"):
                    part.steps.fill_(1)  # a step without the penalty
                if hasattr(part, "memory_z"):
                    part.memory_z, part.memory_y = part.memory_z[:0], part.memory_y[:0]
            losses = list(game.losses(replace(step, out=replace(step.out, y=y))))
            found.append(gradients(objective, torch.stack(losses).sum()))
        assert found[0]
        for other in found[1:]:
            assert found[0].keys() == other.keys()
            assert all(torch.equal(value, other[name]) for name, value in found[0].items()), game.name
    seen = [watched(replace(step, out=replace(step.out, y=y))) for y in (step.out.y, *others)]
    assert all(torch.equal(one["leakage"], seen[0]["leakage"]) for one in seen if "leakage" in one)


@pytest.mark.parametrize("groups", [(), ((1, 2),)])
@pytest.mark.parametrize("base_rate", [None, torch.tensor([0.1, 0.5, 0.8])])
def test_a_gap_has_no_gradient_whatever_stood_there(groups, base_rate):
    torch.manual_seed(0)
    logits, gaps = torch.randn(20, 3, requires_grad=True), (torch.rand(20, 3) < 0.5)[:, [0, 1, 1]]
    y = torch.stack([torch.randint(2, (20,)).float(), *(one := torch.randint(2, (20,)).float(), 1 - one)], 1)
    q_y = attributes(logits, groups)
    (masked,) = torch.autograd.grad(cross_entropy(q_y, y.masked_fill(gaps, torch.nan), base_rate).sum(), logits)
    assert not masked[gaps].any()
    weights = 1 if base_rate is None else y * 0.5 / base_rate + (1 - y) * 0.5 / (1 - base_rate)
    for stood in (y, 1 - y, torch.rand(20, 3)):
        truth = torch.where(gaps, stood, y)
        by_hand = -(attributes(logits, groups).base_dist.log_prob(truth) * weights)[~gaps].sum()
        torch.testing.assert_close(torch.autograd.grad(by_hand, logits)[0], masked)


def test_the_classifier_s_term_is_masked(halved):
    objective, step = halved()
    known = ~step.y.isnan()
    logits = step.out.q_y.base_dist.logits
    surprise = F.binary_cross_entropy_with_logits(logits, step.y.nan_to_num(), reduction="none")
    torch.testing.assert_close(step.terms["classifier"], (surprise * known).sum(1) / objective.data.known)


def test_the_critic_s_loss_with_gaps_is_its_equation(halved, monkeypatch):
    monkeypatch.setattr(critic, "disturbance", lambda like: lambda images: images)
    objective, step = halved()
    part = objective.parts[0]
    part.steps.fill_(1)
    (game,) = (game for game in objective.minimisations if game.name == "critic")
    (wished, before, edited), x, y, net = step.kept["critic"], step.x, step.y, part.net
    which, k = part.edit.which, torch.arange(3)
    assert torch.equal(wished == 0.5, y.isnan() & (k != which[:, None]))
    told = y.nan_to_num(0.5)
    fakes = F.softplus(net(x[8:], wished[8:])[0])
    certain = ~y[torch.arange(8, 16), which[8:]].isnan()
    assert 0 < certain.sum() < 8
    known = ~y.isnan()

    def read(pictures, attributes):
        return F.binary_cross_entropy_with_logits(net(pictures, told)[1], attributes.nan_to_num(), reduction="none")

    assert torch.equal(~before.isnan(), (k == which[:, None]) & known)
    decoded = step.out.p_x.mean
    expected = (
        F.softplus(-net(x, told)[0]).mean()
        + 0.3 * F.softplus(net(step.out.p_x.mean[:8], told[:8])[0]).mean()
        + 0.5 * F.softplus(net(edited, wished)[0]).mean()
        + 0.2 * (fakes * certain).sum() / 8
        + (read(x, y) * known).sum() / 16 / 3
        + 0.5 * (read(decoded, y) * known)[:8].sum() / 8 / 3
        + 0.03 * (read(edited, y) * ~before.isnan()).sum() / 16
    )
    torch.testing.assert_close(next(game.losses(step)), expected)


def test_a_critic_learns_to_read_no_attribute_from_pictures_without_labels(halved):
    objective, step = halved(missing=1.1)
    part = objective.parts[0]
    part.steps.fill_(1)
    (game,) = (game for game in objective.minimisations if game.name == "critic")
    next(game.losses(step)).backward()
    of_score, of_attributes, of_reading = part.net.out.weight.grad.split([1, 3, 3])
    assert not of_reading.any()
    assert of_score.any()
    assert of_attributes.any()  # what was switched is known


def test_in_a_group_a_switch_decides_the_whole_group(halved):
    objective, step = halved(missing=1.1, **GROUP)
    wished, which = step.kept["critic"][0], objective.parts[0].edit.which
    assert torch.equal((wished == 0.5)[:, 0], which != 0)
    assert torch.equal((wished == 0.5)[:, 1:], (which == 0)[:, None].expand(-1, 2))
    assert step.y.isnan().all()


def test_leakage_is_that_of_the_labelled_pictures():
    torch.manual_seed(0)
    z, y, gaps = torch.randn(64, 5), torch.randint(2, (64, 3)).float(), torch.rand(64, 3) < 0.5
    z[:, 0] += y[:, 0]
    each = [linear_leakage(z[~gaps[:, i]], y[~gaps[:, i], i, None]) for i in range(3)]
    torch.testing.assert_close(linear_leakage(z, y.masked_fill(gaps, torch.nan)), torch.stack(each).mean())
    for i in range(2):  # no label, and one
        y[i:, 2] = torch.nan
        assert linear_leakage(z, y).isfinite()
