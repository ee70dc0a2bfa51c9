"""csvae-hub: change an attribute of a face in three lines, with the Conditional Subspace VAE (Klys et al. 2018)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csvae_hub.backbones import list_backbones, register_backbone
    from csvae_hub.editing import FaceEditor
    from csvae_hub.evaluation import evaluate
    from csvae_hub.images import to_images
    from csvae_hub.models import (
        CSVAE,
        VAE,
        AttributeModel,
        CondVAE,
        CondVAEInfo,
        Latents,
        create_model,
        list_models,
    )
    from csvae_hub.training import Trainer, TrainerConfig

__version__ = "0.2.0"

_HOMES = {
    "AttributeModel": "models",
    "CSVAE": "models",
    "CondVAE": "models",
    "CondVAEInfo": "models",
    "FaceEditor": "editing",
    "Latents": "models",
    "Trainer": "training",
    "TrainerConfig": "training",
    "VAE": "models",
    "create_model": "models",
    "evaluate": "evaluation",
    "list_backbones": "backbones",
    "list_models": "models",
    "register_backbone": "backbones",
    "to_images": "images",
}

__all__ = [
    "AttributeModel",
    "CSVAE",
    "CondVAE",
    "CondVAEInfo",
    "FaceEditor",
    "Latents",
    "Trainer",
    "TrainerConfig",
    "VAE",
    "create_model",
    "evaluate",
    "list_backbones",
    "list_models",
    "register_backbone",
    "to_images",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first touched."""
    if name not in _HOMES:
        raise AttributeError(f"module 'csvae_hub' has no attribute {name!r}: it gives {', '.join(__all__)}")
    return getattr(importlib.import_module(f"csvae_hub.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
