"""Training: one loop, its checkpoints and its recipes."""

from __future__ import annotations

from csvae_hub.training.callbacks import Callback
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.recipes import Recipe, list_recipes, load_recipe, objective_of, train
from csvae_hub.training.steps import Minimisation, Objective, ObjectiveConfig, Part, Step
from csvae_hub.training.trainer import Trainer

__all__ = [
    "Callback",
    "Minimisation",
    "Objective",
    "ObjectiveConfig",
    "Part",
    "Recipe",
    "Step",
    "Trainer",
    "TrainerConfig",
    "list_recipes",
    "load_recipe",
    "objective_of",
    "train",
]
