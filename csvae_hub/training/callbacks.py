"""Callbacks: code of a user's own that a run calls as it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch import Tensor

from csvae_hub.config import check
from csvae_hub.models import AttributeModel

if TYPE_CHECKING:
    from csvae_hub.training.trainer import Trainer


class AfterBatch(Protocol):
    """A callback after each batch."""

    def after_batch(self, trainer: Trainer, batch: int, terms: Mapping[str, Tensor]) -> None:
        """Is called after `batch` batches with the means of the terms over the last one.

        Each is a scalar on the trainer's device, in nats per example, unweighted; `loss` is the weighted sum. To read
        one as a number waits for the GPU.
        """


class AfterEpoch(Protocol):
    """A callback after each epoch."""

    def after_epoch(self, trainer: Trainer, epoch: int, figures: Mapping[str, float]) -> None:
        """Is called after `epoch` epochs with `seconds` of training and, with validation data, `valid_mse`."""


class AtEnd(Protocol):
    """A callback at the end."""

    def at_end(self, trainer: Trainer, model: AttributeModel) -> None:
        """Is called once with the model that `fit` gives, when it is written; not after SIGTERM or an error."""


Callback: TypeAlias = "AfterBatch | AfterEpoch | AtEnd"
"""An object with at least one of these methods. A run calls those that it has; their return values are not used.

`trainer.stop()` ends the run after the batch. `trainer.objective.model` is the model that learns, `trainer.average` its
average. Random numbers that a callback draws from torch do not change the run, which stays the same to the bit.
"""

METHODS = ("after_batch", "after_epoch", "at_end")


class Callbacks:
    """The callbacks of a run.

    Raises:
        ConfigError: one has none of the methods.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            methods = [name for name in METHODS if callable(getattr(callback, name, None))]
            check(
                bool(methods),
                "callbacks",
                f"objects with a method {', '.join(METHODS[:-1])} or {METHODS[-1]}",
                callback,
            )
        self.callbacks = callbacks

    def call(self, name: str, *arguments: object) -> None:
        """Calls one method of all callbacks that have it, in order."""
        for callback in self.callbacks:
            method = getattr(callback, name, None)
            if method is not None:
                with torch.random.fork_rng():
                    method(*arguments)
