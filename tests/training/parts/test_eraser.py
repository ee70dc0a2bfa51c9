"""The eraser in training: its moments follow the batches, and all data at the end."""

from __future__ import annotations

import pytest
import torch

from csvae_hub.errors import ConfigError


def correlation(z, y):
    """The largest covariance of a dimension with an attribute."""
    return ((z - z.mean(0)).T @ (y - y.mean(0)) / len(y)).abs().max()


def test_a_step_takes_the_batch_into_the_moments(build, batch, state, changed):
    objective = build(parts={"eraser": {}}, erase=True)
    eraser = objective.model.q_z.eraser
    for _ in range(2):
        before, (x, y) = state(eraser), batch(objective, 40, missing=0.0)
        loss, step = objective.generative_step(x, y)
        assert {"mean_h", "mean_y", "second_hh", "cross_hy", "weight", "batches"} <= changed(before, eraser)
        loss.backward()  # the projection that it was built with is still there
    assert eraser.batches == 2
    code = objective.model.q_z.code(step.out.features)[0]
    torch.testing.assert_close(eraser.mean_h, eraser.momentum * code.mean(0) + (1 - eraser.momentum) * before["mean_h"])


def test_no_linear_probe_reads_y_after_one_batch(build, batch):
    objective = build(parts={"eraser": {}}, erase=True)
    x, y = batch(objective, 60, missing=0.0)
    _, step = objective.generative_step(x, y)
    q_z = objective.model.q_z
    assert correlation(q_z.code(step.out.features)[0], y) > 1e-2
    assert correlation(q_z(step.out.features).mean, y) < 1e-4


def test_missing_attributes_are_those_that_the_model_reads(build, batch):
    objective = build(parts={"eraser": {}}, erase=True)
    _, step = objective.generative_step(*batch(objective, missing=1.1))
    eraser = objective.model.q_z.eraser
    torch.testing.assert_close(eraser.mean_y / eraser.weight, (step.out.q_y.mean > 0.5).float().mean(0))


def test_what_is_removed_costs_as_kl_would(build, batch, trained):
    objective = build(parts={"eraser": {}}, erase=True)
    objective.generative_step(*batch(objective, 40))
    projection = objective.model.q_z.eraser.projection.clone()
    loss, step = objective.generative_step(*batch(objective, 40))
    q_z = objective.model.q_z
    code = q_z.code(step.out.features)[0]
    assert torch.equal(q_z.eraser.projection, projection)  # renewed at every 8th batch
    torch.testing.assert_close(step.terms["removed"], 0.5 * (code - step.out.q_z.mean).square().sum(1))
    others = sum(term.mean() for name, term in step.terms.items() if name != "removed")
    torch.testing.assert_close(loss, others + step.terms["removed"].mean())
    step.terms["removed"].sum().backward()
    assert {"model.q_z.head.weight"} <= trained(objective)


def test_after_the_fit_a_batch_hardly_moves_the_moments(build, batch):
    objective = build(parts={"eraser": {}}, erase=True)
    model = objective.model.eval()
    (fit,) = objective.at_end
    fit(model, [batch(objective, 60, missing=0.0)])
    eraser = model.q_z.eraser
    assert eraser.weight == 1
    before = eraser.mean_h.clone()
    objective.generative_step(*batch(objective, 40))
    assert (eraser.mean_h - before).norm() < 0.02 * before.norm()


def test_at_the_end_it_is_fitted_to_all_data(build, batch, state, changed):
    objective = build(parts={"eraser": {}}, erase=True)
    model, (x, y) = objective.model.eval(), batch(objective, 60, missing=0.1)
    before = state(model)
    (fit,) = objective.at_end
    fit(model, zip(x.split(25), y.split(25), strict=True))
    assert {name.rpartition(".")[0] for name in changed(before, model)} == {"q_z.eraser"}
    filled = torch.where(y.isnan(), model.encode(x).y, y)
    assert correlation(model.encode(x).z, filled) < 1e-4
    once = model.q_z.eraser.projection.clone()
    fit(model, [(x, filled)])
    torch.testing.assert_close(model.q_z.eraser.projection, once)


def test_it_rests_with_the_encoder(build, batch, state, changed):
    objective = build(parts={"eraser": {}, "rest": {}}, erase=True)
    objective.generative_step(*batch(objective))
    objective.begin_rest(None)
    before = state(objective.model.q_z)
    objective.generative_step(*batch(objective))
    assert changed(before, objective.model.q_z) == set()


def test_it_needs_a_model_that_erases(build):
    with pytest.raises(ConfigError, match=r"^model\.erase: expected true with \[parts\.eraser\], got False$"):
        build(parts={"eraser": {}})


def test_with_a_grid_it_is_fitted_where_the_encoder_comes_to_rest(build, batch, state, changed):
    objective = build(parts={"eraser": {}, "rest": {}}, erase=True, z_grid=4, z_dim=32)
    model, (x, y) = objective.model, batch(objective, 80, missing=0.0)
    before = state(model.q_z)
    _, step = objective.generative_step(x, y)
    assert "removed" not in step.terms
    assert changed(before, model.q_z) == set()

    model.eval()
    assert correlation(model.encode(x).z, y) > 1e-2
    objective.begin_rest([(x, y)])
    assert {name.rpartition(".")[0] for name in changed(before, model.q_z)} == {"eraser"}
    assert correlation(model.encode(x).z, y) < 1e-4
    before = state(model.q_z)
    objective.generative_step(x, y)
    (fit,) = objective.at_end
    fit(model.eval(), [(x, y)])
    assert all((model.q_z.state_dict()[name] - value).abs().max() < 1e-4 for name, value in before.items())
