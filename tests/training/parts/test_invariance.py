"""The invariance: pictures that differ in their attributes alone are to have the same z."""

from __future__ import annotations

import pytest
import torch

from csvae_hub.distributions import diagonal_gaussian
from csvae_hub.training.parts.invariance import invariance


def test_it_is_what_monte_carlo_finds():
    torch.manual_seed(0)
    q, p = (diagonal_gaussian(torch.randn(4, 6), torch.rand(4, 6) + 0.3) for _ in range(2))
    z = q.sample((100_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    assert ((invariance(q, p) - ratio.mean(0)).abs() < 5 * ratio.std(0) / len(z) ** 0.5).all()
    assert torch.equal(invariance(q, q), torch.zeros(4))


@pytest.mark.parametrize("kind", ["csvae", "cond-vae", "cond-vae-info"])
def test_it_compares_pictures_that_differ_in_their_attributes_alone(build, batch, monkeypatch, state, changed, kind):
    objective = build(kind, parts={"invariance": {}})
    model, seen = objective.model, []
    out = model.train()(*batch(objective, missing=0.0))
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda latents: seen.append(latents) or decode(latents))
    monkeypatch.setattr(model, "forward", lambda x, y, also=None: out)
    before = state(model.backbone)
    _, step = objective.generative_step(*batch(objective, missing=0.0))
    (shuffled,) = seen
    assert torch.equal(shuffled.z, out.z)
    for i in range(3):  # each attribute is that of some picture, with that picture's own kind
        donors = torch.cat([out.w[:, i], out.y[:, i, None]], 1) if kind == "csvae" else out.y[:, i, None]
        taken = torch.cat([shuffled.w[:, i], shuffled.y[:, i, None]], 1)
        assert (taken[:, None] == donors).all(-1).any(1).all()
    assert not torch.equal(shuffled.y, out.y)
    assert step.terms["invariance"].shape == (12,)
    assert (step.terms["invariance"] >= 0).all()
    assert changed(before, model.backbone) == set()  # batch norm's moments are those of real pictures
    assert model.backbone.training


def test_its_gradient_reaches_the_encoder_alone(build, batch, trained):
    objective = build(parts={"invariance": {}})
    _, step = objective.generative_step(*batch(objective))
    step.terms["invariance"].sum().backward()
    assert "model.q_z.head.weight" in trained(objective)
    decoder = ("model.backbone.pixels", "model.backbone.up", "model.backbone.start", "model.q_w", "model.q_y")
    assert not {name for name in trained(objective) if name.startswith((*decoder, "model.adversary"))}
