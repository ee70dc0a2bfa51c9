"""The two minimisations: whose gradients each leaves alone, and what their terms and weights are."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from csvae_hub import losses
from csvae_hub.errors import ConfigError
from csvae_hub.models import list_models
from csvae_hub.training.parts.critic import RISE, Critic
from csvae_hub.training.steps import Objective, ObjectiveConfig, Part, Weighted, asked

EVERY_PART = {
    "balanced": {},
    "critic": {"weight": 2.0},
    "eraser": {},
    "stronger_adversary": {"steps": 2, "memory": 3},
}
WITHOUT_ERASER = {name: options for name, options in EVERY_PART.items() if name != "eraser"}
OURS = {"residual": True, "correction": True, "learn_priors": True}
KINDS = {
    "paper": {},
    "every part": {"parts": EVERY_PART, "erase": True, **OURS},
    "vectors": {"data": "vectors"},
    "z with places": {"parts": WITHOUT_ERASER, "z_grid": 4, "z_dim": 32, "residual": True},
    "vae": {"kind": "vae"},
    "cond-vae": {"kind": "cond-vae"},
    "cond-vae-info": {"kind": "cond-vae-info"},
    "vae, parts": {"kind": "vae", "parts": WITHOUT_ERASER},
    "cond-vae, parts": {"kind": "cond-vae", "parts": WITHOUT_ERASER},
    "cond-vae-info, parts": {"kind": "cond-vae-info", "parts": WITHOUT_ERASER},
    "cond-vae, z with places": {"kind": "cond-vae", "z_grid": 8, "z_dim": 64},
}


@pytest.fixture(params=KINDS)
def objective(request, build):
    return build(**KINDS[request.param])


def own_state(objective, game):
    """The parameters of a minimisation, and the buffers that go with it."""
    return {"adversary": ("model.adversary_net.", "parts."), "critic": ("parts.",)}[game.name]


# -- the sides --------------------------------------------------------------------------------------------------------


def test_each_trained_parameter_is_on_one_side(objective):
    sides = [objective.generative_parameters(), *(game.parameters for game in objective.minimisations)]
    ids = [id(p) for side in sides for p in side]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in objective.parameters() if p.requires_grad}


def test_the_generative_step_leaves_the_other_networks_alone(objective, batch, state, changed):
    before = state(objective)
    objective.generative_step(*batch(objective))[0].backward()
    for game in objective.minimisations:
        assert [p.grad for p in game.parameters] == [None] * len(game.parameters)
        assert all(p.requires_grad for p in game.parameters)
    moved = changed(before, objective)
    assert not {name for name in moved if name.startswith(("model.adversary_net", "parts"))}
    assert all("running" in n or "num_batches" in n or "class_means" in n or "eraser" in n for n in moved)


def test_the_generative_step_trains_everything_else(objective, batch):
    objective.generative_step(*batch(objective, missing=0.0))[0].backward()
    names = {id(p): name for name, p in objective.named_parameters()}
    untrained = [
        names[id(p)] for p in objective.generative_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert untrained == []


def test_each_other_minimisation_leaves_everything_else_alone(objective, batch, state, changed, trained):
    _, step = objective.generative_step(*batch(objective))
    for game in objective.minimisations:
        before = state(objective)
        for loss in game.losses(step):
            loss.backward()
        own = {name for name, p in objective.named_parameters() if any(p is q for q in game.parameters)}
        assert trained(objective) == own
        assert all(p.grad is None for p in objective.generative_parameters())
        assert all(name.startswith(own_state(objective, game)) for name in changed(before, objective))
        objective.zero_grad(set_to_none=True)


def test_the_entropy_s_gradient_reaches_the_encoder_of_z(build, batch, trained):
    zeros = {f.name: 0.0 for f in fields(ObjectiveConfig)}
    objective = build(weights={**zeros, "negative_entropy": 1.0})
    objective.generative_step(*batch(objective))[0].backward()
    assert "model.q_z.head.weight" in trained(objective)
    assert not {name for name in trained(objective) if name.startswith(("model.q_w", "model.q_y"))}


def test_asking_a_network_trains_what_it_reads_and_not_the_network():
    net, x = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)), torch.randn(5, 3, requires_grad=True)
    answer = asked(net.eval(), x)
    assert torch.equal(answer, net(x))
    answer.sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


# -- terms and weights ------------------------------------------------------------------------------------------------


def test_cond_vae_info_raises_the_cross_entropy_that_its_adversary_lowers(build, batch):
    objective = build("cond-vae-info", weights={"negative_entropy": 7.0})
    x, y = batch(objective)
    loss, step = objective.generative_step(x, y)
    expected = losses.cross_entropy(objective.model.adversary(step.out.z), y)
    torch.testing.assert_close(step.terms["negative_cross_entropy"], -expected)
    assert "negative_entropy" not in step.terms
    weighted = sum(term.mean() for term in step.terms.values()) - 6 * expected.mean()
    torch.testing.assert_close(loss, weighted)


@pytest.mark.parametrize(
    ("kind", "terms"),
    [
        ("vae", {"reconstruction", "kl_z"}),
        ("cond-vae", {"reconstruction", "kl_z"}),
        ("cond-vae-info", {"reconstruction", "kl_z", "negative_cross_entropy"}),
        ("csvae", {"reconstruction", "kl_z", "kl_w", "negative_entropy"}),
    ],
)
def test_each_model_has_the_terms_of_its_own_bound_and_adversary(build, batch, kind, terms):
    objective = build(kind)
    _, step = objective.generative_step(*batch(objective))
    assert step.terms.keys() == terms | {"classifier"}
    assert len(objective.minimisations) == any("negative" in term for term in terms)
    assert (step.q_y is None) == (not objective.minimisations)


def test_terms_are_unweighted_and_in_nats_for_each_example(build, batch):
    weights = {f.name: 7.0 for f in fields(ObjectiveConfig)}
    first, second = build(), build(weights=weights)
    x, y = batch(first)
    found = []
    for objective in (first, second):
        torch.manual_seed(3)
        found.append(objective.generative_step(x, y)[1].terms)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])
    torch.manual_seed(3)
    model = first.model
    out = model(x, y)
    expected = {
        "reconstruction": -out.p_x.log_prob(x),
        "kl_w": torch.distributions.kl_divergence(out.q_w, out.p_w),
        "kl_z": torch.distributions.kl_divergence(out.q_z, model.prior_z()),
        "negative_entropy": -model.adversary_net.eval()(out.z).entropy(),
        "classifier": losses.cross_entropy(out.q_y, y) / first.data.known,  # the mean over known labels
    }
    assert first.data.known < 1
    assert found[0].keys() == expected.keys()
    for name, term in found[0].items():
        assert term.shape == (12,)
        torch.testing.assert_close(term, expected[name])


@pytest.mark.parametrize("weighted", [f.name for f in fields(ObjectiveConfig) if f.name != "adversary"])
def test_each_weight_weighs_its_own_term(build, batch, weighted):
    objective = build(weights={weighted: 3.0})
    loss, step = objective.generative_step(*batch(objective))
    expected = sum((3 if name == weighted else 1) * term.mean() for name, term in step.terms.items())
    torch.testing.assert_close(loss, expected)


def test_parts_add_their_terms_with_their_own_weights(build, batch):
    objective = build(**KINDS["every part"])
    for part in objective.parts:
        if isinstance(part, Critic):
            part.steps.fill_(RISE)
    loss, step = objective.generative_step(*batch(objective))
    weights = dict.fromkeys(("realism", "recognition", "matching", "locality"), 2.0)
    assert weights.keys() < step.terms.keys()
    torch.testing.assert_close(loss, sum(weights.get(n, 1.0) * term.mean() for n, term in step.terms.items()))


def test_a_term_without_a_weight_of_its_own_counts_once(build, batch):
    class Extra(Part):
        def terms(self, step):
            return {"extra": step.out.z.square().sum(1)}

    plain = build()
    objective = Objective(plain.model, parts=[(Extra, object())])
    loss, step = objective.generative_step(*batch(objective))
    torch.testing.assert_close(loss, sum(term.mean() for term in step.terms.values()))


def test_the_adversary_s_loss_has_its_weight_and_its_term_has_none(build, batch):
    objective = build(weights={"adversary": 5.0})
    _, step = objective.generative_step(*batch(objective))
    (game,) = objective.minimisations
    (loss,) = game.losses(step)
    assert (game.name, game.weight, game.betas) == ("adversary", 5.0, (0.9, 0.999))
    expected = losses.cross_entropy(objective.model.adversary_net(step.out.z), step.y).mean()
    torch.testing.assert_close(loss, expected)


def test_a_batch_without_any_attribute_is_no_obstacle(build, batch):
    objective = build(**KINDS["every part"])
    x, y = batch(objective, missing=1.1)
    assert y.isnan().all()
    loss, step = objective.generative_step(x, y)
    assert loss.isfinite()
    assert not step.terms["classifier"].any()
    adversary, critic = objective.minimisations
    assert all(loss == 0 for loss in adversary.losses(step))
    assert all(loss.isfinite() for loss in critic.losses(step))


def test_the_adversary_learns_what_z_says(build, batch):
    objective = build()
    _, step = objective.generative_step(*batch(objective, 64, missing=0.0))
    step.out.__dict__["z"] = torch.cat([step.y + 0.1 * torch.randn(64, 3), torch.randn(64, 5)], 1)
    (game,) = objective.minimisations
    first = next(game.losses(step)).item()
    for _ in range(300):
        loss = next(game.losses(step))
        for parameter, gradient in zip(game.parameters, torch.autograd.grad(loss, game.parameters), strict=True):
            parameter.data -= 0.1 * gradient
    assert loss.item() < 0.2 * first
    assert first == pytest.approx(3 * math.log(2), abs=1.0)


def test_the_generative_step_puts_everything_in_training_mode_but_the_adversary(build, batch):
    objective = build().eval()
    objective.generative_step(*batch(objective))
    assert objective.model.backbone.training
    assert not objective.model.adversary_net.training
    assert objective.model.adversary_net.norm.num_batches_tracked == 0


@pytest.mark.parametrize("name", [f.name for f in fields(ObjectiveConfig)])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_are_numbers_of_0_or_more(name, value):
    with pytest.raises(ConfigError, match=rf"^objective\.{name}: expected a number of 0 or more, got"):
        ObjectiveConfig(**{name: value})


def test_every_model_of_the_family_has_a_case_here():
    assert {kind.get("kind", "csvae") for kind in KINDS.values()} == set(list_models())


def test_a_part_can_not_take_the_name_of_another_term(build, batch):
    class Greedy(Part):
        Options = Weighted

        def terms(self, step):
            return {"kl_z": step.terms["kl_z"]}

    objective = build()
    objective.parts.append(Greedy(Weighted(), objective))
    with pytest.raises(
        ConfigError, match=r"^the term 'kl_z' of a part: expected a name that no other term has, got 'kl_z"
    ):
        objective.generative_step(*batch(objective))
