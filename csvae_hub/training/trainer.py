"""The one training loop: optimisers that alternate on every batch, and a run that can be killed at any moment."""

from __future__ import annotations

import copy
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from csvae_hub.config import check, to_dict
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import require
from csvae_hub.models import AttributeModel
from csvae_hub.training import resume
from csvae_hub.training.config import TrainerConfig, learning_rate_factor
from csvae_hub.training.grids import write_grid
from csvae_hub.training.run_log import Means, RunLog
from csvae_hub.training.steps import Objective

LOG_EVERY = 50


class Trainer:
    """Trains an objective on data and leaves logs, grids, checkpoints and the trained model in a folder.

    The folder, if any, gets `log.jsonl`, `logs/` (TensorBoard), `grids/epoch-NNN.png` (original, reconstruction, each
    attribute switched), `checkpoints/` and at the end `model/`, a weights folder with `training.json`. `record` is
    what training.json says besides (the recipe). A grid is drawn at the end of an epoch, no more often than
    checkpoints are written. accelerate chooses the device; ACCELERATE_USE_CPU=1 forces the CPU.

    Raises:
        MissingExtraError: accelerate isn't installed.
        ConfigError: no data.
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
    ) -> None:
        check(len(train_data) > 0, "train_data", "at least one example", len(train_data))
        require("accelerate", "train")
        from accelerate import Accelerator

        self.accelerator = Accelerator()
        check(self.accelerator.num_processes == 1, "num_processes", "one process", self.accelerator.num_processes)
        self.device = self.accelerator.device
        self.config, self.train_data, self.valid_data = config, train_data, valid_data
        self.folder = None if folder is None else Path(folder)
        self.record, self.quiet, self.checkpoint_seconds = dict(record or {}), quiet, 60 * checkpoint_minutes
        self.is_image = train_data.images.ndim == 4
        self.memory_format = torch.channels_last if self.is_image else torch.contiguous_format
        self.objective = objective.to(self.device)
        _set_memory_format(objective, self.memory_format)
        objective.forward_pass = self.accelerator.prepare_model(objective.model).__call__
        self.average = copy.deepcopy(objective.model).eval()
        self.rates = [config.learning_rate]
        self.optimizers = [self._optimizer(objective.generative_parameters(), config.learning_rate, objective.betas)]
        for game in objective.minimisations:
            self.rates.append(game.learning_rate or config.adversary_learning_rate)
            self.optimizers.append(self._optimizer(game.parameters, self.rates[-1], game.betas))
        self.batches_per_epoch = max(1, len(train_data) // config.batch_size)  # a last part of a batch is left out
        check(objective.rest_epochs < config.epochs, "parts.rest.epochs", "fewer than epochs", objective.rest_epochs)
        self.last_batch = config.epochs * self.batches_per_epoch
        self.rest_at = self.last_batch - objective.rest_epochs * self.batches_per_epoch
        self.elapsed = 0.0

    def fit(self, resume: bool = True) -> AttributeModel:
        """Trains and gives the averaged model in eval mode (a copy: `objective.model` keeps the last weights).

        Resumes from the newest complete checkpoint of the folder, on the CPU with as many threads to the same bits as
        a run that was never stopped; without `resume` it removes the folder's checkpoints. The caller's random state
        stays as it was.

        Raises:
            ConfigError: the checkpoint is of another configuration or other data.
            FloatingPointError: a loss is no longer finite.
        """
        config, size = self.config, self.config.batch_size
        with torch.random.fork_rng(), closing(RunLog(self.folder, self.last_batch, self.quiet)) as log:
            first = self._restore(resume)
            log.start(first)
            started, saved, drawn = time.monotonic() - self.elapsed, time.monotonic(), time.monotonic()
            means = Means()
            order = batch_order(len(self.train_data), config.seed, first // self.batches_per_epoch)
            for batch in range(first, self.last_batch):
                epoch, step = divmod(batch, self.batches_per_epoch)
                if step == 0:
                    order = batch_order(len(self.train_data), config.seed, epoch)
                if batch == self.rest_at:
                    self._begin_rest()
                means.add(self.train_step(*self._examples(order[step * size : (step + 1) * size]), batch))

                done, now = batch + 1, time.monotonic()
                self.elapsed = now - started
                ends_epoch, last = step + 1 == self.batches_per_epoch, done == self.last_batch
                save = last or now - saved >= self.checkpoint_seconds
                if save or ends_epoch or done % LOG_EVERY == 0:
                    log.write("batch", done, epoch + 1, size, means.take(done))
                if ends_epoch:
                    draw = last or now - drawn >= self.checkpoint_seconds
                    drawn = now if draw else drawn
                    values = self._end_epoch(epoch + 1, draw) | {"seconds": round(self.elapsed)}
                    log.write("epoch", done, epoch + 1, size, values)
                if save and self.folder is not None:
                    self._save(done)
                    saved = time.monotonic()
        return self._finish()

    def train_step(self, x: Tensor, y: Tensor, batch: int) -> dict[str, Tensor]:
        """All minimisations on one batch, in turn; gives the terms' means."""
        objective, autocast = self.objective, torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
        )  # fmt: skip
        start, end = (self.rest_at, self.last_batch) if batch >= self.rest_at else (0, self.rest_at)
        factor = learning_rate_factor(self.config.schedule, batch - start, end - start, self.batches_per_epoch)
        self.optimizers[0].param_groups[0]["lr"] = self.rates[0] * factor
        with autocast:
            loss, step = objective.generative_step(x, y)
        self._descend(self.optimizers[0], loss)
        means = {"loss": loss.detach(), **{name: term.detach().mean() for name, term in step.terms.items()}}
        for game, optimizer in zip(objective.minimisations, self.optimizers[1:], strict=True):
            losses = game.losses(step)
            while True:
                with autocast:
                    term = next(losses, None)
                if term is None:
                    break
                self._descend(optimizer, game.weight * term)
                means[game.name] = term.detach()
        update_average(self.average, objective.model, self.config.ema_decay, batch)
        return means

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        self.accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _optimizer(self, parameters: list[nn.Parameter], rate: float, betas: tuple[float, float]) -> Any:
        return self.accelerator.prepare_optimizer(torch.optim.Adam(parameters, rate, betas))

    def _begin_rest(self, resumed: bool = False) -> None:
        """Goes on from the averaged weights with the encoder at rest; the optimiser's moments begin anew."""
        objective, model = self.objective, self.objective.model
        assert objective.begin_rest is not None
        if not resumed:
            model.load_state_dict(self.average.state_dict())
        objective.begin_rest(None if resumed else self._all_examples(mirrored=self.is_image))
        self.average.load_state_dict(model.state_dict())
        self.optimizers[0] = self._optimizer(objective.generative_parameters(), self.rates[0], objective.betas)

    def _examples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.train_data.batch(indices)
        if self.is_image:
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
        return x.to(self.device, memory_format=self.memory_format), y.to(self.device)

    def _all_examples(self, mirrored: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples in batches, then all of them mirrored."""
        for flip in (False, True) if mirrored else (False,):
            for part in torch.arange(len(self.train_data)).split(256):
                x, y = self.train_data.batch(part)
                yield (x.flip(-1) if flip else x).to(self.device), y.to(self.device)

    @torch.no_grad()
    def _end_epoch(self, epoch: int, draw: bool) -> dict[str, float]:
        """Draws the grid; gives the averaged model's squared error per value on up to 512 valid examples."""
        if self.valid_data is None or len(self.valid_data) == 0:
            return {}
        with torch.random.fork_rng():
            if draw and self.folder is not None and self.is_image:
                write_grid(self.average, self.valid_data, self.folder / "grids" / f"epoch-{epoch:03d}.png")
            indices = torch.linspace(0, len(self.valid_data) - 1, min(512, len(self.valid_data))).long()
            total = 0.0
            for part in indices.split(128):
                x = self.valid_data.batch(part)[0].to(self.device)
                decoded = self.average.decode(self.average.encode(x))
                total += (decoded - x).square().flatten(1).mean(1).sum().item()
        return {"valid_mse": total / len(indices)}

    def _identity(self) -> dict[str, Any]:
        """The values that a resumed run must have in common with the one before."""
        return {**self.record, "trainer": to_dict(self.config), "data_fingerprint": self.train_data.fingerprint}

    def _optimizer_names(self) -> list[str]:
        return ["generative", *(game.name for game in self.objective.minimisations)]

    def _save(self, batches: int) -> None:
        assert self.folder is not None
        tensors = resume.module_tensors(self.objective, "objective") | resume.module_tensors(self.average, "average")
        for name, optimizer in zip(self._optimizer_names(), self.optimizers, strict=True):
            tensors |= resume.optimizer_tensors(optimizer, name)
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        progress = {"elapsed": self.elapsed, "identity": resume.flat(self._identity())}
        resume.save_checkpoint(self.folder / "checkpoints", batches, tensors, progress)

    def _restore(self, resumed: bool) -> int:
        """Puts the newest checkpoint in place, or starts the random numbers; gives the number of batches done."""
        torch.manual_seed(self.config.seed)
        folder = None if self.folder is None else self.folder / "checkpoints"
        if folder is None or not folder.exists():
            return 0
        found = resume.load_latest(folder) if resumed else shutil.rmtree(folder)
        if found is None:
            return 0
        tensors, progress = found
        resume.check_identity(self._identity(), progress["identity"], folder)
        if int(progress["batches"]) > self.rest_at:
            self._begin_rest(resumed=True)
        resume.load_module_tensors(self.objective, "objective", tensors)
        resume.load_module_tensors(self.average, "average", tensors)
        for name, optimizer in zip(self._optimizer_names(), self.optimizers, strict=True):
            resume.load_optimizer_tensors(optimizer, name, tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.elapsed = float(progress["elapsed"])
        return int(progress["batches"])

    def _finish(self) -> AttributeModel:
        model = self.average.eval()
        _set_memory_format(model, torch.contiguous_format)
        for fit in self.objective.at_end:
            fit(model, self._all_examples())
        model.finalize(self._all_examples())
        if self.folder is not None:
            model.save_pretrained(self.folder / "model", extra={"training.json": self._training_record()})
        return model

    def _training_record(self) -> dict[str, Any]:
        libraries = ("csvae-hub", "torch", "accelerate", "safetensors", "numpy")
        return {
            **self.record,
            "trainer": to_dict(self.config),
            "examples": len(self.train_data),
            "data_fingerprint": self.train_data.fingerprint,
            "elapsed_seconds": round(self.elapsed, 1),
            "device": str(self.device),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        }


def batch_order(size: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits the data: a permutation (size,) that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed((seed * 10_007 + epoch) % 2**32)
    return torch.randperm(size, generator=generator)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, batch: int) -> None:
    """Average ← decay · average + (1 − decay) · model, for weights and floating buffers (batch norm's too).

    Early on the decay is bounded by (1 + batch) / (10 + batch), so that the start is forgotten. Integers are copied.
    """
    weight = 1 - min(decay, (1 + batch) / (10 + batch))
    current = model.state_dict()
    for key, value in average.state_dict().items():
        if value.is_floating_point() and weight < 1:
            value.lerp_(current[key], weight)
        else:
            value.copy_(current[key])


def _set_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    module.to(memory_format=memory_format)
