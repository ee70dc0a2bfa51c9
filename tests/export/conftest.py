"""Tiny models whose numbers have been shaken, so that nothing is zero by construction, and their exports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

from csvae_hub.config import BackboneConfig, LikelihoodConfig, ModelConfig
from csvae_hub.export import Exported, export_model
from csvae_hub.models import AttributeModel, create_model

NAMES = ("Happy", "Neutral", "Hat", "Sad")
GROUP = ("Happy", "Neutral", "Sad")
KINDS = {
    "every option, grey, a group": {
        "shape": (1, 16, 16),
        "exclusive": (GROUP,),
        "backbone": BackboneConfig("resnet", width=4, features=16, film=True),
        "residual": True,
        "erase": True,
        "learn_priors": True,
        "correction": True,
    },
    "z with places": {"z_grid": 4, "z_dim": 32, "min_scale": 0.1},
    "with a flow": {"flow": 8, "residual": True, "likelihood": LikelihoodConfig("bernoulli")},
    "vae": {"model": "vae"},
    "cond-vae": {"model": "cond-vae", "exclusive": (GROUP,)},
    "cond-vae-info": {"model": "cond-vae-info"},
}
FORMATS = dict(zip(KINDS, ("onnx", "onnx", "torch", "torch", "onnx", "torch"), strict=True))
"""The format that each is exported in: one alone, since an export takes seconds."""

CARD = "---\nlicense: other\nlicense_name: mine\n---\nWords.\n"


def made(kind="vae", **changes):
    torch.manual_seed(0)
    fields = {"shape": (3, 16, 16), "z_dim": 8, "backbone": BackboneConfig(width=4, features=16)}
    model = create_model(ModelConfig(**{**fields, "attributes": NAMES, **KINDS[kind], **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if "class_means" in dict(model.named_buffers()):
            model.get_buffer("class_means").normal_()
        for _ in range(3):
            out = model(torch.rand(20, *model.config.shape), torch.randint(2, (20, len(NAMES))).float())
            if model.q_z.eraser is not None:
                model.q_z.eraser.observe(model.q_z.code(out.features)[0], out.y)
    return model.eval()


@dataclass(frozen=True)
class Export:
    """A model, the folder that its export was written to by the name of its weights folder, and what that gave."""

    model: AttributeModel
    folder: Path
    done: Exported


@pytest.fixture(scope="session")
def build():
    """Builds a tiny model: `build(kind, **changes)`."""
    return made


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Gives the export of a kind of model: `exported(kind)`. Tests leave it as it is."""

    @cache
    def exported(kind):
        model, weights, folder = made(kind), tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("exports")
        model.save_pretrained(weights)
        (weights / "README.md").write_text(CARD, encoding="utf-8")
        return Export(model, folder, export_model(weights, folder, format=FORMATS[kind]))

    return exported
