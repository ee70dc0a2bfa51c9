"""The one training loop: optimisers that alternate on every batch, and a run that can be killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from csvae_hub.config import check
from csvae_hub.data import AttributeData, on_device
from csvae_hub.models import AttributeModel
from csvae_hub.sharing import mine
from csvae_hub.training.average import Average
from csvae_hub.training.callbacks import Callback, Callbacks
from csvae_hub.training.config import TrainerConfig, batch_order, learning_rate_factor
from csvae_hub.training.guards import Guards, scalars
from csvae_hub.training.interruption import sigterm_stops
from csvae_hub.training.looks import Looks
from csvae_hub.training.processes import Processes, join
from csvae_hub.training.resume import finish_run, interrupted, restore_run, save_run
from csvae_hub.training.run_log import Means, RunLog
from csvae_hub.training.steps import Objective, Step

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG_EVERY = 50
"""Batches between two lines of the log."""


class Trainer:
    """Trains an objective on data and leaves logs, grids, checkpoints and the trained model in a folder.

    The folder, if any, gets `log.jsonl`, `logs/` (TensorBoard), `grids/epoch-NNN.png` (original, reconstruction, each
    attribute switched), `checkpoints/` and the weights folders `model/`, the last average, and with validation data
    `best/`, that of least `valid_mse`. `record` is what their training.json says besides. `callbacks` are told of
    batches, epochs and the end. `accelerator` chooses device, processes, trackers and the parts of a batch;
    ACCELERATE_USE_CPU=1 forces the CPU. `compile` compiles the backbone.

    Raises:
        MissingExtraError: accelerate isn't installed.
        ConfigError: fewer than two examples, a callback without a method that is called, or a batch size that
            processes and parts can't share.
    """

    def __init__(
        self,
        objective: Objective,
        config: TrainerConfig,
        train_data: AttributeData,
        valid_data: AttributeData | None = None,
        folder: str | Path | None = None,
        *,
        record: Mapping[str, Any] | None = None,
        quiet: bool = False,
        checkpoint_minutes: float = 10.0,
        callbacks: Sequence[Callback] = (),
        accelerator: Accelerator | None = None,
        clip_norm: float | None = None,
        compile: bool = False,
    ) -> None:
        check(len(train_data) > 1, "train_data", "two examples or more, for batch norm", len(train_data))
        self.processes = Processes(accelerator or join(), config.precision, clip_norm, compile)
        self.processes.check_batch(min(config.batch_size, len(train_data)))
        self.accelerator, self.device = self.processes.accelerator, self.processes.device
        self.config, self.train_data, self.valid_data = config, train_data, valid_data
        self.near_data, first = on_device(train_data, self.device), self.processes.is_first
        self.folder = Path(folder) if folder is not None and first else None  # the others write nothing
        self.record, self.quiet = dict(record or {}), quiet or not first
        self.checkpoint_seconds, self.is_image = 60 * checkpoint_minutes, train_data.images.ndim == 4
        self.memory_format = torch.channels_last if self.is_image else torch.contiguous_format
        self.objective = objective.to(self.device).to(memory_format=self.memory_format)
        self.average = self.processes.average_of(objective)
        self.averaging = Average(self.average, objective.model)
        prepare, parameters = self.processes.prepare, objective.generative_parameters()
        self.optimizers = {"generative": prepare("generative", parameters, config.learning_rate, objective.betas)}
        for game in objective.minimisations:
            self.optimizers[game.name] = prepare(game.name, game.parameters, config.adversary_learning_rate, game.betas)
        self.batches_per_epoch = max(1, len(train_data) // config.batch_size)  # a last part of a batch is left out
        epochs, rest = config.epochs, objective.rest_epochs
        check(rest <= epochs, "parts.rest.epochs", f"at most trainer.epochs, {epochs} (raise it, or set both)", rest)
        self.last_batch, self.rest_at = (n * self.batches_per_epoch for n in (epochs, epochs - rest))
        self.elapsed, self.callbacks, self.stopping, self.looks = 0.0, Callbacks(callbacks), False, Looks(self)

    def fit(self, resume: bool = True) -> AttributeModel:
        """Trains and gives the averaged model in eval mode (a copy: `objective.model` keeps the last weights).

        Resumes from the newest complete checkpoint of the folder, on the CPU with as many threads to the same bits as
        a run that was never stopped; without `resume` it removes the folder's checkpoints. The caller's random state
        stays as it was.

        Raises:
            ConfigError: the checkpoint is of another configuration or other data, or another run is in the folder.
            TrainingError: a loss or a weight is no longer finite.
            SystemExit: SIGTERM came; the checkpoint is saved, and the status is 143.
        """
        log = RunLog.of(self, Guards.of(self))
        self.stopping, self.objective.say = False, log.aside
        sigterm = sigterm_stops(self.stop, lambda: log.say(interrupted(self)), self.processes.signals)
        with torch.random.fork_rng(), self.processes.alone(self.folder), log, sigterm, self.processes.sharing():
            torch.manual_seed(self.config.seed)
            first = restore_run(self, resume)
            to_fit = [] if self.quiet or first > self.rest_at else self.objective.seconds_at_rest
            log.start(first, sum(expected() for expected in to_fit))
            started, saved = time.monotonic() - self.elapsed, time.monotonic()
            means = Means(lambda batch: self.train_data.names(self._rows(batch)))
            for batch in range(first, self.last_batch):
                if batch == self.rest_at:
                    log.aside("the encoder rests from here on; what is fitted to it comes first")
                    self.begin_rest()
                terms = self.train_step(*self._examples(self._rows(batch)), batch)
                means.add(terms)
                log.line.renew(batch + 1)
                done, epoch, now = batch + 1, batch // self.batches_per_epoch + 1, time.monotonic()
                self.elapsed = now - started
                self.callbacks.call("after_batch", self, done, terms)
                asked = self.stopping, now - saved >= self.checkpoint_seconds, log.is_due()
                self.stopping, save, is_due = self.processes.agree(*asked)
                ends_epoch, last = done % self.batches_per_epoch == 0, self.stopping or done == self.last_batch
                if last or save or ends_epoch or done % LOG_EVERY == 0 or is_due:
                    rate = {"learning_rate": self.optimizers["generative"].param_groups[0]["lr"]}
                    log.write("batch", done, epoch, self.config.batch_size, means.take(done) | rate)
                if ends_epoch:
                    figures = self.looks.at(epoch, last, log)
                    log.write("epoch", done, epoch, self.config.batch_size, figures)
                    self.callbacks.call("after_epoch", self, epoch, figures)
                    last = last or self.processes.agree(self.stopping)[0]
                if save or last:
                    save_run(self, done)
                    saved = time.monotonic()
                if last:
                    break
        return finish_run(self)

    def stop(self) -> None:
        """Lets `fit` end after the batch that it is in: it saves a checkpoint and gives the model of that moment."""
        self.stopping = True

    def train_step(self, x: Tensor, y: Tensor, batch: int) -> dict[str, Tensor]:
        """All minimisations on one batch, in turn; gives the terms' means."""
        objective, autocast = self.objective, self.processes.autocast()
        start, end = (self.rest_at, self.last_batch) if batch >= self.rest_at else (0, self.rest_at)
        objective.batch, schedule = batch, self.config.schedule
        factor = learning_rate_factor(schedule, batch - start, end - start, self.batches_per_epoch)
        for name in ["generative", *(game.name for game in objective.minimisations if game.with_model)]:
            self.optimizers[name].param_groups[0]["lr"] = self.config.learning_rate * factor
        steps, means = list[Step](), list[dict[str, Tensor]]()
        for part in self.processes.parts(x, y):
            with autocast:
                loss, step = objective.generative_step(*part)
            self._descend("generative", loss)
            steps.append(step)
            means.append(scalars(loss, step))
        for game in objective.minimisations:
            for i, losses in cycle(enumerate([game.losses(step) for step in steps])):
                if (term := autocast(next)(losses, None)) is None:
                    break
                self._descend(game.name, game.weight * term)
                means[i][game.name] = term.detach()
        self.averaging.update(self.config.ema_decay, batch)
        return self.processes.means(means)

    def _descend(self, name: str, loss: Tensor) -> None:
        with self.accelerator.accumulate(gate := self.processes.gates[name]):
            self.accelerator.backward(gate(loss))
            if self.accelerator.sync_gradients:  # at the last part of a batch
                self.processes.clip(self.optimizers[name])
                self.optimizers[name].step()
                self.optimizers[name].zero_grad(set_to_none=True)

    def begin_rest(self, resumed: bool = False) -> None:
        """Goes on from the averaged weights with the encoder at rest; the optimiser's moments begin anew."""
        objective, model = self.objective, self.objective.model
        assert objective.begin_rest is not None
        if not resumed:
            model.load_state_dict(self.average.state_dict())
        objective.begin_rest(None if resumed else self.all_examples(mirrored=self.is_image))
        self.processes.equalise(objective)
        self.average.load_state_dict(model.state_dict())
        self.optimizers["generative"].param_groups[0]["params"] = objective.generative_parameters()
        self.optimizers["generative"].state.clear()

    def _rows(self, batch: int) -> Tensor:
        """The rows of the data that make up a batch, counted from 0; a last part of an epoch is left out."""
        epoch, step = divmod(batch, self.batches_per_epoch)
        data, size = self.train_data, self.config.batch_size
        return batch_order(len(data), self.config.seed, epoch, data.weights)[step * size : (step + 1) * size]

    def _examples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.near_data.batch(mine(indices))
        if self.is_image:
            mirror = mine(torch.rand(len(indices), 1, 1, 1) < 0.5).to(x.device, non_blocking=True)
            x = torch.where(mirror, x.flip(-1), x)
        return x.to(self.device, memory_format=self.memory_format), y.to(self.device)

    def all_examples(self, mirrored: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples in batches on the device, then all of them mirrored."""
        return ((x.to(self.device), y.to(self.device)) for x, y in self.near_data.batches(256, mirrored))
