"""What every registered backbone owes, and the registry."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from csvae_hub.backbones import Backbone, create_backbone, list_backbones, register_backbone, registry
from csvae_hub.backbones.image import ImageBackbone
from csvae_hub.config import BackboneConfig
from csvae_hub.errors import ConfigError

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
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 32, 32), (3, 64, 64), (3, 128, 128)])
@pytest.mark.parametrize("condition_dim", [6, 0])
def test_shapes(name, shape, condition_dim):
    x, features, decoded = run(build(name, shape, condition_dim))
    assert features.shape == (3, CONFIG.features)
    assert decoded.shape == x.shape


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_any_depth(name, depth):
    backbone = create_backbone(BackboneConfig(name=name, width=4, depth=depth, features=12), (3, 16, 16), 8, 2)
    assert run(backbone)[2].shape == (3, 3, 16, 16)


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("film", [False, True])
def test_gradients_reach_every_parameter(name, film):
    backbone = build(name, film=film)
    for parameter in backbone.parameters():  # what starts at zero would keep gradients from what lies before it
        nn.init.normal_(parameter, std=0.3)
    _, features, decoded = run(backbone)
    (features.square().sum() + decoded.square().sum()).backward()
    untrained = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untrained == []


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
@pytest.mark.parametrize("film", [False, True])
def test_z_and_the_condition_both_matter(name, film):
    backbone = build(name, film=film).eval()
    z, condition = torch.randn(2, 8), torch.randn(2, 6)
    same = backbone.decode(z, condition)
    assert not torch.equal(backbone.decode(z + 1, condition), same)
    assert not torch.equal(backbone.decode(z, condition + 1), same)


@pytest.mark.parametrize("name", list_backbones())
def test_examples_do_not_mix_in_eval_mode(name):
    backbone = build(name, film=True).eval()
    x, z, condition = torch.rand(4, 3, 16, 16), torch.randn(4, 8), torch.randn(4, 6)
    torch.testing.assert_close(backbone.encode(x)[1:2], backbone.encode(x[1:2]))
    torch.testing.assert_close(backbone.decode(z, condition)[1:2], backbone.decode(z[1:2], condition[1:2]))


@pytest.mark.parametrize("name", list_backbones())
def test_vectors_are_taken_or_refused_by_name(name):
    if issubclass(registry._BACKBONES[name], ImageBackbone):
        with pytest.raises(ConfigError, match=rf"shape: expected \(C, H, W\) for backbone '{name}', got \(5,\)"):
            build(name, (5,))
    else:
        assert run(build(name, (5,)))[2].shape == (3, 5)


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
