"""Edits made in training, and the codes of all data."""

from __future__ import annotations

import pytest
import torch

from csvae_hub.models import list_models
from csvae_hub.training.parts._common import (
    all_codes,
    disturbance,
    follow_class_means,
    sampled_latents,
    switch_one_attribute,
)


def switched(step, donors=0.5):
    return switch_one_attribute(step.objective.model, sampled_latents(step), donors)


def a_step(objective, batch, n=24):
    return objective.generative_step(*batch(objective, n, missing=0.0))[1]


@pytest.mark.parametrize("kind", list_models())
def test_one_attribute_of_each_picture_is_switched(build, batch, kind):
    objective = build(kind)
    step = a_step(objective, batch)
    edited, y = switched(step), step.out.y
    different = edited.wished != y
    assert torch.equal(different, torch.nn.functional.one_hot(edited.which, 3).bool())
    assert set(edited.which.tolist()) == {0, 1, 2}
    if kind != "vae":
        assert torch.equal(edited.latents.z, step.out.z)
    if kind != "csvae":
        assert torch.equal(edited.latents.y, edited.wished)


@pytest.mark.parametrize("donors", [0.0, 1.0])
def test_an_edit_of_a_subspace_goes_to_the_class_s_mean_or_to_another_picture_s_point(build, batch, donors):
    objective = build()
    step = a_step(objective, batch)
    edited, out, means = switched(step, donors), step.out, objective.model.class_means
    for n, i in enumerate(edited.which.tolist()):
        others = [j for j in range(3) if j != i]
        assert torch.equal(edited.latents.w[n, others], out.w[n, others])
        wished = int(edited.wished[n, i])
        point = edited.latents.w[n, i]
        is_mean = torch.equal(point, means[i, wished])
        fitting = out.w[out.y[:, i] == wished, i]
        assert (is_mean, bool((fitting == point).all(1).any())) == (donors == 0, donors == 1)


def test_where_no_picture_is_of_the_wished_class_the_edit_goes_to_the_mean(build, batch):
    objective = build()
    x, _ = batch(objective)
    _, step = objective.generative_step(x, torch.ones(12, 3))
    edited = switched(step, 1.0)
    means = objective.model.class_means[edited.which, 0]
    assert torch.equal(edited.latents.w[torch.arange(12), edited.which], means)


def test_the_gradient_of_an_edit_reaches_the_encoder_by_what_was_kept(build, batch):
    objective = build()
    step = a_step(objective, batch)
    switched(step).latents.z.sum().backward()
    assert objective.model.q_z.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["csvae", "vae"])
def test_the_class_means_follow_the_posteriors(build, batch, kind):
    objective = build(kind)
    step = a_step(objective, batch)
    before = objective.model.class_means.clone()
    follow_class_means(step)
    points = step.out.q_w.mean if kind == "csvae" else step.out.q_z.mean[:, None].expand(-1, 3, -1)
    for value in (0, 1):
        member = (step.out.y == value)[..., None]
        mean = (points * member).sum(0) / member.sum(0)
        torch.testing.assert_close(objective.model.class_means[:, value], 0.99 * before[:, value] + 0.01 * mean)


def test_sampled_latents_are_those_of_the_step(build, batch):
    for kind in list_models():
        step = a_step(build(kind), batch)
        latents = sampled_latents(step)
        assert latents.z is step.out.z
        assert latents.w.shape == (24, 3, 2 if kind == "csvae" else 0)


def test_codes_are_of_all_examples_in_eval_mode_and_before_the_eraser(build, batch, state, changed):
    objective = build(erase=True)
    model, (x, y) = objective.model.train(), batch(objective, 30)
    model.q_z.eraser.fit(torch.randn(30, 8), y.nan_to_num())
    before = state(model)
    codes, attributes = all_codes(model, zip(x.split(20), y.split(20), strict=True))
    assert model.training
    assert changed(before, model) == set()
    model.eval()
    torch.testing.assert_close(codes, model.q_z.code(model.backbone.encode(x))[0])
    assert not torch.allclose(codes, model.encode(x, y).z)
    assert torch.equal(attributes, model.encode(x, y).y)


@pytest.mark.parametrize("kind", list_models())
@pytest.mark.parametrize("donors", [0.0, 1.0])
def test_in_a_group_another_member_takes_the_place(build, batch, kind, donors):
    objective = build(kind, exclusive=(("Smiling", "Young"),))
    x, y = batch(objective, 40, missing=0.0)
    y[:, 2] = 1 - y[:, 0]
    _, step = objective.generative_step(x, y)
    edited = switched(step, donors)
    before = y
    changed = edited.wished != before
    in_group = edited.which != 1
    assert set(edited.which.tolist()) == {0, 1, 2}
    assert torch.equal(
        changed, torch.where(in_group[:, None], torch.tensor([True, False, True]), ~changed.new_tensor([1, 0, 1]))
    )
    assert (edited.wished[:, 0] + edited.wished[:, 2] == 1).all()
    assert (edited.wished[in_group].gather(1, edited.which[in_group, None]) == 1).all()
    if kind != "csvae":
        return
    own, means = step.out.w, objective.model.class_means
    assert torch.equal(edited.latents.z, step.out.z)
    assert torch.equal(edited.latents.w[in_group, 1], own[in_group, 1])
    assert torch.equal(edited.latents.w[~in_group][:, [0, 2]], own[~in_group][:, [0, 2]])
    ended = 2 - edited.which[in_group]
    rows = torch.arange(int(in_group.sum()))
    assert torch.equal(edited.latents.w[in_group][rows, ended], means[ended, 0])


def test_a_disturbance_changes_each_picture_its_own_way_and_others_of_its_row_alike():
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 16, 16)
    pictures = picture.expand(64, -1, -1, -1).requires_grad_()
    change = disturbance(pictures)
    moved = change(pictures)
    assert moved.shape == pictures.shape
    assert torch.equal(moved, change(pictures))
    apart = (moved[:, None] - moved[None]).abs().flatten(2).amax(2)
    assert (apart + torch.eye(64) > 1e-3).all()
    assert 0.05 < (moved - pictures).abs().mean() < 0.4
    (gradient,) = torch.autograd.grad(moved.sum(), pictures)
    assert (gradient.abs().flatten(1).sum(1) > 0).all()


def test_some_of_the_disturbed_pictures_keep_their_finest_detail():
    torch.manual_seed(0)
    noise = torch.randn(200, 1, 16, 16) * 0.1 + 0.5
    change = disturbance(noise)
    detail = (change(noise) - torch.nn.functional.avg_pool2d(change(noise), 3, 1, 1))[..., 4:12, 4:12].flatten(1).std(1)
    own = (noise - torch.nn.functional.avg_pool2d(noise, 3, 1, 1))[..., 4:12, 4:12].flatten(1).std(1)
    kept = detail / own > 0.7
    assert 0.3 < kept.float().mean() < 0.9


@pytest.mark.parametrize("shape", [(5, 1, 48, 48), (1, 3, 20, 20)])
def test_a_disturbance_takes_pictures_of_any_kind(shape):
    assert disturbance(torch.rand(shape))(torch.rand(shape)).shape == shape
