"""What METHOD's table says of the siblings: what each is told, and how each changes an attribute."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.errors import ConfigError
from csvae_hub.models import CSVAE, VAE, AttributeModel, CondVAE, CondVAEInfo, create_model, list_models

SIBLINGS = {"vae": VAE, "cond-vae": CondVAE, "cond-vae-info": CondVAEInfo}
TOLD = ["cond-vae", "cond-vae-info"]


PICTURES = {"shape": (3, 16, 16), "z_dim": 8, "backbone": BackboneConfig(width=4, features=16, film=True)}
KINDS = {
    "pictures": PICTURES,
    "z with places": {**PICTURES, "z_grid": 4, "z_dim": 32},
    "vectors": {"shape": (5,), "z_dim": 8, "backbone": BackboneConfig(name="mlp", width=8, features=16)},
}


def make(name, kind="pictures", seed=0):
    torch.manual_seed(seed)
    config = ModelConfig(attributes=("Smiling", "Hat", "Young"), model=name, adversary=(8,), **KINDS[kind])
    model = create_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, y = torch.rand(40, *config.shape), torch.randint(2, (40, 3)).float()
    model.train()(x, y)
    model.finalize([(x, y)])
    return model.eval()


@pytest.fixture(params=[(name, kind) for name in SIBLINGS for kind in KINDS], ids=str)
def model(request):
    return make(*request.param)


def some(model, n=4):
    return torch.rand(n, *model.config.shape)


def test_no_model_inherits_from_a_sibling():
    for one, other in permutations([CSVAE, *SIBLINGS.values()], 2):
        assert not issubclass(one, other)
    assert list_models() == sorted(["csvae", *SIBLINGS])


def test_the_latents_have_no_subspaces(model):
    latents = model.encode(some(model))
    assert latents.z.shape == (4, model.config.z_dim)
    assert latents.w.shape == (4, 3, 0)
    assert set(latents.y.unique().tolist()) <= {0.0, 1.0}


def test_a_generator_makes_a_pass_the_same_again(model):
    x, y = some(model), torch.full((4, 3), torch.nan)
    first, second = (model(x, y, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.p_x.mean, second.p_x.mean)
    assert not first.y.isnan().any()
    assert {name: term.shape for name, term in model.bound(first, x).items()} == {"reconstruction": (4,), "kl_z": (4,)}


@pytest.mark.parametrize("name", SIBLINGS)
@pytest.mark.parametrize("kind", ["pictures", "z with places"])
def test_saved_and_loaded_models_give_the_same_pixels_to_the_bit(name, kind, tmp_path):
    model = make(name, kind)
    model.save_pretrained(tmp_path / "model")
    x = some(model)
    for loader in (SIBLINGS[name], AttributeModel):
        loaded = loader.from_pretrained(tmp_path / "model", device="cpu")
        assert type(loaded) is SIBLINGS[name]
        assert torch.equal(loaded.set_attribute(x, "Hat", True), model.set_attribute(x, "Hat", True))
    with pytest.raises(ConfigError, match=f"model: expected csvae, got {name!r}"):
        CSVAE.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("kind", ["pictures", "z with places"])
def test_what_the_encoder_is_told(kind):
    x, absent, present = torch.rand(4, 3, 16, 16), torch.zeros(4, 3), torch.ones(4, 3)
    for name in SIBLINGS:
        model = make(name, kind)
        same = torch.equal(model.encode(x, absent).z, model.encode(x, present).z)
        assert same == (name != "cond-vae")


def test_what_the_decoder_is_told():
    z, absent, present = torch.randn(4, 8), torch.zeros(4, 3), torch.ones(4, 3)
    vae = make("vae")
    assert vae.decode(z).shape == (4, 3, 16, 16)
    for name in TOLD:
        model = make(name)
        assert not torch.equal(model.decode(z, y=absent), model.decode(z, y=present))
        with pytest.raises(ValueError, match=r"decode\(z\) needs y of shape \(B, k\) beside it: decode\(z, y=y\)"):
            model.decode(z)


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("kind", ["pictures", "z with places"])
@pytest.mark.parametrize(("value", "y"), [(True, 1.0), (False, 0.0), (0.3, 0.3), (1.5, 1.5), ("sample", 1.0)])
def test_a_told_model_changes_y_and_nothing_else(name, kind, value, y):
    model = make(name, kind)
    latents = model.encode(some(model))
    edited = model.set_attribute(latents, "Hat", value)
    assert torch.equal(edited.z, latents.z)
    assert edited.y[:, 1].tolist() == pytest.approx([y] * 4)
    assert torch.equal(edited.y[:, [0, 2]], latents.y[:, [0, 2]])
    torch.testing.assert_close(model.decode(edited), model.decode(latents.z, y=edited.y))


def test_a_vae_moves_z_by_the_difference_of_the_class_means():
    model, x, y = make("vae"), torch.rand(60, 3, 16, 16), torch.randint(2, (60, 3)).float()
    model.finalize(zip(x.split(25), y.split(25), strict=True))
    z = model.encode(x).z
    vector = z[y[:, 1] == 1].mean(0) - z[y[:, 1] == 0].mean(0)
    latents = model.encode(x[:4], torch.zeros(4, 3))
    edited = model.set_attribute(latents, "Hat", True)
    torch.testing.assert_close(edited.z - latents.z, vector.expand(4, -1), atol=1e-4, rtol=1e-4)
    assert edited.y[:, 1].tolist() == [1.0] * 4
    again = model.set_attribute(edited, "Hat", True)
    assert torch.equal(again.z, edited.z)
    back = model.set_attribute(edited, "Hat", False)
    torch.testing.assert_close(back.z, latents.z)
    half = model.set_attribute(latents, "Hat", 0.5)
    torch.testing.assert_close(half.z - latents.z, 0.5 * (edited.z - latents.z))


def test_an_image_or_latents_give_their_own_attribute(model):
    latents = model.encode(some(model), torch.tensor([[0.0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]))
    taken = model.set_attribute(latents, "Hat", latents[2])
    assert taken.y[:, 1].tolist() == [1.0] * 4
    with pytest.raises(ValueError, match="expected the latents of one image or of as many as are edited, got 2"):
        model.set_attribute(latents, "Hat", latents[1:3])


@pytest.mark.parametrize("value", [[1.0, 2.0], [], float("nan"), None])
def test_what_is_no_value_is_refused(model, value):
    with pytest.raises(ValueError, match=r"value for 'Hat': expected (a number, since|finite numbers|True, False, a)"):
        model.set_attribute(model.encode(some(model)), "Hat", value)


@pytest.mark.parametrize("name", TOLD)
def test_told_models_sample_by_attributes(name):
    model, generator = make(name), torch.Generator
    y = torch.tensor([1.0, 0, 1])
    one, again = (model.sample(3, y, generator=generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, model.sample(3, 1 - y, generator=generator().manual_seed(1)))
    assert model.sample(2).shape == (2, 3, 16, 16)


def test_a_vae_samples_but_cannot_be_told():
    model = make("vae")
    assert model.sample(2).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="a VAE can't be told attributes: sample"):
        model.sample(2, torch.ones(3))


def test_only_two_of_the_family_have_an_adversary():
    for name in list_models():
        model = make(name)
        if name in ("csvae", "cond-vae-info"):
            assert model.adversary(torch.randn(4, 8)).mean.shape == (4, 3)
        else:
            with pytest.raises(ValueError, match=f"{name} has no adversary"):
                model.adversary(torch.randn(4, 8))
