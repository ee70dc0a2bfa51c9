"""KL warm-up and free bits."""

from __future__ import annotations

import json

import pytest
import torch
from torch.distributions import kl_divergence

from csvae_hub.distributions import diagonal_gaussian
from csvae_hub.errors import ConfigError
from csvae_hub.models import list_models
from csvae_hub.training import load_recipe, train
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.kl import GentleKL, free_nats
from csvae_hub.training.trainer import Trainer


def latents(*locs, event_dims=1):
    """q with these means, one standard deviation wide, and p = N(0, 1): KL_j = loc²/2."""
    loc = torch.tensor(locs, requires_grad=True)
    zeros = torch.zeros_like(loc)
    return loc, diagonal_gaussian(loc, zeros + 1, event_dims), diagonal_gaussian(zeros, zeros + 1, event_dims)


def test_below_the_free_nats_a_number_costs_them_and_has_no_gradient():
    loc, q, p = latents([0.2, 2.0, 0.0], [0.0, 1.0, 1.0])  # means of KL: 0.01, 1.25, 0.25
    cost = free_nats(q, p, 0.3)
    assert cost.mean().item() == pytest.approx(0.3 + 1.25 + 0.3)
    cost.mean().backward()
    assert torch.equal(loc.grad != 0, torch.tensor([[False, True, False], [False, True, False]]))


def test_at_no_free_nats_it_is_the_divergence():
    _, q, p = latents([[0.2, 2.0], [1.0, 3.0]], event_dims=2)
    assert torch.allclose(free_nats(q, p, 1e-12), kl_divergence(q, p))


@pytest.mark.parametrize("kind", list_models())
def test_the_weights_of_the_divergences_rise_and_no_other_term_s(build, batch, kind):
    objective = build(kind)
    x, y = batch(objective, missing=0)

    def loss(gentle, at):
        torch.manual_seed(1)
        objective.instead, objective.batch = gentle, at
        total, step = objective.generative_step(x, y)
        return total.item(), sum(term.mean().item() for name, term in step.terms.items() if name in ("kl_z", "kl_w"))

    whole, divergences = loss(lambda step: {}, 0)
    assert divergences > 0
    for at, share in ((0, 0.1), (4, 0.5), (9, 1.0), (50, 1.0)):
        softened, logged = loss(GentleKL(warm_up=10), at)
        assert softened == pytest.approx(whole - (1 - share) * divergences, rel=1e-4)
        assert logged == divergences  # the log has them as they are
    assert loss(GentleKL(), 0)[0] == whole


def test_the_trainer_counts_the_batches(build, data):
    objective, seen = build(), []
    objective.instead = lambda step: seen.append(step.objective.batch) or {}
    Trainer(objective, TrainerConfig(epochs=2, batch_size=8), data(), quiet=True).fit()
    assert seen == list(range(10))


def test_free_nats_keep_latents_from_collapsing(build, data):
    def kl_of_z(nats):
        objective = build(weights={"kl_z": 200.0, "kl_w": 200.0})
        objective.instead = GentleKL(free_nats=nats)
        Trainer(objective, TrainerConfig(epochs=20, batch_size=8, learning_rate=0.01), data(), quiet=True).fit()
        return objective.generative_step(*data().batch(range(40)))[1].terms["kl_z"].mean().item()

    assert kl_of_z(0.0) < 0.4
    assert kl_of_z(0.2) > 0.8  # of eight numbers


def test_a_recipe_s_run_takes_both_in_epochs_and_nats_and_another_does_not_go_on_from_it(tmp_path):
    recipe = load_recipe("paper-swiss-roll", {"trainer.epochs": "2", "data.examples": "512"})
    train(recipe, None, tmp_path, kl_warm_up=1.5, free_nats=0.1, quiet=True)
    told = json.loads((tmp_path / "model/training.json").read_text())
    assert (told["kl_warm_up"], told["free_nats"]) == (1.5, 0.1)
    with pytest.raises(ConfigError, match=r"^free_nats: .* made with 0\.1, this run has 0\.2"):
        train(recipe, None, tmp_path, kl_warm_up=1.5, free_nats=0.2, quiet=True)


@pytest.mark.parametrize("options", [{"warm_up": -1}, {"free_nats": -0.1}, {"free_nats": float("inf")}])
def test_numbers_below_zero_are_refused(options):
    with pytest.raises(ConfigError, match=f"^{next(iter(options))}: expected "):
        GentleKL(**options)
