"""What every registered backbone owes, and the registry."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from csvae_hub.backbones import Backbone, create_backbone, list_backbones, register_backbone, registry
from csvae_hub.backbones.image import ImageBackbone
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.errors import ConfigError
from csvae_hub.models import create_model
from csvae_hub.testing import check_backbone

CONFIG = BackboneConfig(width=4, depth=2, features=12)


def build(name, shape=(3, 16, 16), condition_dim=6, film=False):
    torch.manual_seed(0)
    config = BackboneConfig(name=name, width=CONFIG.width, depth=CONFIG.depth, features=CONFIG.features, film=film)
    return create_backbone(config, shape, 8, condition_dim)


def run(backbone, batch=3):
    x = torch.rand(batch, *backbone.shape)
    z, condition = torch.randn(batch, backbone.z_dim), torch.randn(batch, backbone.condition_dim)
    return x, backbone.encode(x), backbone.decode(z, condition)


@pytest.mark.parametrize("name", list_backbones())
def test_every_backbone_passes_the_conformance_test(name):
    shapes = check_backbone(type(build(name)))
    assert [shape for shape in shapes if len(shape) == 3] == [(c, size, size) for size in (16, 32, 64) for c in (1, 3)]


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", "docs/backbones.md"])
def test_the_backbones_that_the_docs_show_pass_it_too(file, monkeypatch):
    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))
    text = (Path(__file__).resolve().parents[2] / file).read_text(encoding="utf-8")
    names = {"__name__": "example"}
    shown = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "(Backbone)" in block)
    exec(compile(shown, file, "exec"), names)
    classes = [thing for thing in names.values() if isinstance(thing, type) and thing.__module__ == "example"]
    (cls,) = (cls for cls in classes if issubclass(cls, Backbone))
    assert check_backbone(cls)


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("size", [128, 256])
def test_large_images(name, size):
    x, _, decoded = run(build(name, (3, size, size)), batch=2)
    assert decoded.shape == x.shape


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_any_depth(name, depth):
    backbone = create_backbone(BackboneConfig(name=name, width=4, depth=depth, features=12), (3, 16, 16), 8, 2)
    assert run(backbone)[2].shape == (3, 3, 16, 16)


@pytest.mark.parametrize("name", list_backbones())
def test_encoder_and_decoder_share_nothing(name):
    backbone, trained = build(name, film=True), []
    _, features, decoded = run(backbone)
    for output in (features, decoded):
        backbone.zero_grad()
        output.sum().backward()
        trained.append({n for n, p in backbone.named_parameters() if p.grad is not None})
    assert trained[0].isdisjoint(trained[1])


@pytest.mark.parametrize("name", list_backbones())
def test_vectors_are_taken_or_refused_by_name(name):
    if issubclass(registry._BACKBONES[name], ImageBackbone):
        with pytest.raises(ConfigError, match=rf"shape: expected \(C, H, W\) for backbone '{name}', got \(5,\)"):
            build(name, (5,))
    else:
        assert run(build(name, (5,)))[2].shape == (3, 5)


# -- a z with a grid --------------------------------------------------------------------------------------------------

IMAGE_BACKBONES = [name for name in list_backbones() if issubclass(registry._BACKBONES[name], ImageBackbone)]
GRIDS = [(size, side) for size in (16, 32, 64, 128) for side in (4, 8, 16, 32, 64) if side < size]


@pytest.mark.parametrize("name", IMAGE_BACKBONES)
@pytest.mark.parametrize(("size", "side"), GRIDS)
def test_with_a_grid_a_map_of_its_size_is_behind_the_features(name, size, side):
    backbone = create_backbone(replace(CONFIG, name=name, film=True), (3, size, size), 2 * side**2, 6, side)
    x, encoded, decoded = run(backbone)
    assert encoded.shape == (3, CONFIG.features + backbone.map_channels * side**2)
    assert backbone.map_channels > 0
    assert decoded.shape == x.shape
    (encoded.square().sum() + decoded.square().sum()).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", IMAGE_BACKBONES)
def test_a_place_of_z_is_a_place_of_the_picture(name):
    torch.manual_seed(0)
    backbone = create_backbone(replace(CONFIG, name=name, depth=1), (3, 64, 64), 2 * 16**2, 6, 16).eval()
    z, condition = torch.randn(1, 2, 16, 16), torch.randn(1, 6)
    other = z.clone()
    other[..., 0, 0] += 1
    changed = (backbone.decode(z.flatten(1), condition) != backbone.decode(other.flatten(1), condition)).any(1)[0]
    assert changed[:4, :4].any()
    assert not changed[32:].any()
    assert not changed[:, 32:].any()


def test_without_a_grid_a_backbone_is_what_it_was():
    plain, same = build("conv"), create_backbone(replace(CONFIG, name="conv"), (3, 16, 16), 8, 6, 1)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in same.state_dict().items()}
    assert run(plain)[1].shape == (3, CONFIG.features)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("name", ["mlp", "lines"])
def test_a_backbone_that_takes_no_grid_is_refused_by_name(name):
    register_backbone("lines")(Lines)
    with pytest.raises(ConfigError, match=rf"^z_grid: expected 1 for backbone '{name}', got 4$"):
        create_backbone(BackboneConfig(name=name, width=4, features=12), (3, 16, 16), 32, 2, 4)
    config = ModelConfig(("Hat",), shape=(3, 16, 16), z_dim=32, z_grid=4, backbone=BackboneConfig(name=name))
    with pytest.raises(ConfigError, match=rf"^z_grid: expected 1 for backbone '{name}', got 4$"):
        create_model(config)


# -- the registry -----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))


class Lines(Backbone):
    """The smallest backbone that there can be."""

    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        self.encoder = nn.Linear(shape[0], config.features)
        self.decoder = nn.Linear(z_dim + condition_dim, shape[0])

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z, condition):
        return self.decoder(torch.cat([z, condition], 1))


@pytest.mark.usefixtures("own_registry")
def test_a_registered_backbone_is_listed_and_created():
    assert register_backbone("lines")(Lines) is Lines
    assert list_backbones() == ["conv", "lines", "mlp", "resnet"]
    assert isinstance(build("lines", (5,)), Lines)


@pytest.mark.usefixtures("own_registry")
def test_a_taken_name_raises_and_leaves_the_registry_as_it_was():
    before = dict(registry._BACKBONES)
    with pytest.raises(ValueError, match="^backbone 'conv' is taken by ConvBackbone: choose another name$"):
        register_backbone("conv")(Lines)
    assert before == registry._BACKBONES


@pytest.mark.usefixtures("own_registry")
def test_what_is_no_backbone_is_refused():
    before = dict(registry._BACKBONES)
    with pytest.raises(ValueError, match="^backbone 'lines': expected a subclass of csvae_hub.backbones.Backbone, got"):
        register_backbone("lines")(nn.Linear)
    assert before == registry._BACKBONES


def test_a_mistyped_name_is_answered_with_the_right_one():
    with pytest.raises(ConfigError) as caught:
        build("resnt")
    assert str(caught.value) == "unknown backbone 'resnt': did you mean 'resnet'? Known: conv, mlp, resnet"
