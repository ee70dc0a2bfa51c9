"""Tiny models whose heads have been shaken, so that nothing is zero by construction."""

from __future__ import annotations

import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import create_model

KINDS = {
    "image": {},
    "image, every option": {
        "backbone": BackboneConfig(width=4, features=16, film=True),
        "residual": True,
        "erase": True,
        "learn_priors": True,
        "correction": True,
    },
    "z with places": {"z_grid": 4, "z_dim": 32, "min_scale": 0.1},
    "with a flow": {"flow": 8, "residual": True, "min_scale": 0.1},
    "grey": {"shape": (1, 16, 16)},
    "vector": {"shape": (5,), "backbone": BackboneConfig(name="mlp", width=8, features=16)},
}


def build(kind="image", **changes):
    """A model with three attributes, in eval mode, its eraser set."""
    torch.manual_seed(0)
    fields = {
        "attributes": ("Smiling", "Hat", "Young"),
        "shape": (3, 16, 16),
        "z_dim": 8,
        "backbone": BackboneConfig(width=4, features=16),
        "adversary": (8,),
    }
    model = create_model(ModelConfig(**{**fields, **KINDS[kind], **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        shape = model.config.shape
        for _ in range(3):
            out = model(torch.rand(20, *shape), torch.randint(2, (20, 3)).float())
            if model.q_z.eraser is not None:
                model.q_z.eraser.observe(model.q_z.code(out.features)[0], out.y)
    return model.eval()


@pytest.fixture(scope="session")
def models():
    """One model of each kind, by name; tests leave them as they are."""
    return {kind: build(kind) for kind in KINDS}


@pytest.fixture(params=list(KINDS))
def model(request, models):
    """Each kind of model in turn."""
    torch.manual_seed(1)
    return models[request.param]


@pytest.fixture
def image_model(models):
    """The plain model of colour images."""
    torch.manual_seed(1)
    return models["image"]


@pytest.fixture
def new_model():
    """Builds models that a test may change."""
    return build
