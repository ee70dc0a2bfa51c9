"""Training: one loop, its checkpoints and its recipes."""

from __future__ import annotations

from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.recipes import Recipe, list_recipes, load_recipe, train
from csvae_hub.training.trainer import Trainer

__all__ = ["Recipe", "Trainer", "TrainerConfig", "list_recipes", "load_recipe", "train"]
