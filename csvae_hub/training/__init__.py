"""Training: one loop, its checkpoints and its recipes.

>>> from csvae_hub.data import swiss_roll
>>> recipe, data = load_recipe("paper-swiss-roll", {"trainer.epochs": "2", "trainer.batch_size": "64"}), swiss_roll(128)
>>> objective = objective_of(recipe, data)

An `Objective` gives the loss of the model and the terms behind it; a loop of your own needs no more.

>>> loss, step = objective.generative_step(*data.batch([0, 1, 2]))
>>> sorted(step.terms), [game.name for game in objective.minimisations]
(['classifier', 'kl_w', 'kl_z', 'negative_entropy', 'reconstruction'], ['adversary'])

A `Trainer` is the loop of the library. It calls your callbacks and gives the averaged model.

>>> class Counts:
...     def after_epoch(self, trainer, epoch, figures):
...         print("epochs done:", epoch)
>>> model = Trainer(objective, recipe.trainer, data, quiet=True, callbacks=[Counts()]).fit()
epochs done: 1
epochs done: 2
>>> model.attributes
('Above',)
"""

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
