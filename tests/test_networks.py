"""The networks: what each is told, and what distribution each gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Laplace, Normal, kl_divergence

from csvae_hub.backbones import create_backbone
from csvae_hub.config import AttributePrior, BackboneConfig, LikelihoodConfig
from csvae_hub.networks import (
    LOG_SCALE_RANGE,
    Adversary,
    Decoder,
    PosteriorW,
    PosteriorY,
    PosteriorZ,
    PriorW,
    bounded_scale,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# -- q(z | x) ---------------------------------------------------------------------------------------------------------


def test_the_code_is_the_mean_before_the_eraser():
    head, features = PosteriorZ(5, 4, 2, erase=True), torch.randn(30, 5)
    code = head.code(features)[0]
    assert torch.equal(code, head(features).mean)
    head.eraser.observe(code.detach(), torch.randint(2, (30, 2)).float())
    assert not torch.equal(head(features).mean, code)
    assert torch.equal(head.eraser(code), head(features).mean)


def test_asking_for_z_changes_no_moments():
    head = PosteriorZ(5, 4, 2, erase=True).train()
    before = {name: buffer.clone() for name, buffer in head.named_buffers()}
    head(torch.randn(30, 5), torch.randint(2, (30, 2)).float())
    assert all(torch.equal(before[name], buffer) for name, buffer in head.named_buffers())


def test_the_correction_is_zero_at_the_start_and_changes_the_mean_alone():
    head, features = PosteriorZ(5, 4, correction=True), torch.randn(30, 5)
    loc, raw = head.code(features)
    torch.testing.assert_close(torch.cat([loc, raw], 1), head.head(features))
    torch.nn.init.normal_(head.correction[-1].weight)
    corrected, same = head.code(features)
    assert not torch.equal(corrected, loc)
    assert torch.equal(same, raw)


def test_what_is_told_reads_y_and_what_is_not_does_not():
    features, y = torch.randn(30, 5), torch.randint(2, (30, 2)).float()
    for told in (True, False):
        head = PosteriorZ(5, 4, 2, told=told)
        assert torch.equal(head(features, y).mean, head(features, 1 - y).mean) != told


@pytest.mark.parametrize("told", [False, True])
def test_with_a_grid_z_is_read_from_the_map_behind_the_features(told):
    head, y = PosteriorZ(3, 32, 2, told=told, grid=4), torch.randint(2, (6, 2)).float()
    features = torch.randn(6, 7 + 3 * 16)
    q = head(features, y)
    assert (q.batch_shape, q.event_shape) == ((6,), (32,))
    others = torch.cat([torch.randn(6, 7), features[:, 7:]], 1)
    assert torch.equal(head(others, y).mean, q.mean)
    moved = features.clone()
    moved[:, 7:].unflatten(1, (3, 4, 4))[:, :, 0, 3] += 1  # a corner off the diagonal: rows are rows
    changed = (head(moved, y).mean != q.mean).all(0).unflatten(0, (2, 4, 4))
    assert changed[:, :2, 2:].all()
    assert changed.sum() == 8  # a 3 × 3 convolution sees its neighbours
    assert torch.equal(head(features, 1 - y).mean, q.mean) != told


def test_the_scale_of_z_is_never_below_the_least_one():
    features = 100 * torch.randn(30, 5)
    assert PosteriorZ(5, 4)(features).stddev.min() < 0.01
    assert PosteriorZ(5, 4, min_scale=0.25)(features).stddev.min() >= 0.25


@pytest.mark.parametrize("raw", [-1e30, -100.0, 0.0, 100.0, 1e30])
def test_scales_are_positive_and_bounded(raw):
    low, high = LOG_SCALE_RANGE
    assert math.exp(low) * 0.999 <= bounded_scale(torch.tensor(raw)).item() <= math.exp(high) * 1.001


# -- w ----------------------------------------------------------------------------------------------------------------


def some_prior(learned=False):
    return PriorW([AttributePrior(), AttributePrior(-1.0, 1.0, 2.0, 0.5), AttributePrior()], 2, learned)


@pytest.mark.parametrize("residual", [False, True])
def test_w_i_is_told_y_i_alone(residual):
    head, prior, features = PosteriorW(5, 3, 2), some_prior(), torch.randn(4, 5)
    y = torch.zeros(4, 3)
    for i in range(3):
        other = y.clone()
        other[:, i] = 1
        q, changed = (head(features, v, prior(v) if residual else None) for v in (y, other))
        rest = [j for j in range(3) if j != i]
        for name in ("mean", "stddev"):
            assert torch.equal(getattr(q, name)[:, rest], getattr(changed, name)[:, rest])
        assert (q.mean[:, i] != changed.mean[:, i]).all()


def test_a_residual_posterior_starts_near_its_prior():
    head, prior, y = PosteriorW(5, 3, 2), some_prior(), torch.randint(2, (50, 3)).float()
    p = prior(y)
    offset = (head(torch.randn(50, 5), y, p).mean - p.mean) / p.stddev
    assert offset.abs().mean() < 0.2
    assert kl_divergence(head(torch.randn(50, 5), y, p), p).mean() < 0.1


def test_the_prior_has_each_class_s_own_numbers():
    p = some_prior()(torch.tensor([[0.0, 1.0, 1.0]]))
    assert p.event_shape == (3, 2)
    torch.testing.assert_close(p.mean[0], torch.tensor([[0.0, 0.0], [2.0, 2.0], [3.0, 3.0]]))
    torch.testing.assert_close(p.stddev[0], torch.tensor([[0.1, 0.1], [0.5, 0.5], [1.0, 1.0]]))


@pytest.mark.parametrize(
    ("y", "loc", "scale"),
    [(0.0, 0.0, 0.1), (0.5, 1.5, 0.1**0.5), (1.0, 3.0, 1.0), (2.0, 6.0, 1.0), (-1.0, -3.0, 0.1)],
)
def test_between_the_classes_the_prior_is_interpolated_and_beyond_its_location_extrapolated(y, loc, scale):
    p = some_prior()(torch.full((1, 3), y))
    torch.testing.assert_close(p.mean[0, 0], torch.tensor([loc, loc]))
    torch.testing.assert_close(p.stddev[0, 0], torch.tensor([scale, scale]))


def test_the_prior_is_trained_on_request_only():
    assert [p.requires_grad for p in some_prior().parameters()] == [False, False]
    assert [p.requires_grad for p in some_prior(learned=True).parameters()] == [True, True]


# -- q(y | x) and the adversary ---------------------------------------------------------------------------------------


def test_posterior_y_is_bernoullis_and_reads_the_features_alone():
    head, features = PosteriorY(6, 3), torch.randn(4, 6)
    q = head(features)
    assert isinstance(q.base_dist, Bernoulli)
    assert (q.batch_shape, q.event_shape) == ((4,), (3,))
    with_a_map = head(torch.cat([features, torch.randn(4, 10)], 1))
    torch.testing.assert_close(with_a_map.mean, q.mean)


@pytest.mark.parametrize("hidden", [(), (2,), (8, 8, 8)])
@pytest.mark.parametrize("grid", [1, 4, 8])
def test_the_adversary_does_not_care_for_the_scale_of_z(hidden, grid):
    net, z = Adversary(4 * grid**2, 2, hidden, grid).train(), torch.randn(200, 4 * grid**2)
    q = net(z)
    assert isinstance(q.base_dist, Bernoulli)
    assert (q.batch_shape, q.event_shape) == ((200,), (2,))
    torch.testing.assert_close(net(100 * z + 7).mean, q.mean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("grid", [1, 4])
def test_the_adversary_hears_z(hidden, grid):
    net, z = Adversary(2 * grid**2, 2, hidden, grid), torch.randn(50, 2 * grid**2, requires_grad=True)
    net(z).mean.sum().backward()
    assert z.grad.abs().sum() > 0


# -- p(x | z, w) ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("gaussian", Normal), ("laplace", Laplace), ("bernoulli", Bernoulli)])
def test_the_decoder_gives_a_likelihood_whose_mean_is_in_range(name, kind):
    backbone = create_backbone(BackboneConfig(width=4, features=8), (3, 16, 16), 4, 6)
    decoder, z, w = Decoder(backbone, LikelihoodConfig(name, 0.3)), 50 * torch.randn(5, 4), torch.randn(5, 6)
    p_x = decoder(z, w)
    assert isinstance(p_x, Independent)
    assert isinstance(p_x.base_dist, kind)
    assert (p_x.batch_shape, p_x.event_shape) == ((5,), (3, 16, 16))
    assert 0 <= p_x.mean.min() < p_x.mean.max() <= 1
    torch.testing.assert_close(p_x.mean, backbone.decode(z, w).sigmoid(), rtol=0, atol=1e-5)
    if name != "bernoulli":
        assert p_x.base_dist.scale.unique().item() == pytest.approx(0.3)


def test_the_decoder_of_vectors_is_not_squashed():
    backbone = create_backbone(BackboneConfig("mlp", 8, features=8), (5,), 4, 2)
    z, w = 50 * torch.randn(20, 4), torch.randn(20, 2)
    assert torch.equal(Decoder(backbone, LikelihoodConfig())(z, w).mean, backbone.decode(z, w))


@pytest.mark.parametrize("features", [1, 2, 3])
def test_a_classifier_of_few_features_has_a_hidden_layer_too(features):
    net = PosteriorY(features, 2)
    assert all(p.numel() for p in net.parameters())
    assert net(torch.randn(4, features)).mean.shape == (4, 2)
