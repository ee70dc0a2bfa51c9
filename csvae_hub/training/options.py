"""The options of the training loop, and its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from csvae_hub.config import check

FREE_TO_CHANGE = ("checkpoint_minutes", "keep_checkpoints", "grid_every_epochs", "log_every_steps", "num_threads")
"""Options that a resumed run may change: they leave the weights alone (num_threads up to rounding)."""


SCHEDULES = ("constant", "cosine", "multistep")


@dataclass(frozen=True)
class TrainerConfig:
    """How to train, whatever is trained.

    `schedule` is "constant", "cosine" (to zero at the end) or "multistep" (the paper's: a factor 0.1^(1/7) at epochs
    3^i, i = 0…6), after `warmup_steps` batches of linear rise. `adversary_schedule` is the same for the adversary; at
    "constant" it catches up with an encoder that slows down. `gradient_clip` bounds the norm of the generative
    gradient. `ema_decay` is that of the exponential average of weights and buffers, 0 for none. `flip` mirrors half of
    the pictures at random. In the last `rest_epochs` the encoder rests (`AttributeModel.rest`): they go on from the
    averaged weights, with the learning rate's schedule begun anew; an epoch has fewer terms then, and no adversary.
    `clear_means`: edits go to the mean of w_i over the clearer half of a class instead of all of it, for noisy labels.
    `grid_every_epochs` 0 draws none. `num_threads` None leaves torch's own.
    """

    epochs: int = 40
    rest_epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 1e-3
    adversary_learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "cosine"
    adversary_schedule: str = "constant"
    warmup_steps: int = 0
    gradient_clip: float | None = None
    ema_decay: float = 0.999
    seed: int = 0
    precision: str = "float32"
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    grid_every_epochs: int = 1
    log_every_steps: int = 50
    num_threads: int | None = None
    flip: bool = True
    clear_means: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "keep_checkpoints", "log_every_steps"):
            check(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        check(0 <= self.rest_epochs < self.epochs, "rest_epochs", "0, or fewer than epochs", self.rest_epochs)
        for name in ("warmup_steps", "grid_every_epochs", "checkpoint_minutes", "seed"):
            check(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("learning_rate", "adversary_learning_rate"):
            check(0 < getattr(self, name) < float("inf"), name, "a positive number", getattr(self, name))
        check(all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers in [0, 1)", self.betas)
        check(0 <= self.ema_decay < 1, "ema_decay", "a number in [0, 1)", self.ema_decay)
        for name, choices in (
            ("schedule", SCHEDULES),
            ("adversary_schedule", SCHEDULES),
            ("precision", ("float32", "bfloat16")),
        ):
            check(getattr(self, name) in choices, name, " or ".join(choices), getattr(self, name))
        clip, threads = self.gradient_clip, self.num_threads
        check(clip is None or clip > 0, "gradient_clip", "a positive number, or nothing", clip)
        check(threads is None or threads >= 1, "num_threads", "1 or more, or nothing", threads)


def learning_rate_factor(schedule: str, config: TrainerConfig, batch: int, batches_per_epoch: int) -> float:
    """What a learning rate is multiplied by at a batch, counted from 0 over the whole run."""
    epochs = config.epochs - config.rest_epochs
    if batch >= epochs * batches_per_epoch:  # the encoder rests: the schedule begins anew
        batch, epochs = batch - epochs * batches_per_epoch, config.rest_epochs
    factor = 1.0
    if schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * batch / (epochs * batches_per_epoch)))
    elif schedule == "multistep":
        factor = 0.1 ** (sum(batch // batches_per_epoch >= 3**i for i in range(7)) / 7)
    return factor * min(1.0, (batch + 1) / max(1, config.warmup_steps))
