"""Looks at the averaged model at the end of an epoch: its error, a grid of edits, and whether it is the best so far."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from csvae_hub.models import AttributeModel
from csvae_hub.training.grids import grid_path, look
from csvae_hub.training.resume import load_module_tensors, module_tensors

if TYPE_CHECKING:
    from csvae_hub.training.run_log import RunLog
    from csvae_hub.training.trainer import Trainer

PREFIX = "best"
"""Begins the names of the best epoch's tensors in a checkpoint."""


class Looks:
    """The looks of a run. `error` and `epoch` are those of the least `valid_mse`, infinite and 0 before the first look.

    Where the encoder comes to rest, the best is that of the rest: a model from before has not learned to decode what
    the encoder then gives.
    """

    def __init__(self, run: Trainer) -> None:
        self.run, self.drawn = run, -math.inf
        self.error, self.epoch, self.weights = math.inf, 0, dict[str, Tensor]()

    def at(self, epoch: int, last: bool, log: RunLog) -> dict[str, float]:
        """`valid_mse` and `seconds` after an epoch; a grid in the folder after the first, the last and now and then.

        A grid is drawn no more often than checkpoints are written.
        """
        run, now = self.run, time.monotonic()
        draw = last or now - self.drawn >= run.checkpoint_seconds
        self.drawn = now if draw else self.drawn
        figures = look(run.average, run.valid_data, run.folder if draw else None, epoch)
        if run.folder is not None and draw and figures and run.is_image:
            log.line.show_grid(grid_path(run.folder, epoch))
        if figures:
            self._compare(epoch, figures["valid_mse"])
        figures["seconds"] = round(run.elapsed)
        return figures

    def _compare(self, epoch: int, error: float) -> None:
        rest_at = self.run.rest_at // self.run.batches_per_epoch
        if error < self.error or self.epoch <= rest_at < epoch:
            self.error, self.epoch = error, epoch
            tensors = module_tensors(self.run.average, PREFIX)
            self.weights = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The best epoch's tensors, as a checkpoint keeps them; empty before the first look."""
        if not self.weights:
            return {}
        about = torch.tensor([self.epoch, self.error], dtype=torch.float64)
        return {**self.weights, f"{PREFIX}_epoch_and_error": about}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave; forgets what was seen before."""
        self.error, self.epoch = math.inf, 0
        self.weights = {name: value for name, value in tensors.items() if name.startswith(f"{PREFIX}.")}
        if self.weights:
            epoch, self.error = tensors[f"{PREFIX}_epoch_and_error"].tolist()
            self.epoch = int(epoch)

    def best_model(self) -> AttributeModel | None:
        """A copy of the average as it was at the best epoch; None before the first look."""
        if not self.weights:
            return None
        model = copy.deepcopy(self.run.average)
        load_module_tensors(model, PREFIX, self.weights)
        return model
