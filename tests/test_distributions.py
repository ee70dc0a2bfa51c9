"""The distributions against their densities written out."""

from __future__ import annotations

import math

import pytest
import torch

from csvae_hub.distributions import attributes, diagonal_gaussian, likelihood

SHAPES = [(3, 4), (3, 1, 4, 4)]


@pytest.mark.parametrize("event_dims", [1, 2])
def test_a_diagonal_gaussian_has_its_last_dimensions_as_one_event(event_dims):
    loc, scale = torch.randn(5, 3, 2), torch.rand(5, 3, 2) + 0.1
    q, x = diagonal_gaussian(loc, scale, event_dims), torch.randn(5, 3, 2)
    assert q.event_shape == (5, 3, 2)[-event_dims:]
    density = -0.5 * ((x - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(q.log_prob(x), density.flatten(-event_dims).sum(-1))
    assert torch.equal(q.mean, loc)


@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_and_laplace_likelihoods(shape):
    mean, x, scale = torch.rand(shape), torch.rand(shape), 0.3
    gaussian = -0.5 * ((x - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
    laplace = -(x - mean).abs() / scale - math.log(2 * scale)
    for name, density in (("gaussian", gaussian), ("laplace", laplace)):
        p_x = likelihood(name, mean, scale)
        assert p_x.batch_shape == (3,)
        assert p_x.event_shape == shape[1:]
        torch.testing.assert_close(p_x.log_prob(x), density.flatten(1).sum(1))


def test_a_bernoulli_likelihood_is_minus_the_cross_entropy_of_grey_values():
    mean, x = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    entropy = torch.nn.functional.binary_cross_entropy(mean, x, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(likelihood("bernoulli", mean, 1.0).log_prob(x), -entropy, rtol=1e-4, atol=1e-4)


def test_a_bernoulli_likelihood_is_finite_at_black_and_white():
    mean = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    assert likelihood("bernoulli", mean, 1.0).log_prob(torch.tensor([[1.0, 0.0, 0.0, 1.0]])).isfinite().all()


def test_bernoullis_are_one_event_of_k():
    logits = torch.randn(5, 3)
    q = attributes(logits)
    assert (q.batch_shape, q.event_shape) == ((5,), (3,))
    torch.testing.assert_close(q.mean, logits.sigmoid())
    torch.testing.assert_close(q.log_prob(torch.ones(5, 3)), logits.sigmoid().log().sum(1))
