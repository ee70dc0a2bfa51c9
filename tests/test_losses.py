"""Every term of the objective against the mathematics that its docstring opens with."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent

from csvae_hub import losses
from csvae_hub.distributions import attributes, diagonal_gaussian, likelihood


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def gaussian(shape, event_dims):
    return diagonal_gaussian(torch.randn(shape), torch.rand(shape) + 0.3, event_dims)


@pytest.mark.parametrize(("term", "event_dims"), [(losses.kl_w, 2), (losses.kl_z, 1)])
def test_a_kl_is_what_monte_carlo_finds(term, event_dims):
    shape = (4, 3, 2) if event_dims == 2 else (4, 6)
    q, p = gaussian(shape, event_dims), gaussian(shape, event_dims)
    w = q.sample((100_000,))
    ratio = q.log_prob(w) - p.log_prob(w)
    error = ratio.std(0) / len(w) ** 0.5
    kl = term(q, p)
    assert kl.shape == (4,)
    assert (kl > 0).all()
    assert ((kl - ratio.mean(0)).abs() < 5 * error).all()
    assert torch.equal(term(q, q), torch.zeros(4))


def test_kl_w_of_the_whole_is_the_sum_over_subspaces():
    q, p = gaussian((4, 3, 2), 2), gaussian((4, 3, 2), 2)
    parts = [losses.kl_w(*(diagonal_gaussian(d.mean[:, i], d.stddev[:, i]) for d in (q, p))) for i in range(3)]
    torch.testing.assert_close(losses.kl_w(q, p), torch.stack(parts).sum(0))


def test_reconstruction_is_in_nats_and_summed_over_dimensions():
    x = torch.rand(2, 3, 4, 4)
    exact = losses.reconstruction(likelihood("gaussian", x, 0.5), x)
    torch.testing.assert_close(exact, torch.full((2,), 48 * (math.log(0.5) + 0.5 * math.log(2 * math.pi))))


def test_negative_entropy_is_minus_the_entropy():
    p = torch.rand(6, 4)
    expected = (p * p.log() + (1 - p) * (1 - p).log()).sum(1)
    torch.testing.assert_close(losses.negative_entropy(attributes(p.logit())), expected)


def test_negative_entropy_is_least_where_nothing_is_known():
    assert losses.negative_entropy(attributes(torch.zeros(1, 4))).item() == pytest.approx(-4 * math.log(2))
    assert (losses.negative_entropy(attributes(torch.randn(50, 4))) > -4 * math.log(2)).all()


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_negative_entropy_of_saturated_logits_is_zero_with_a_finite_gradient(size):
    logits = torch.tensor([[size, -size]], requires_grad=True)
    value = losses.negative_entropy(attributes(logits))
    value.sum().backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.isfinite().all()


def test_the_cross_entropy_is_minus_the_log_probability():
    logits, y = torch.randn(6, 4), torch.randint(2, (6, 4)).float()
    expected = -Independent(Bernoulli(logits=logits), 1).log_prob(y)
    torch.testing.assert_close(losses.cross_entropy(attributes(logits), y), expected)
    torch.testing.assert_close(losses.cross_entropy(attributes(logits), y, torch.full((4,), 0.5)), expected)


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_the_cross_entropy_of_saturated_logits_is_the_logit_with_a_finite_gradient(size):
    logits = torch.tensor([[size, -size]], requires_grad=True)
    wrong = losses.cross_entropy(attributes(logits), torch.tensor([[0.0, 1.0]]))
    wrong.sum().backward()
    assert wrong.item() == pytest.approx(2 * size)
    assert logits.grad.tolist() == [[1, -1]]


@pytest.mark.parametrize("rate", [0.03, 0.5, 0.9])
def test_a_balanced_adversary_that_knows_nothing_answers_one_half(rate):
    """Among constant answers ½ is the best one, and costs log 2 however rare the attribute is."""
    y = (torch.arange(1000) < 1000 * rate).float()[:, None]
    answers = torch.linspace(-4, 4, 81)
    costs = torch.stack([losses.cross_entropy(attributes(a.expand(1000, 1)), y, y.mean(0)).mean() for a in answers])
    assert answers[costs.argmin()].item() == pytest.approx(0, abs=1e-5)
    assert costs.min().item() == pytest.approx(math.log(2), abs=1e-5)
    logit = torch.zeros(1, 1, requires_grad=True)
    losses.cross_entropy(attributes(logit.expand(1000, 1)), y, y.mean(0)).mean().backward()
    assert logit.grad.item() == pytest.approx(0, abs=1e-6)


def test_an_unbalanced_adversary_that_knows_nothing_answers_the_base_rate():
    y = (torch.arange(1000) < 100).float()[:, None]
    logit = torch.full((1, 1), math.log(0.1 / 0.9), requires_grad=True)
    losses.cross_entropy(attributes(logit.expand(1000, 1)), y).mean().backward()
    assert logit.grad.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rate", [None, torch.tensor([0.2, 0.5, 0.7])])
def test_missing_attributes_count_for_nothing(rate):
    def term(logits, y, rate):
        return losses.cross_entropy(attributes(logits), y, rate)

    logits, y = torch.randn(5, 3, requires_grad=True), torch.randint(2, (5, 3)).float()
    whole = torch.stack([term(logits[:, [i]], y[:, [i]], rate if rate is None else rate[[i]]) for i in range(3)], 1)
    missing = torch.rand(5, 3) < 0.4
    masked = term(logits, y.masked_fill(missing, torch.nan), rate)
    torch.testing.assert_close(masked, (whole * ~missing).sum(1))
    (gradient,) = torch.autograd.grad(masked.sum(), logits)
    assert torch.equal(gradient == 0, missing)
    assert torch.equal(term(logits, torch.full_like(y, torch.nan), rate), torch.zeros(5))


@pytest.mark.parametrize("name", ["gaussian", "laplace", "bernoulli"])
def test_every_term_has_one_number_an_example(name):
    x, y, q_y = torch.rand(5, 3, 4, 4), torch.randint(2, (5, 2)).float(), attributes(torch.randn(5, 2))
    terms = [
        losses.reconstruction(likelihood(name, torch.rand(5, 3, 4, 4), 0.1), x),
        losses.kl_w(gaussian((5, 2, 2), 2), gaussian((5, 2, 2), 2)),
        losses.kl_z(gaussian((5, 8), 1), gaussian((5, 8), 1)),
        losses.negative_entropy(q_y),
        losses.cross_entropy(q_y, y),
        losses.cross_entropy(q_y, y, torch.tensor([0.5, 0.1])),
    ]
    assert [term.shape for term in terms] == [(5,)] * 6
