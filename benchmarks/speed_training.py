"""How `speed.py` times a training step: the paper's CSVAE beside pythae's VAE with the same convolutions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cuda_measures import Setting, counted, in_turns

from csvae_hub.data import AttributeData
from csvae_hub.training import Trainer, load_recipe, objective_of

RECIPE, BATCH = "paper-celeba", 64
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def our_step(precision: str, batch: int) -> tuple[Any, Callable[[], object]]:
    """The model of the recipe, and a step of its trainer: both minimisations, forward, backward and Adam."""
    os.environ["ACCELERATE_USE_CPU"] = "1"
    recipe, rng = load_recipe(RECIPE), np.random.default_rng(0)
    names = recipe.model.attributes
    labels = rng.integers(0, 2, (batch, len(names))).astype(np.float32)
    data = AttributeData(rng.integers(0, 256, (batch, *recipe.model.shape), dtype=np.uint8), labels, names)
    objective = objective_of(recipe, data)
    config = replace(recipe.trainer, batch_size=batch, precision=precision)
    trainer = Trainer(objective, config, data, quiet=True)
    x, y = data.batch(torch.arange(batch))
    x = x.contiguous(memory_format=trainer.memory_format)
    return objective.model, lambda: trainer.train_step(x, y, 0)


def their_step(theirs: Any, precision: str, batch: int) -> Callable[[], object]:
    """A step of pythae's VAE: forward, backward and Adam."""
    x, dtype = torch.rand(batch, *theirs.model_config.input_dim), PRECISIONS[precision]
    optimizer = torch.optim.Adam(theirs.train().parameters())

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = theirs({"data": x}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def convolution(precision: str, quick: bool) -> Callable[[], object]:
    """A convolution 3×3 of 128 channels on maps of 16 pixels, channels-last; it says what the machine can do."""
    channels, side = (16, 4) if quick else (128, 16)
    options = {"dtype": PRECISIONS[precision], "memory_format": torch.channels_last}
    x, weight = torch.rand(BATCH, channels, side, side), torch.rand(channels, channels, 3, 3)
    x, weight = x.to(**options), weight.to(**options)

    @torch.no_grad()
    def convolve() -> None:
        F.conv2d(x, weight, padding=1)

    return convolve


def training(pythae_model: Callable[[Any], Any], quick: bool) -> dict[str, dict[str, float]]:
    """Of each precision: milliseconds of a step of each, times in turns, and ours' share of the arithmetic.

    That is operations a second of our step over those of a convolution of the same type. `pythae over ours` is the
    ratio of medians; operations say how much more ours does.
    """
    batch, found = 4 if quick else BATCH, {}
    setting = Setting(torch.device("cpu"), quick, seconds=60 * 60.0)  # a minute for each precision
    for precision in PRECISIONS:
        model, ours = our_step(precision, batch)
        theirs = their_step(pythae_model(model), precision, batch)
        calls = {"ours": ours, "pythae": theirs, "convolution": convolution(precision, quick)}
        operations = {name: counted(call)[0] for name, call in calls.items()}
        took = in_turns(calls, setting, 1)
        rates = {name: operations[name] / seconds for name, seconds in took.items()}
        found[precision] = {
            **{f"{name}, ms": 1000 * seconds for name, seconds in took.items()},
            **{f"{name}, operations": number for name, number in operations.items()},
            "pythae over ours": took["pythae"] / took["ours"],
            "share of the convolution's arithmetic": rates["ours"] / rates["convolution"],
            "pythae's share": rates["pythae"] / rates["convolution"],
        }
    return found
