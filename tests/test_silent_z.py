"""Weights whose z is silent: the flow, and a decoder that draws from what is left what it drew before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from csvae_hub import CSVAE, erasure
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.evaluation.encoding import encode_data


@pytest.fixture
def teacher(make_halves):
    """A model that has learned for a moment."""
    torch.manual_seed(0)
    backbone = BackboneConfig(width=4, features=16)
    model = CSVAE(ModelConfig(("Left", "Right"), shape=(3, 16, 16), z_dim=4, backbone=backbone))
    optimizer, data = torch.optim.Adam(model.parameters(), 1e-2), make_halves(256, 2)
    for _ in range(10):
        for rows in torch.randperm(256).split(32):
            x, y = data.batch(rows)
            optimizer.zero_grad()
            out = model(x, y)
            terms = [*model.bound(out, x).values(), -10 * model.q_y(out.features).log_prob(y)]
            sum(term.mean() for term in terms).backward()
            optimizer.step()
    model.class_means.copy_(torch.randn_like(model.class_means))
    return model.eval()


def read_linearly(z, y):
    """The share of y's variance that a linear probe explains, the greater one."""
    z, y = (torch.as_tensor(np.asarray(part)).double() for part in (z, y))
    z, y = torch.cat([z, torch.ones(len(z), 1)], 1), y - y.mean(0)
    left = y - z @ torch.linalg.lstsq(z, y).solution
    return (1 - left.var(0) / y.var(0)).max().item()


def test_z_falls_silent_and_the_decoder_draws_as_before(script, teacher, make_halves, monkeypatch):
    silent = script("silent_z")
    monkeypatch.setattr(silent, "NEAR", 0.0)
    monkeypatch.setattr(erasure, "STEPS", 300)
    data, x = make_halves(256, 0), make_halves(64, 1).batch(range(64))[0]
    student, codes = silent.with_flow(teacher, data, 16)
    encoded = encode_data(teacher, data)
    assert (encoded.y.numpy().round() == data.labels).mean() > 0.95
    assert codes.before.shape == codes.behind.shape == (2, 256, 4)
    torch.testing.assert_close(codes.before[0], encoded.z)
    torch.testing.assert_close(codes.behind[0], encode_data(student, data).z)
    assert read_linearly(codes.behind[0], codes.y[0]) < 0.5 * read_linearly(codes.before[0], codes.y[0])

    @torch.no_grad()
    def apart():
        one, other = (model.reconstruct(x) for model in (teacher, student))
        return (one - other).square().mean().item()

    before, weights = apart(), {name: value.clone() for name, value in student.state_dict().items()}
    silent.teach(student, teacher, codes, data, silent.Options(epochs=20, batch_size=32, learning_rate=1e-2))
    assert apart() < 0.5 * before
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, weights[name])}
    assert changed
    assert all(name.startswith("backbone.") for name in changed)
    assert not any(name.startswith(("backbone.down", "backbone.features")) or "running" in name for name in changed)
    first, second = teacher.encode(x), student.encode(x)
    torch.testing.assert_close(first.w, second.w)
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_photos_are_mirrored_where_it_is_asked(script):
    silent, x = script("silent_z"), torch.rand(2, 3, 4, 4)
    found = silent.mirrored(x, torch.tensor([0, 1]))
    assert torch.equal(found[0], x[0])
    assert torch.equal(found[1], x[1].flip(-1))
    assert torch.equal(silent.mirrored(x, torch.tensor(1)), x.flip(-1))
