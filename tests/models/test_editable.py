"""Editing, reconstructing, sampling and predicting leave a model in training as it was."""

from __future__ import annotations

import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import create_model, list_models

CALLS = {
    "set_attribute": lambda model, x: model.set_attribute(x, "Hat", True),
    "edit": lambda model, x: model.edit(x, {"Smiling": 0.5}),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "predict_attributes": lambda model, x: torch.stack(list(model.predict_attributes(x).values())),
    "sample": lambda model, x: model.sample(4, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", list_models())
def test_a_model_in_training_gives_what_it_gives_in_eval_mode_and_stays_as_it_was(name, call):
    torch.manual_seed(0)
    backbone = BackboneConfig(width=4, features=8)
    model = create_model(ModelConfig(("Smiling", "Hat"), name, shape=(3, 16, 16), z_dim=4, backbone=backbone))
    x = torch.rand(4, 3, 16, 16)
    expected = CALLS[call](model.eval(), x)
    model.train()
    model.q_z.eval()  # a part that is kept from training
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    given = CALLS[call](model, x)
    torch.testing.assert_close(given, expected)
    assert not given.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_error_leaves_the_mode_as_it_was():
    backbone = BackboneConfig(width=4, features=8)
    model = create_model(ModelConfig(("Smiling",), shape=(3, 16, 16), z_dim=4, backbone=backbone)).train()
    with pytest.raises(ValueError, match="rescale"):
        model.reconstruct(torch.full((1, 3, 16, 16), 7.0))
    assert all(module.training for module in model.modules())
