from __future__ import annotations

import numpy as np
import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import swiss_roll
from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation import bound
from csvae_hub.models import create_model, list_models


@pytest.mark.parametrize("name", list_models())
def test_it_is_the_models_own_bound_and_its_sum(make_member, make_halves, name):
    model, data = make_member(name), make_halves(40, 0)
    model.train()
    before = torch.get_rng_state()
    result = bound(model, data, seed=5)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    model.eval()
    x, y = data.batch(range(40))
    with torch.no_grad():
        torch.manual_seed(5)
        terms = model.bound(model(x, y), x)
    torch.set_rng_state(before)
    assert ("kl_w" in result) == (name == "csvae")
    assert result == pytest.approx({**{k: v.mean().item() for k, v in terms.items()}, "total": sum_of(terms)}, rel=1e-5)


def sum_of(terms):
    return sum(term.mean().item() for term in terms.values())


def test_the_order_of_attributes_is_the_models(make_member, make_halves):
    data = make_halves(40, 0)
    mirrored = AttributeData(data.images, data.labels[:, ::-1], data.attributes[::-1])
    assert bound(make_member("csvae"), data) == bound(make_member("csvae"), mirrored)


def test_same_seed_same_sample(make_member, make_halves):
    model, data = make_member("csvae"), make_halves(40, 0)
    assert bound(model, data, seed=1) == bound(model, data, seed=1)
    assert bound(model, data, seed=1)["reconstruction"] != bound(model, data, seed=2)["reconstruction"]
    assert bound(model, data, seed=1)["kl_z"] == bound(model, data, seed=2)["kl_z"]  # in closed form


def test_missing_labels_are_filled_in(make_member, make_halves):
    data = make_halves(40, 0)
    model = make_member("csvae")
    inferred = model.encode(data.batch(range(40))[0]).y.numpy()
    missing = AttributeData(data.images, np.full_like(data.labels, np.nan), data.attributes)
    filled = AttributeData(data.images, inferred, data.attributes)
    assert bound(model, missing) == bound(model, filled)


def test_vectors_and_grey_pictures_have_a_bound(make_halves):
    backbone = BackboneConfig(name="mlp", width=4, depth=1, features=4)
    roll = create_model(ModelConfig(("Above",), shape=(3,), z_dim=2, backbone=backbone))
    assert bound(roll, swiss_roll(50))["total"] > 0
    config = ModelConfig(("Left", "Right"), shape=(1, 16, 16), z_dim=2, backbone=BackboneConfig(width=4, features=8))
    assert np.isfinite(bound(create_model(config), make_halves(10, 0))["total"])


def test_weights_of_a_run_that_diverged_are_refused(make_member, make_halves):
    model = make_member("vae")
    with torch.no_grad():
        model.backbone.start.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="reconstruction: expected finite nats, got nan: use weights of a run"):
        bound(model, make_halves(4, 0))
