"""Exported graphs compute what the model does, in batches of any size."""

from __future__ import annotations

from functools import cache

import onnxruntime
import pytest
import torch

from csvae_hub.export import formats, graphs, parity
from csvae_hub.models import AttributeModel, list_models

SIZE = 16
KINDS = ("every option, grey, a group", "z with places", "with a flow", "vae", "cond-vae", "cond-vae-info")
BESIDE = {"csvae": ["w"], "vae": []}
"""The decoder's inputs beside z, by the name of the model; y where it has none here."""


@pytest.fixture(scope="module", params=KINDS)
def both(request, exported):
    """A model of each kind, and a function that runs a graph of its export in the runtime of its format."""
    export = exported(request.param)

    def by_onnx(name, *given):
        session = onnxruntime.InferenceSession(export.folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        names = [its.name for its in session.get_inputs()]
        outputs = session.run(None, dict(zip(names, (one.numpy() for one in given), strict=True)))
        return [torch.from_numpy(one) for one in outputs]

    @cache
    def program(name):
        return torch.export.load(export.folder / f"{name}.pt2").module()

    def by_torch(name, *given):
        outputs = program(name)(*given)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    with torch.no_grad():
        yield export.model, by_onnx if (export.folder / "edit.onnx").is_file() else by_torch


def pictures(model, batch):
    return torch.rand(batch, *model.config.shape, generator=torch.Generator().manual_seed(batch))


def encoded(model, x):
    return model.posterior_latents(model.backbone.encode(x), None, False, None)


def close(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_encoder_and_decoder_are_the_model_s(both, batch):
    model, run = both
    x = pictures(model, batch)
    code = encoded(model, x)
    wanted = [code.z, *([code.w] if model.name == "csvae" else []), code.y, model.posterior_y(x).mean]
    for got, its in zip(run("encoder", x), wanted, strict=True):
        close(got, its)
    (decoded,) = run("decoder", code.z, *(getattr(code, name) for name in BESIDE.get(model.name, ["y"])))
    close(decoded, model.decode(code))


@pytest.mark.parametrize("batch", [1, 3])
def test_an_edit_by_numbers_is_the_model_s(both, batch):
    model, run = both
    x = pictures(model, batch)
    values = torch.full((batch, 4), torch.nan)
    values[:, 0], values[:, 2] = 0.7, -1.5
    (edited,) = run("edit", x, values)
    close(edited, model.decode(model.edit(encoded(model, x), {"Happy": 0.7, "Hat": -1.5})))


def test_rows_have_values_of_their_own(both):
    model, run = both
    x = pictures(model, 3)
    values = torch.tensor([[0.5, torch.nan, torch.nan, 2.0], [torch.nan] * 4, [1.0] * 4])
    (together,), (reconstructed,) = run("edit", x, values), run("edit", x, torch.full((3, 4), torch.nan))
    for i in range(3):
        close(together[i : i + 1], run("edit", x[i : i + 1], values[i : i + 1])[0])
    assert torch.equal(together[1], reconstructed[1])
    assert (together - reconstructed).abs().amax((1, 2, 3)).gt(1e-4).tolist() == [True, False, True]


def test_nan_leaves_an_attribute_as_it_is_to_the_bit(both):
    model, run = both
    x, nothing = pictures(model, 3), torch.full((3, 4), torch.nan)
    code = encoded(model, x)
    assert torch.equal(graphs.Edit(model)(x, nothing), model.decode(code))
    moved = graphs.KINDS[model.name].moved(model, code, torch.tensor([[torch.nan, 0.3, torch.nan, torch.nan]]))
    assert torch.equal(moved.w[:, [0, 2, 3]], code.w[:, [0, 2, 3]])
    assert torch.equal(moved.y[:, [0, 2, 3]], code.y[:, [0, 2, 3]])
    names = ["z", *(["w"] if model.name == "csvae" else []), "y", "probabilities"]
    got = dict(zip(names, run("encoder", x), strict=True))
    (decoded,) = run("decoder", got["z"], *(got[name] for name in BESIDE.get(model.name, ["y"])))
    torch.testing.assert_close(run("edit", x, nothing)[0], decoded, rtol=0, atol=1e-6)


def test_a_number_is_the_point_of_set_attribute_to_the_bit(build):
    model = build("z with places")
    with torch.no_grad():
        x = pictures(model, 2)
        values = torch.tensor([[torch.nan, torch.nan, 0.3, torch.nan]] * 2)
        moved = graphs.in_subspaces(model, encoded(model, x), values)
        assert torch.equal(moved.w, model.set_attribute(encoded(model, x), "Hat", 0.3).w)


@pytest.mark.parametrize("name", ["celeba-64", "celeba-128"])
def test_the_edit_of_packaged_weights_is_the_model_s(name):
    model = AttributeModel.from_pretrained(name, device="cpu")
    module, graph = graphs.graphs_of(model)["edit"]
    with torch.no_grad():
        inputs = [(batch["x"], batch["values"]) for batch in parity.examples(model)]
        content = formats.write_onnx(module.eval(), inputs[0], graph, {})
        assert parity.difference("edit", module, formats.read_onnx(content, graph), inputs) < 1e-4


def test_every_model_of_the_family_is_exported(build):
    assert set(graphs.KINDS) == set(list_models()) == {build(kind).name for kind in KINDS}
