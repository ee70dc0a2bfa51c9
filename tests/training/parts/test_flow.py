"""The flow in training: fitted once, to all data, where the encoder comes to rest."""

from __future__ import annotations

import time

import pytest
import torch

from csvae_hub import erasure
from csvae_hub.errors import ConfigError


@pytest.mark.parametrize("kind", ["csvae", "cond-vae-info"])
def test_it_is_fitted_at_the_beginning_of_the_rest_and_nothing_else_moves(build, batch, state, changed, kind):
    objective = build(kind, parts={"flow": {}, "rest": {}}, flow=8)
    model, (x, y) = objective.model, batch(objective, 60)
    before = state(model)
    objective.begin_rest(zip(x.split(20), y.split(20), strict=True))
    moved = changed(before, model)
    assert moved
    assert all(name.startswith("q_z.flow.") for name in moved)
    assert not any(p.requires_grad for p in model.q_z.parameters())
    model.eval()
    assert not torch.equal(model.posterior_z(x, torch.zeros(60, 3)).mean, model.posterior_z(x, torch.ones(60, 3)).mean)


def test_the_fit_says_how_long_it_takes(build, batch):
    objective, lines = build(parts={"flow": {}, "rest": {}}, flow=8), []
    objective.say = lines.append
    objective.begin_rest([batch(objective, 60)])
    assert lines[-1] == "fitting the flow: step 20 of 20, 0:00:00 left"


def test_how_long_it_will_take_is_told_by_a_trial_that_leaves_no_trace(build, state, changed, monkeypatch):
    objective = build(parts={"flow": {}, "rest": {}}, flow=8)
    before, random = state(objective), torch.get_rng_state()
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert [expected() for expected in objective.seconds_at_rest] == [3 * erasure.STEPS]
    assert changed(before, objective) == set()
    assert torch.equal(torch.get_rng_state(), random)


def test_a_resumed_rest_does_not_fit_it_again(build, state, changed):
    objective = build(parts={"flow": {}, "rest": {}}, flow=8)
    before = state(objective)
    objective.begin_rest(None)
    assert changed(before, objective) == set()


def test_the_order_of_the_two_tables_does_not_matter(build, batch, state, changed):
    found = []
    for parts in ({"flow": {}, "rest": {}}, {"rest": {}, "flow": {}}):
        objective = build(parts=parts, flow=8)
        torch.manual_seed(1)
        objective.begin_rest([batch(objective, 60)])
        found.append(state(objective.model))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_it_needs_a_model_with_a_flow(build):
    with pytest.raises(ConfigError, match=r"^model\.flow: expected a width above 0 with \[parts\.flow\], got 0$"):
        build(parts={"flow": {}})


@pytest.mark.parametrize(
    ("kind", "has"), [("csvae", True), ("cond-vae-info", True), ("cond-vae", False), ("vae", False)]
)
def test_models_whose_z_need_not_be_silent_have_no_flow(build, kind, has):
    assert (build(kind, flow=8).model.q_z.flow is not None) == has


def test_without_a_rest_there_is_nothing_to_fit_it_in(build, batch):
    objective = build(parts={"flow": {}}, flow=8)
    with pytest.raises(
        ConfigError, match=r"^parts\.flow: expected \[parts\.rest\] beside it, to fit it in, got 'none'"
    ):
        objective.generative_step(*batch(objective))
