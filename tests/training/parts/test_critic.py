"""The critic: its loss and the model's terms against the equations, and who learns from which."""

from __future__ import annotations

import copy
from math import log

import pytest
import torch
import torch.nn.functional as F

from csvae_hub.errors import ConfigError
from csvae_hub.models import list_models
from csvae_hub.training.config import TrainerConfig, learning_rate_factor
from csvae_hub.training.parts import critic
from csvae_hub.training.parts._common import switch_one_attribute
from csvae_hub.training.parts.critic import BETAS, LESSONS, NEWEST, R1, R1_EVERY, READS, RISE, Network, exclusions
from csvae_hub.training.trainer import Trainer

GRIDS = {"a vector": {}, "a grid": {"z_grid": 4, "z_dim": 32}}
NAMES = ("Smiling", "Hat", "Young")
TERMS = ("realism", "recognition", "matching", "locality")


@pytest.fixture
def objective(build):
    return build(parts={"critic": {}})


@pytest.fixture
def undisturbed(monkeypatch):
    """The critic is shown the pictures as they are."""
    monkeypatch.setattr(critic, "disturbance", lambda like: lambda images: images)


def game_of(objective):
    (game,) = (game for game in objective.minimisations if game.name == "critic")
    return game


def part_of(objective):
    (part,) = objective.parts
    return part


@pytest.mark.parametrize("kind", list_models())
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("z", GRIDS)
def test_the_critic_learns_in_its_own_minimisation_alone(build, batch, state, changed, trained, kind, size, z):
    objective = build(kind, parts={"critic": {}}, shape=(3, size, size), **GRIDS[z])
    before = state(objective)
    loss, step = objective.generative_step(*batch(objective, 6))
    loss.backward()
    assert set(TERMS) < step.terms.keys()
    assert all(step.terms[name].shape == (6,) for name in TERMS)
    assert not {name for name in trained(objective) if name.startswith("parts")}
    assert {"model.q_z.head.weight", "model.backbone.pixels.weight"} <= trained(objective)
    assert not {name for name in changed(before, objective) if name.startswith("parts")}

    objective.zero_grad(set_to_none=True)
    before, game = state(objective), game_of(objective)
    (term,) = game.losses(step)
    term.backward()
    assert trained(objective) == {name for name, _ in objective.named_parameters() if name.startswith("parts")}
    assert all(p.grad is None for p in objective.model.parameters())
    assert changed(before, objective) == {"parts.0.steps"}


def test_the_critic_s_loss_is_its_equation(objective, batch, undisturbed):
    part, game = part_of(objective), game_of(objective)
    part.steps.fill_(1)  # a step without the penalty
    _, step = objective.generative_step(*batch(objective, 8, missing=0.0))
    (wished, _, edited), x, y, net = step.kept["critic"], step.x, step.out.y, part.net

    def score(pictures, attributes):
        return net(pictures, attributes)[0]

    expected = (
        F.softplus(-score(x, y)).mean()
        + 0.3 * F.softplus(score(step.out.p_x.mean, y)[:4]).mean()
        + 0.5 * F.softplus(score(edited, wished)).mean()
        + 0.2 * F.softplus(score(x[4:], wished[4:])).mean()
        + F.binary_cross_entropy_with_logits(net(x, y)[1], y)
        + 0.5 * F.binary_cross_entropy_with_logits(net(step.out.p_x.mean, y)[1][:4], y[:4])
    )
    switched = wished != y
    assert (switched.sum(1) == 1).all()
    traces = F.binary_cross_entropy_with_logits(net(edited, wished)[1][switched], 1 - wished[switched])
    expected = expected + 0.03 * traces
    (loss,) = game.losses(step)
    torch.testing.assert_close(loss, expected)
    assert (game.weight, game.betas, game.with_model) == (1.0, BETAS, True)
    assert (wished[4:] != y[4:]).any(1).all()  # what the pictures beside them are not


def test_every_16th_step_has_the_penalty_of_the_gradient_at_real_pictures(objective, batch, undisturbed):
    part, game = part_of(objective), game_of(objective)
    _, step = objective.generative_step(*batch(objective, 8, missing=0.0))
    found = [next(game.losses(step)).item() for _ in range(2 * R1_EVERY + 1)]
    plain, penalised = found[1], [i for i, value in enumerate(found) if abs(value - found[1]) > 1e-6]
    assert penalised == [0, R1_EVERY, 2 * R1_EVERY]
    assert R1_EVERY == 16
    x = step.x[:4].clone().requires_grad_()
    squares = []
    for i in range(4):
        (gradient,) = torch.autograd.grad(part.net(x, step.out.y[:4])[0][i], x)
        squares.append(gradient[i].square().sum())
    assert found[0] - plain == pytest.approx(0.5 * R1 * 16 * torch.stack(squares).mean().item(), rel=1e-3)


def test_the_model_s_terms_are_their_equations(objective, batch, undisturbed):
    part = part_of(objective)
    part.steps.fill_(RISE + 1)
    _, step = objective.generative_step(*batch(objective, 8, missing=0.0))
    (wished, _, edited), y, decoded = step.kept["critic"], step.out.y, step.out.p_x.mean
    score, _, of_decoded = part.net(decoded, y)
    (of_edited, logits, _), of_real = part.net(edited, wished), part.net(step.x, y)[2]
    torch.testing.assert_close(step.terms["realism"], 0.5 * F.softplus(-score) + F.softplus(-of_edited))
    switched = wished != y
    assert (switched.sum(1) == 1).all()
    asked_for = torch.where(switched, wished, part.net(decoded, y)[1].sigmoid())
    surprise = F.binary_cross_entropy_with_logits(logits, asked_for, reduction="none")
    torch.testing.assert_close(step.terms["recognition"], (surprise * (4 + 4 * switched)).sum(1))
    distances = [(a - b).abs().flatten(1).mean(1) for a, b in zip(of_decoded, of_real, strict=True)]
    torch.testing.assert_close(step.terms["matching"], 5 * torch.stack(distances).mean(0))
    torch.testing.assert_close(step.terms["locality"], 10 * (edited - decoded).abs().flatten(1).mean(1))


def test_edits_do_not_draw_the_classes_of_a_subspace_together(build, batch, monkeypatch):
    """Of pictures that go to a class's mean or to another picture's point: what is edited has no gradient to w_i."""
    objective = build(parts={"critic": {}})
    objective.eval()
    monkeypatch.setattr(objective, "train", lambda: None)  # by moments of its own each picture of a batch moves all
    monkeypatch.setattr(critic, "switch_one_attribute", _the_first(monkeypatch))
    x, _ = batch(objective, 8)
    part_of(objective).steps.fill_(RISE + 1)
    for y in (torch.ones(8, 3), torch.ones(8, 3).index_fill(0, torch.arange(0, 8, 2), 0.0)):
        _, step = objective.generative_step(x, y)
        edit = part_of(objective).edit
        assert (edit.which == 0).all()
        taken_over = (edit.latents.w[:, None, 0] == step.out.w[None, :, 0]).all(2).any()
        assert taken_over == (y.mean() < 1)
        (gradient,) = torch.autograd.grad((step.terms["locality"] + step.out.also.mean()).sum(), step.out.w)
        assert not gradient[:, 0].any()
        assert gradient[:, 1:].abs().sum() > 0


def _the_first(monkeypatch):
    """`switch_one_attribute` of the first attribute in all pictures."""

    def switch(model, latents, donors):
        with monkeypatch.context() as inside:
            inside.setattr(torch, "randint", lambda _, size: torch.zeros(size, dtype=torch.int64))
            return switch_one_attribute(model, latents, donors)

    return switch


@pytest.mark.parametrize("kind", list_models())
def test_edited_pictures_are_decoded_in_the_batch_of_the_reconstructions(build, batch, monkeypatch, kind):
    objective = build(kind, parts={"critic": {}})
    model, asked = objective.model, []
    if kind == "vae":
        model.class_means.normal_()
    decode = model.backbone.decode
    monkeypatch.setattr(model.backbone, "decode", lambda *inputs: asked.append(inputs) or decode(*inputs))
    _, step = objective.generative_step(*batch(objective, 8))
    ((z, condition),) = asked
    assert len(z) == len(condition) == 16
    assert torch.equal(z[:8], step.out.z)
    together, edited = decode(z, condition).sigmoid(), step.kept["critic"][2]
    torch.testing.assert_close(together, torch.cat([step.out.p_x.mean, edited]))
    assert torch.equal(edited, step.out.also)
    apart = decode(z[8:], condition[8:]).sigmoid()
    assert (apart - edited).abs().max() > 1e-3  # by moments of their own they would be others


def test_the_critic_learns_to_tell_and_the_model_to_be_taken_for_real(build, batch):
    objective = build(parts={"critic": {}})
    game, x_y = game_of(objective), batch(objective, 16, missing=0.0)
    part_of(objective).steps.fill_(RISE + 1)
    _, step = objective.generative_step(*x_y)
    optimizer = torch.optim.Adam(game.parameters, 1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        part_of(objective).steps.fill_(RISE + 1)
        (loss,) = game.losses(step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    optimizer = torch.optim.Adam(objective.generative_parameters(), 3e-3)
    realism = []
    for _ in range(30):
        optimizer.zero_grad()
        _, step = objective.generative_step(*x_y)
        step.terms["realism"].mean().backward()
        optimizer.step()
        realism.append(step.terms["realism"].mean().item())
    assert realism[-1] < 0.7 * realism[0]


def test_a_score_depends_on_the_attributes():
    torch.manual_seed(0)
    net, x, y = Network(3, 16, 3), torch.rand(4, 3, 16, 16), torch.randint(2, (4, 3)).float()
    score, logits, features = net(x, y)
    other, same_logits, same = net(x, 1 - y)
    assert logits.shape == (4, 3)
    assert torch.equal(logits, same_logits)
    assert score.shape == (4,)
    assert (score != other).all()
    assert all(torch.equal(a, b) for a, b in zip(features, same, strict=True))
    assert [f.shape[-1] for f in features] == [8, 4]
    torch.testing.assert_close(score + other, 2 * net(x, torch.full((4, 3), 0.5))[0])  # half of y: reality alone


def test_the_critic_changes_the_momentum_of_the_model_s_optimiser(build):
    assert build().betas == (0.9, 0.999)
    assert build(parts={"critic": {}}).betas == (0.5, 0.99)


def test_a_critic_needs_pictures(build):
    with pytest.raises(ConfigError, match=r"^parts\.critic: expected a model of pictures, got \(5,\)$"):
        build(parts={"critic": {}}, data="vectors")


def test_the_model_s_terms_rise_over_the_first_batches(objective, batch):
    part, x_y = part_of(objective), batch(objective, 8, missing=0.0)
    found, state = [], copy.deepcopy(objective.state_dict())
    for steps in (0, RISE // 2, RISE, 2 * RISE):
        objective.load_state_dict(state)  # a step moves class means and moments
        part.steps.fill_(steps)
        torch.manual_seed(1)
        found.append(torch.stack([objective.generative_step(*x_y)[1].terms[name].mean() for name in TERMS]))
    assert (found[0] == 0).all()
    torch.testing.assert_close(found[1], found[2] / 2)
    torch.testing.assert_close(found[2], found[3])


def test_the_critic_learns_to_read_before_it_asks_for_anything(build, batch, state, changed, trained, undisturbed):
    objective = build(parts={"critic": {}}, reads=False)
    part, game = part_of(objective), game_of(objective)
    x, y = batch(objective, 8)
    loss, step = objective.generative_step(x, y)
    loss.backward()
    assert not set(TERMS) & step.terms.keys()
    assert step.out.also.shape == (0, 3, 16, 16)
    assert "model.backbone.pixels.weight" in trained(objective)

    objective.zero_grad(set_to_none=True)
    before = state(objective)
    (loss,) = game.losses(step)
    read = F.binary_cross_entropy_with_logits(part.net(x, y.nan_to_num(0.5))[1], y.nan_to_num(), reduction="none")
    share = (read * ~y.isnan()).sum(1).mean() / part.sees_nothing
    torch.testing.assert_close(loss, game.chance * share)
    loss.backward()
    assert changed(before, objective) == {"parts.0.reading", "parts.0.lessons"}
    torch.testing.assert_close(part.reading, 1 - NEWEST + NEWEST * share.detach())
    out = {f"parts.0.net.out.{name}" for name in ("weight", "bias")}
    assert out < trained(objective) <= {name for name, _ in objective.named_parameters() if name.startswith("parts")}

    part.reading.fill_(READS)
    assert not set(TERMS) & objective.generative_step(x, y)[1].terms.keys()
    part.reading.sub_(0.01)
    assert set(TERMS) < objective.generative_step(x, y)[1].terms.keys()
    assert part.steps == 0

    part.reading.fill_(1.0)  # labels that nobody can read
    part.lessons.fill_(LESSONS - 1)
    assert not part.reads()
    list(game.losses(objective.generative_step(x, y)[1]))
    assert part.reads()


def test_a_critic_that_can_read_stays_at_its_work(objective, batch):
    part, game = part_of(objective), game_of(objective)
    part.reading.fill_(READS - 0.01)
    for _ in range(2):
        _, step = objective.generative_step(*batch(objective, 8))
        list(game.losses(step))
    assert (part.steps, part.reads()) == (2, True)
    torch.testing.assert_close(part.reading, torch.tensor(READS - 0.01))


def test_what_is_switched_in_a_group_counts_in_the_unit_of_its_greatest_entropy(build, batch, undisturbed):
    objective = build(parts={"critic": {}}, exclusive=(NAMES,))
    part = part_of(objective)
    part.steps.fill_(RISE)
    x, _ = batch(objective, 8)
    _, step = objective.generative_step(x, F.one_hot(torch.arange(8) % 3, 3).float())
    wished, _, edited = step.kept["critic"]
    surprise = F.cross_entropy(part.net(edited, wished)[1], wished.argmax(1), reduction="none")
    torch.testing.assert_close(step.terms["recognition"], 8 * log(2) / log(3) * surprise)


def test_attributes_that_hardly_occur_together_exclude_one_another():
    black, blond = torch.zeros(200), torch.zeros(200)
    black[:100], blond[99:160] = 1, 1
    smiling = (torch.arange(200) % 2).float()
    found = exclusions(torch.stack([black, blond, smiling], 1))
    assert found.shape == (3, 2, 3, 2)
    pairs = {(i, a, j, b) for i, a, j, b in found.nonzero().tolist() if i != j}
    assert pairs == {(0, 1, 1, 1), (1, 1, 0, 1)}
    unknown = torch.stack([black, blond.masked_fill(blond == 1, torch.nan)], 1)
    assert (1, 1) not in {(i, a) for i, a, j, _ in exclusions(unknown).nonzero().tolist() if i != j}


def test_what_does_not_go_with_the_switched_attribute_counts_as_a_half(objective, batch, undisturbed):
    part = part_of(objective)
    part.steps.fill_(RISE)
    part.exclusions.zero_()
    part.exclusions[0, 1, 1, 1] = True  # who smiles wears no hat
    _, step = objective.generative_step(*batch(objective, 60, missing=0.0))
    wished, _, edited = step.kept["critic"]
    before = step.out.y
    smile = (before[:, 0] == 0) & (wished[:, 0] == 1)
    assert torch.equal(wished == 0.5, (smile & (before[:, 1] == 1))[:, None] & torch.tensor([False, True, False]))
    assert (wished == 0.5).any()
    switched = (wished != before) & (wished != 0.5)
    asked_for = torch.where(switched, wished, part.net(step.out.p_x.mean, before)[1].sigmoid())
    terms = F.binary_cross_entropy_with_logits(part.net(edited, wished)[1], asked_for, reduction="none")
    torch.testing.assert_close(step.terms["recognition"], (terms * (wished != 0.5) * (4 + 4 * switched)).sum(1))


def test_attributes_that_an_edit_left_alone_ask_for_no_change(build, batch, monkeypatch):
    """Where the edited picture is the decoded one, recognition draws it by the switched attribute alone."""
    objective = build(parts={"critic": {}})
    part = part_of(objective)
    part.steps.fill_(RISE)
    monkeypatch.setattr(critic, "SWITCHED", 0.0)
    switch = objective.also

    def takes_back(latents):
        switch(latents)
        return latents

    objective.also = takes_back
    _, step = objective.generative_step(*batch(objective, 8, missing=0.0))
    torch.testing.assert_close(step.out.also, step.out.p_x.mean)
    (gradient,) = torch.autograd.grad(step.terms["recognition"].sum(), step.out.also)
    assert gradient.abs().max() < 1e-6


def test_a_critic_needs_the_training_data(build):
    from csvae_hub.training.steps import Objective

    with pytest.raises(ConfigError, match=r"^parts\.critic: expected training data"):
        Objective(build().model, None, [(type(part_of(build(parts={"critic": {}}))), None)])


def test_the_critic_s_rate_follows_the_schedule_and_the_adversary_s_is_constant(build, data):
    config = TrainerConfig(epochs=4, batch_size=12, schedule="cosine")
    trainer = Trainer(build(parts={"critic": {}}), config, data(), quiet=True)
    x, y = data().batch(range(12))
    for batch in (trainer.last_batch // 2, trainer.last_batch - 1):
        trainer.train_step(x, y, batch)
        factor = learning_rate_factor("cosine", batch, trainer.last_batch, trainer.batches_per_epoch)
        rates = {name: o.param_groups[0]["lr"] for name, o in trainer.optimizers.items()}
        assert rates["critic"] == pytest.approx(config.learning_rate * factor)
        assert rates["generative"] == pytest.approx(config.learning_rate * factor)
        assert rates["adversary"] == config.adversary_learning_rate
