"""The heads: what each is told, and what the eraser leaves for a linear probe."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import kl_divergence

from csvae_hub.config import AttributePrior
from csvae_hub.networks import LOG_SCALE_RANGE, Adversary, LinearEraser, PosteriorW, PosteriorZ, PriorW, bounded_scale


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def leaking(n=400, dim=6, attributes=2):
    """Correlated h that says much of y, linearly, and y."""
    y = (torch.rand(n, attributes) < torch.tensor([0.5, 0.2])).float()
    h = torch.randn(n, dim) @ torch.randn(dim, dim) + 3 * y @ torch.randn(attributes, dim) + 5
    return h, y


def read_by_least_squares(h, y):
    """The share of y's variance that the best affine function of h explains, for each attribute."""
    h, y = h.double() - h.double().mean(0), y.double() - y.double().mean(0)
    answer = h @ torch.linalg.lstsq(h, y, rcond=1e-4, driver="gelsd").solution  # rounding is no reading
    return answer.var(0) / y.var(0)


# -- the eraser -------------------------------------------------------------------------------------------------------


def test_before_it_has_seen_anything_the_eraser_is_the_identity():
    h = torch.randn(5, 6)
    assert torch.equal(LinearEraser(6, 2)(h), h)


def test_a_linear_probe_reads_nothing_of_what_was_observed():
    h, y = leaking()
    eraser = LinearEraser(6, 2)
    eraser.observe(h, y)
    erased = eraser(h)
    covariance = (erased - erased.mean(0)).T @ (y - y.mean(0)) / len(h)
    assert read_by_least_squares(h, y).min() > 0.3
    assert read_by_least_squares(erased, y).max() < 1e-6
    assert covariance.abs().max() < 1e-4


def test_a_logistic_probe_is_best_when_it_answers_the_share():
    """Its loss is convex, and flat where it looks at nothing."""
    h, y = leaking()
    eraser = LinearEraser(6, 2)
    eraser.observe(h, y)
    for seen, flat in ((h, False), (eraser(h), True)):
        weight, bias = torch.zeros(6, 2, requires_grad=True), y.mean(0).logit()
        torch.nn.functional.binary_cross_entropy_with_logits(seen @ weight + bias, y).backward()
        assert (weight.grad.abs().max().item() < 1e-5) == flat


def test_as_little_as_possible_is_changed():
    """As many directions as attributes go; the mean and what is uncorrelated with y stay."""
    h, y = leaking()
    eraser = LinearEraser(6, 2)
    eraser.observe(h, y)
    erased = eraser(h)
    torch.testing.assert_close(erased.mean(0), h.mean(0), rtol=1e-4, atol=1e-4)
    assert torch.linalg.matrix_rank(eraser.projection, atol=1e-4) == 2
    torch.testing.assert_close(eraser(erased), erased, rtol=1e-3, atol=1e-3)


def test_running_moments_converge_to_those_of_the_data():
    h, y = leaking(n=2000)
    eraser = LinearEraser(6, 2, momentum=0.05)
    for _ in range(15):
        for part in torch.randperm(2000).split(200):
            eraser.observe(h[part], y[part])
    assert read_by_least_squares(h, y).min() > 0.3
    assert read_by_least_squares(eraser(h), y).max() < 0.01


def test_the_first_batch_counts_whole_whatever_the_momentum():
    h, y = leaking()
    eraser = LinearEraser(6, 2, momentum=0.01)
    eraser.observe(h, y)
    assert read_by_least_squares(eraser(h), y).max() < 1e-4


def test_a_dead_dimension_does_no_harm():
    h, y = leaking()
    h[:, 2] = 1.0
    eraser = LinearEraser(6, 2)
    eraser.observe(h, y)
    assert eraser(h).isfinite().all()
    assert read_by_least_squares(eraser(h)[:, [0, 1, 3, 4, 5]], y).max() < 1e-6


def test_fitting_forgets_what_was_observed_before():
    h, y = leaking()
    fresh, used = LinearEraser(6, 2), LinearEraser(6, 2)
    for _ in range(3):
        used.observe(*leaking())
    for eraser in (fresh, used):
        eraser.fit(h, y)
    assert torch.equal(used(h), fresh(h))
    assert read_by_least_squares(fresh(h), y).max() < 1e-6


def test_the_projection_is_computed_anew_at_every_8th_batch():
    eraser, changes = LinearEraser(6, 2), []
    for i in range(17):
        before = eraser.projection.clone()
        eraser.observe(*leaking(n=50))
        if not torch.equal(eraser.projection, before):
            changes.append(i)
    assert changes == [0, 8, 16]


def test_the_eraser_has_nothing_to_train():
    assert list(LinearEraser(6, 2).parameters()) == []


# -- q(z | x) ---------------------------------------------------------------------------------------------------------


def test_posterior_z_observes_in_training_and_only_where_y_is_told():
    head, features, y = PosteriorZ(5, 4, 2, erase=True), torch.randn(30, 5), torch.randint(2, (30, 2)).float()
    head.train()(features)
    head(features, y, observe=False)
    head.eval()(features, y)
    assert head.eraser.weight == 0
    head.train()(features, y)
    assert head.eraser.weight > 0
    assert read_by_least_squares(head(features, y).mean.detach(), y).max() < 1e-4


def test_the_code_is_the_mean_before_the_eraser():
    head, features = PosteriorZ(5, 4, 2, erase=True).eval(), torch.randn(30, 5)
    assert torch.equal(head.code(features), head(features).mean)
    head.eraser.observe(head.code(features).detach(), torch.randint(2, (30, 2)).float())
    assert torch.equal(head.eraser(head.code(features)), head(features).mean)


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


# -- the adversary ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_adversary_does_not_care_for_the_scale_of_z(depth):
    net, z = Adversary(4, 2, 8, depth).train(), torch.randn(200, 4)
    assert net(z).shape == (200, 2)
    torch.testing.assert_close(net(100 * z + 7), net(z), rtol=1e-3, atol=1e-3)
