"""The packaged paper recipes train the paper's objective and nothing else: gradients against the equations."""

from __future__ import annotations

import math

import pytest
import torch

from csvae_hub.models import create_model
from csvae_hub.training import load_recipe
from csvae_hub.training.steps import Objective

RECIPES = ("paper-swiss-roll", "paper-faces", "paper-celeba", "paper-expressions")


def normal_kl(loc, scale, prior_loc, prior_scale):
    ratio = scale / prior_scale
    return (0.5 * (ratio**2 + ((loc - prior_loc) / prior_scale) ** 2 - 1) - ratio.log()).flatten(1).sum(1)


def answered(logits, exclusive):
    """The probabilities of k Bernoullis, or of one categorical."""
    return logits.softmax(1) if exclusive else torch.sigmoid(logits)


def minus_entropy(p, exclusive):
    return (p * p.log() + (0 if exclusive else (1 - p) * (1 - p).log())).sum(1)


def cross_entropy(p, y, exclusive):
    return -(y * p.log() + (0 if exclusive else (1 - y) * (1 - p).log())).sum(1)


def paper_losses(model, beta, sigma, x, y):
    """Both minimisations, written from the equations of METHOD: the second takes z as a constant."""
    features = model.backbone.encode(x)
    z_loc, z_scale = model.q_z(features).mean, model.q_z(features).stddev
    w_loc, w_scale = model.q_w(features, y).mean, model.q_w(features, y).stddev
    z = z_loc + z_scale * torch.randn(z_loc.shape)
    w = w_loc + w_scale * torch.randn(w_loc.shape)
    decoded = model.backbone.decode(z, w.flatten(1))
    mean = decoded.sigmoid() if x.ndim == 4 else decoded
    log_p = -0.5 * ((x - mean) / sigma) ** 2 - math.log(sigma) - 0.5 * math.log(2 * math.pi)
    reconstruction = -log_p.flatten(1).sum(1)
    prior_loc, prior_scale = (3 * y)[..., None].expand_as(w), (0.1 + 0.9 * y)[..., None].expand_as(w)
    kl_w = normal_kl(w_loc, w_scale, prior_loc, prior_scale)
    kl_z = normal_kl(z_loc, z_scale, torch.zeros_like(z), torch.ones_like(z))
    net, exclusive = model.adversary_net, bool(model.config.exclusive)
    negative_entropy = minus_entropy(answered(net.eval().net(net.norm(z)), exclusive), exclusive)
    answer = answered(torch.nn.Sequential.forward(model.q_y, features), exclusive)
    classifier = cross_entropy(answer, y, exclusive)
    first = beta.reconstruction * reconstruction + beta.kl_w * kl_w + beta.kl_z * kl_z
    first = first + beta.negative_entropy * negative_entropy + beta.classifier * classifier
    yield first.mean()
    q = answered(net.train().net(net.norm(z.detach())), exclusive)
    yield beta.adversary * cross_entropy(q, y, exclusive).mean()


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_a_paper_recipe_has_the_gradients_of_the_paper_s_equations(name):
    recipe = load_recipe(name)
    assert recipe.parts == {}
    torch.manual_seed(0)
    model = create_model(recipe.model)
    x = torch.rand(6, *recipe.model.shape)
    y = (torch.rand(6, len(model.attributes)) < 0.5).float()
    if recipe.model.exclusive:
        assert recipe.model.exclusive == (recipe.model.attributes,)
        y = torch.eye(len(model.attributes))[torch.randint(len(model.attributes), (6,))]
    others = [p for n, p in model.named_parameters() if p.requires_grad and not n.startswith("adversary_net")]
    delta = list(model.adversary_net.parameters())
    state = {n: v.clone() for n, v in model.state_dict().items()}
    model.train()
    torch.manual_seed(1)
    losses = paper_losses(model, recipe.objective, recipe.model.likelihood.scale, x, y)
    expected = [torch.autograd.grad(next(losses), others), torch.autograd.grad(next(losses), delta)]

    model.load_state_dict(state)
    objective = Objective(model, recipe.objective)
    torch.manual_seed(1)
    loss, step = objective.generative_step(x, y)
    loss.backward()
    assert all(p.grad is None for p in delta)
    got = [p.grad.clone() for p in others]
    torch.testing.assert_close(got, list(expected[0]), rtol=1e-3, atol=1e-5 * max(g.abs().max() for g in got))
    model.zero_grad(set_to_none=True)
    (game,) = objective.minimisations
    terms = list(game.losses(step))
    assert len(terms) == 1
    (game.weight * terms[0]).backward()
    assert all(p.grad is None for p in others)
    torch.testing.assert_close([p.grad for p in delta], list(expected[1]), rtol=1e-3, atol=1e-5)
