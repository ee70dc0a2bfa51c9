"""The eraser leaves nothing for a linear probe, and the flow nothing for any; both change as little as they can."""

from __future__ import annotations

import pytest
import torch

from csvae_hub.erasure import ConditionalFlow, Couplings, FittedEraser, LinearEraser
from csvae_hub.evaluation.leakage import mlp_probe, whitened
from csvae_hub.evaluation.metrics import roc_auc


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


def test_numbers_of_hardly_any_variance_are_not_erased_with_many_times_their_size():
    h, y = leaking(n=2000)
    faint = torch.cat([h, 1e-3 * (torch.randn(2000, 6) + 20 * y.repeat(1, 3))], 1)
    eraser = LinearEraser(12, 2)
    eraser.observe(faint, y)
    assert read_by_least_squares(eraser(faint), y).max() < 1e-4
    assert torch.linalg.matrix_norm(eraser.projection, 2) < 3


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


def test_the_fitted_eraser_is_the_identity_and_then_that_of_the_running_moments():
    h, y = leaking()
    fitted, running = FittedEraser(6, 2), LinearEraser(6, 2)
    assert torch.equal(fitted(h), h)
    fitted.fit(h, y)
    running.fit(h, y)
    torch.testing.assert_close(fitted(h), running(h), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fitted(fitted(h)), fitted(h), rtol=1e-4, atol=1e-4)
    assert not list(fitted.parameters())


def test_in_half_precision_the_fitted_eraser_leaves_no_direction_that_a_probe_finds():
    h, y = leaking(2000, 40)
    fitted = FittedEraser(40, 2)
    fitted.fit(h, y)
    for name, buffer in fitted.state_dict().items():
        fitted.get_buffer(name).copy_(buffer.half().float())
    codes = whitened([fitted(h)[None]])[0][0]
    assert read_by_least_squares(h, y).min() > 0.3
    assert read_by_least_squares(codes, y).max() < 0.01
    left, before = (((x - fitted.mean_h) @ fitted.there.T).std(0) for x in (fitted(h), h))
    assert (left < 1e-5 * before).all()  # once would leave a hundred times as much


def test_fitting_to_fewer_numbers_than_attributes_takes_everything():
    h, y = torch.randn(50, 1), (torch.rand(50, 2) < 0.5).float()
    fitted = FittedEraser(1, 2)
    fitted.fit(h + y[:, :1], y)
    assert fitted(h).var() < 1e-9


def test_the_eraser_has_nothing_to_train():
    assert list(LinearEraser(6, 2).parameters()) == []


# -- the flow ---------------------------------------------------------------------------------------------------------


def codes(n, seed=0, dim=4):
    """Codes that say y by their mean, by a scale and by a bend, and y (N, 2)."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n, 2), generator=g).float()
    h = torch.randn(n, dim, generator=g)
    h[:, 0] += 2 * y[:, 0]
    h[:, 1] *= 1 + 2 * y[:, 0]
    h[:, 2] += 2 * y[:, 1] * h[:, 3].square()
    return h, y


def auc(parts):
    """ROC AUC of an MLP probe for each attribute."""
    z = whitened([h[None] for h, _ in parts])
    y = [labels.numpy() for _, labels in parts]
    scores = mlp_probe(z[0], y[0], z[1], y[1], z[2])
    return [roc_auc(scores[0, :, i], y[2][:, i]) for i in range(2)]


@pytest.mark.parametrize("dim", [2, 3, 5, 12])
@pytest.mark.parametrize("attributes", [0, 3])
def test_the_log_determinant_is_that_of_the_jacobian(dim, attributes):
    torch.manual_seed(0)
    couplings = Couplings(dim, attributes, 16).double()
    for parameter in couplings.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, dim, dtype=torch.float64)
    y = torch.randn(3, attributes, dtype=torch.float64) if attributes else None
    _, log_det = couplings(x, y)
    for i in range(3):
        told = None if y is None else y[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda a, told=told: couplings(a[None], told)[0][0], x[i])
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(jacobian).logabsdet)
        assert log_det[i].abs() > 1e-3
        assert ((jacobian.abs() > 0).sum() > dim).item()  # the numbers speak to one another


def test_a_flow_is_built_without_memory_as_with_it():
    with torch.device("meta"):
        flow = ConditionalFlow(6, 3, 16)
    assert all(tensor.is_meta for tensor in [*flow.parameters(), *flow.buffers()])
    whole = dict(ConditionalFlow(6, 3, 16).named_buffers())
    assert {name: tensor.shape for name, tensor in flow.named_buffers()} == {n: t.shape for n, t in whole.items()}
    layers = range(len(flow.couplings.nets))
    assert all(
        sorted(torch.cat([whole[f"couplings.{part}_{layer}"] for part in ("told", "moved")]).tolist()) == [*range(6)]
        for layer in layers
    )


def test_couplings_told_of_y_are_the_identity_at_zero():
    couplings = Couplings(5, 3, 16)
    for parameter in couplings.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(7, 5)
    moved, log_det = couplings(x, torch.zeros(7, 3))
    assert torch.equal(moved, x)
    assert not log_det.any()
    assert not torch.equal(couplings(x, torch.ones(7, 3))[0], x)


def test_a_flow_is_the_identity_until_it_is_fitted_and_nothing_of_it_is_trained_by_others():
    h, y = codes(20)
    flow = ConditionalFlow(4, 2, 16)
    assert torch.equal(flow(h, y), h)
    assert not any(parameter.requires_grad for parameter in flow.parameters())


def test_a_fitted_flow_hides_y_and_keeps_what_is_not_of_y():
    parts = [codes(n, seed) for seed, n in enumerate((4000, 1000, 2000))]
    assert min(auc(parts)) > 0.8
    flow = ConditionalFlow(4, 2, 64)
    h, y = parts[0]
    before = torch.get_rng_state()
    flow.fit(h, y, steps=800)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(parameter.requires_grad for parameter in flow.parameters())
    z = [(flow(h, y), y) for h, y in parts]
    assert max(auc(z)) < 0.58
    h, y = codes(2000, 9)
    kept = torch.corrcoef(torch.stack([flow(h, y)[:, 3], h[:, 3]]))[0, 1]
    assert kept > 0.9


def test_fitting_is_repeatable_and_the_likelihood_grows():
    h, y = codes(1000)
    first, second = ConditionalFlow(4, 2, 16), ConditionalFlow(4, 2, 16)
    second.load_state_dict(first.state_dict())
    short = first.fit(h, y, steps=60)
    assert short == second.fit(h, y, steps=60)
    assert torch.equal(first(h, y), second(h, y))
    assert second.fit(h, y, steps=300) < short


def test_correlated_codes_and_a_dead_direction_stay_finite():
    h, y = codes(500)
    h = torch.cat([h, h[:, :1] * 3, torch.full((500, 1), 7.0)], 1)
    flow = ConditionalFlow(6, 2, 16)
    flow.fit(h, y, steps=50)
    z = flow(h, y)
    assert z.isfinite().all()
    torch.testing.assert_close(z[:, 5], h[:, 5], atol=1e-3, rtol=0)


def test_the_log_determinant_of_a_flow_counts_the_scales_by_y():
    flow = ConditionalFlow(4, 2, 16)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    h, y = torch.randn(1, 4), torch.tensor([[1.0, 0.0]])
    jacobian = torch.autograd.functional.jacobian(lambda a: flow.changed(a[None], y)[0][0], h[0])
    torch.testing.assert_close(flow.changed(h, y)[1][0], torch.linalg.slogdet(jacobian).logabsdet, atol=1e-4, rtol=1e-4)
