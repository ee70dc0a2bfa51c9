"""Makes the tiny weights folders that every later version has to read: `python tests/data/make.py`.

One for each model of the family, and a few more of the CSVAE. A folder that is there stays: it is a promise once it is
released. Before the release of a format, `--anew` makes them all again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from csvae_hub.config import FORMAT_VERSION, AttributePrior, BackboneConfig, LikelihoodConfig, ModelConfig
from csvae_hub.models import AttributeModel, create_model, list_models

FOLDER = Path(__file__).parent / f"format-{FORMAT_VERSION}"
ATTRIBUTES = ("Smiling", "Hat", "Young")
EDIT = {"Smiling": True, "Hat": 0.3}

PLAIN = {
    "shape": (3, 16, 16),
    "z_dim": 4,
    "backbone": BackboneConfig(width=4, features=8, film=True),
    "adversary": (4,),
}
MORE = {
    "csvae-options": {
        "shape": (1, 16, 16),
        "backbone": BackboneConfig("resnet", width=4, features=8, film=True),
        "priors": {"Hat": AttributePrior(-1.0, 0.2, 2.0, 0.7)},
        "learn_priors": True,
        "likelihood": LikelihoodConfig("laplace", 0.2),
        "residual": True,
        "correction": True,
        "erase": True,
    },
    "csvae-grid": {"z_dim": 16, "z_grid": 4},
    "csvae-vectors": {"shape": (5,), "w_dim": 1, "backbone": BackboneConfig("mlp", width=8, depth=2, features=8)},
    "csvae-float16": {"likelihood": LikelihoodConfig("bernoulli")},
}


def kinds() -> dict[str, ModelConfig]:
    """The config of each folder by the folder's name."""
    plain = {name: ModelConfig(ATTRIBUTES, name, **PLAIN) for name in list_models()}
    return plain | {name: ModelConfig(ATTRIBUTES, **{**PLAIN, **changes}) for name, changes in MORE.items()}


def make(config: ModelConfig, folder: Path) -> None:
    """Writes a model in which nothing is zero by construction, and what it gives for one batch."""
    torch.manual_seed(0)
    model = create_model(config)
    y = (torch.arange(48)[:, None] >> torch.arange(3) & 1).float()
    x = (0.5 * torch.rand(48, *config.shape) + 0.5 * y.mean(1).view(-1, *[1] * len(config.shape))).clamp(0, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for _ in range(9):
            model(x, y)
        model.eval()
        if model.q_z.eraser is not None:
            model.q_z.eraser.fit(model.q_z.code(model.backbone.encode(x))[0], y)
    model.finalize([(x, y)])
    model.save_pretrained(folder, dtype=torch.float16 if folder.name.endswith("float16") else None)
    save_file(outputs(AttributeModel.from_pretrained(folder, device="cpu"), x[5:7]), folder / "expected.safetensors")


@torch.no_grad()
def outputs(model: AttributeModel, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a model gives for x: a copy of each, by name."""
    latents = model.encode(x)
    given = {
        "x": x,
        "z": latents.z,
        "w": latents.w,
        "y": latents.y,
        "decoded": model.decode(latents),
        "edited": model.decode(model.edit(latents, EDIT)),
    }
    return {name: tensor.clone().contiguous() for name, tensor in given.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anew", action="store_true", help="remove what is there")
    if parser.parse_args().anew:
        shutil.rmtree(FOLDER, ignore_errors=True)
    for name, config in kinds().items():
        if not (FOLDER / name).exists():
            make(config, FOLDER / name)
