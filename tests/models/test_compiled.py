"""torch.compile and torch.export of tensors in, tensors or latents out."""

from __future__ import annotations

import logging
from itertools import product

import pytest
import torch
from torch import nn

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import Latents, create_model, list_models

pytestmark = pytest.mark.skipif(torch.__version__ < "2.14", reason="2.10 makes no one graph of these calls")

CALLS = {
    "encode": lambda model, x: model.encode(x),
    "edit": lambda model, x: model.set_attribute(x, "Hat", True),
    "edit by a number": lambda model, x: model.edit(x, {"Hat": 0.3, "Smiling": False}),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "predict": lambda model, x: list(model.predict_attributes(x).values()),
    "in steps": lambda model, x: model.decode(model.set_attribute(model.encode(x), "Hat", 1.5)),
}
OTHERS = [name for name in list_models() if name != "csvae"]
SHAPES = [(2, 3, 16, 16), (2, 1, 20, 24)]


class Call(nn.Module):
    """A call on a model as a module, for torch.export."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *given):
        return self.call(self.model, *given)


def made(name, **changes):
    torch.manual_seed(0)
    fields = {"shape": (3, 16, 16), "z_dim": 8, "backbone": BackboneConfig(width=4, features=8), **changes}
    return create_model(ModelConfig(("Smiling", "Hat"), name, **fields)).eval()


def parts(given):
    return [given.z, given.w, given.y] if isinstance(given, Latents) else given


def check_compiled(call, model, *given):
    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend="eager")
    torch.testing.assert_close(parts(compiled(model, *given)), parts(call(model, *given)))


def check_exported(call, model, x, *given):
    shapes = ({0: torch.export.Dim("batch")}, *[None] * len(given))
    program = torch.export.export(Call(model, call), (x, *given), dynamic_shapes=(shapes,)).module()
    for batch in (x, torch.cat([x, x.flip(-1)])):
        torch.testing.assert_close(parts(program(batch, *given)), parts(call(model, batch, *given)))


@pytest.mark.parametrize(("name", "call"), [*product(["csvae"], CALLS), *product(OTHERS, ["edit by a number"])])
def test_every_call_is_one_graph(name, call):
    model = made(name)
    check_compiled(CALLS[call], model, torch.rand(SHAPES[0]))
    check_exported(CALLS[call], model, torch.rand(SHAPES[0]))


@pytest.mark.parametrize(
    "options", [{"residual": True, "erase": True, "correction": True}, {"flow": 8}, {"z_grid": 4, "z_dim": 32}]
)
def test_every_option_and_size_is_one_graph(options):
    model = made("csvae", **options)
    check_compiled(CALLS["edit"], model, torch.rand(SHAPES[0]))
    check_exported(CALLS["edit"], model, torch.rand(SHAPES[1]))


@pytest.mark.parametrize(
    "point", [torch.tensor([0.5, -1.0]), torch.tensor(0.3), torch.tensor(True)], ids=["coordinates", "number", "bool"]
)
def test_a_value_can_be_an_input_of_the_graph(point):
    def call(model, x, point):
        return model.set_attribute(x, "Hat", point)

    check_compiled(call, made("csvae"), torch.rand(SHAPES[0]), point)
    check_exported(call, made("csvae"), torch.rand(SHAPES[0]), point)


@pytest.fixture
def no_logs():
    """torch's loader logs a line that its own format does not fit."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("no_logs")
def test_latents_go_in_and_come_out_and_are_saved(tmp_path):
    model = made("csvae")
    x = torch.rand(SHAPES[0])
    with torch.no_grad():
        latents = model.encode(x)
    for name, call, given in (("encode", lambda m, x: m.encode(x), x), ("decode", lambda m, w: m.decode(w), latents)):
        torch.export.save(torch.export.export(Call(model, call), (given,)), tmp_path / f"{name}.pt2")
    encode, decode = (torch.export.load(tmp_path / f"{name}.pt2").module() for name in ("encode", "decode"))
    assert encode(x).attributes == ("Smiling", "Hat")
    torch.testing.assert_close(decode(encode(x)), model.reconstruct(x))


def test_the_gradient_is_that_without_compiling():
    model = made("csvae")
    x = torch.rand(SHAPES[0], requires_grad=True)
    torch.compiler.reset()
    compiled = torch.compile(CALLS["edit"], fullgraph=True, backend="aot_eager")
    gradients = [torch.autograd.grad(call(model, x).sum(), x)[0] for call in (compiled, CALLS["edit"])]
    torch.testing.assert_close(*gradients)


def test_values_are_checked_where_nothing_is_compiled():
    with pytest.raises(ValueError, match="rescale with"):
        made("csvae").encode(2 * torch.rand(SHAPES[0]) - 1)
    with pytest.raises(ValueError, match="finite"):
        made("csvae").set_attribute(torch.rand(SHAPES[0]), "Hat", torch.tensor([float("nan"), 0.0]))
