"""Gradients through edits of tensors and latents, against finite differences; pictures have none."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import create_model, list_models

STEP = 1e-5
TOLD = [name for name in list_models() if name != "csvae"]


def model_in_float64(name="csvae", **changes):
    torch.manual_seed(0)
    backbone = BackboneConfig(width=4, features=8)
    fields = {"shape": (3, 16, 16), "z_dim": 8, "backbone": backbone, **changes}
    model = create_model(ModelConfig(("Smiling", "Hat"), name, **fields)).eval().double()
    for tensor in (*model.parameters(), *(model.buffers() if name in ("csvae", "vae") else ())):
        if tensor.is_floating_point():
            tensor.data.add_(0.05 * torch.rand_like(tensor))
    return model


def check(function, *given):
    """The gradient of a random projection along a random direction is the finite difference, for each input."""
    given = [tensor.detach().clone().requires_grad_() for tensor in given]
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(function(*given).shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad((function(*given) * weight).sum(), given)
    for i, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        ends = []
        for step in (STEP, -STEP):
            moved = [tensor.detach() for tensor in given]
            moved[i] = moved[i] + step * direction
            ends.append((function(*moved) * weight).sum())
        expected = (ends[0] - ends[1]) / (2 * STEP)
        assert expected.abs() > 1e-6
        torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=1e-9)


X = torch.linspace(0.1, 0.9, 2 * 3 * 16 * 16, dtype=torch.float64).reshape(2, 3, 16, 16)


@pytest.mark.parametrize("value", [True, 0.3])
@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 20, 24), (3, 18, 16)])
@pytest.mark.parametrize("name", list_models())
def test_an_edit_of_tensors_has_the_full_gradient(name, shape, value):
    model = model_in_float64(name)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.8 + 0.1
    check(lambda x: model.set_attribute(x, "Hat", value), x)
    check(lambda x: model.set_attribute([x, x.detach()], "Hat", value)[0], x)


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"flow": 8}, {"erase": True}, {"correction": True}])
def test_encoding_editing_and_decoding_in_steps_has_the_gradient_of_all_at_once(options):
    model = model_in_float64(**options)
    check(lambda x: model.decode(model.set_attribute(model.encode(x), "Hat", 0.3)), X)
    check(lambda x: model.set_attribute(model.encode(x), "Hat", 0.3).z, X)
    x = X.clone().requires_grad_()
    at_once = torch.autograd.grad(model.edit(x, {"Hat": 0.3}).sum(), x)[0]
    in_steps = torch.autograd.grad(model.decode(model.edit(model.encode(x), {"Hat": 0.3})).sum(), x)[0]
    torch.testing.assert_close(at_once, in_steps)


def test_coordinates_have_a_gradient():
    model = model_in_float64()
    latents = model.encode(X)
    for point in (torch.tensor([0.5, -1.0]).double(), torch.tensor([[0.5, -1.0], [2.0, 0.1]]).double()):
        check(lambda point: model.set_attribute(X, "Hat", point), point)
        check(lambda point: model.decode(model.set_attribute(latents, "Hat", point)), point)
    one, other = torch.tensor([0.5, -1.0], dtype=torch.float64).unbind()
    check(lambda one, other: model.set_attribute(X, "Hat", [one, other]), one, other)
    check(lambda x, point: model.edit(x, {"Smiling": 0.2, "Hat": point}), X, torch.tensor([0.5, -1.0]).double())


@pytest.mark.parametrize("name", list_models())
def test_a_number_given_as_a_tensor_has_a_gradient(name):
    model = model_in_float64(name)
    check(lambda level: model.set_attribute(X, "Hat", level), torch.tensor(0.4, dtype=torch.float64))


def test_what_is_taken_over_has_a_gradient():
    model = model_in_float64()
    other = X.flip(-1).contiguous()
    check(lambda other: model.set_attribute(X, "Hat", other), other)
    check(lambda other: model.set_attribute(X, "Hat", model.encode(other)), other)


def test_reconstructions_and_predictions_have_a_gradient():
    model = model_in_float64()
    check(model.reconstruct, X)
    check(lambda x: model.predict_attributes(x)["Hat"], X)


def test_a_model_in_training_gives_the_same_gradient_and_stays_as_it_was():
    model = model_in_float64()
    x = X.clone().requires_grad_()
    expected = torch.autograd.grad(model.edit(x, {"Hat": True}).sum(), x)[0]
    training = deepcopy(model).train()
    before = {key: value.clone() for key, value in training.state_dict().items()}
    torch.testing.assert_close(torch.autograd.grad(training.edit(x, {"Hat": True}).sum(), x)[0], expected)
    assert all(torch.equal(value, before[key]) for key, value in training.state_dict().items())


def test_pictures_have_none_and_nothing_is_traced_where_nothing_asks_for_it(monkeypatch):
    model = model_in_float64()
    traced = []
    decode = type(model).decode
    monkeypatch.setattr(
        type(model), "decode", lambda self, *given: traced.append(torch.is_grad_enabled()) or decode(self, *given)
    )
    point = torch.tensor([0.5, -1.0], requires_grad=True)
    array = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    model.set_attribute(array, "Hat", point)
    model.set_attribute([Image.fromarray(array)], "Hat", point)
    model.set_attribute(X, "Hat", point.detach())
    with torch.no_grad():
        model.set_attribute(X.clone().requires_grad_(), "Hat", point)
    assert traced == [False] * 4
    assert model.set_attribute(X, "Hat", point).requires_grad
