"""The one training loop: two optimisers that alternate on every batch, and a run that can be killed at any moment."""

from __future__ import annotations

import copy
import json
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from csvae_hub.config import check, to_dict
from csvae_hub.errors import ConfigError, require
from csvae_hub.training import checkpoint
from csvae_hub.training.options import FREE_TO_CHANGE, TrainerConfig, learning_rate_factor
from csvae_hub.training.run_log import Means, RunLog, write_grid

if TYPE_CHECKING:
    from csvae_hub.data import AttributeData
    from csvae_hub.models import AttributeModel
    from csvae_hub.training.objective import Objective


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


class Trainer:
    """Trains an objective on data and leaves logs, grids, checkpoints and the trained model in a folder.

    The folder, if any, gets `log.jsonl`, `logs/` (TensorBoard), `grids/epoch-NNN.png` (original, reconstruction, each
    attribute switched), `checkpoints/` and at the end `model/`, a weights folder with `training.json`. `record` is
    what training.json says besides (the recipe). The device is accelerate's choice; ACCELERATE_USE_CPU=1 forces the
    CPU.

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
        folder: Path | None = None,
        *,
        record: Mapping[str, Any] | None = None,
        quiet: bool = False,
    ) -> None:
        check(len(train_data) > 0, "train_data", "at least one example", len(train_data))
        require("accelerate", "train")
        from accelerate import Accelerator

        self.accelerator = Accelerator()
        check(self.accelerator.num_processes == 1, "num_processes", "one process", self.accelerator.num_processes)
        self.device = self.accelerator.device
        self.config, self.train_data, self.valid_data = config, train_data, valid_data
        self.folder = None if folder is None else Path(folder)
        self.record, self.quiet = dict(record or {}), quiet
        self.is_image = train_data.images.ndim == 4
        self.memory_format = torch.channels_last if self.is_image else torch.contiguous_format
        self.objective = objective.to(self.device)
        _set_memory_format(objective, self.memory_format)
        self.average = copy.deepcopy(objective.model).eval()
        self.adversary = objective.adversary_parameters()
        self._set_optimizer()
        self.adversary_optimizer = (
            torch.optim.Adam(self.adversary, config.adversary_learning_rate, config.betas) if self.adversary else None
        )
        self.batches_per_epoch = max(1, len(train_data) // config.batch_size)  # a last part of a batch is left out
        self.rests_at = (config.epochs - config.rest_epochs) * self.batches_per_epoch
        self.elapsed = 0.0

    def fit(self, resume: bool = True) -> AttributeModel:
        """Trains and gives the averaged model in eval mode (a copy: `objective.model` keeps the last weights).

        With `resume` the newest whole checkpoint of the folder is gone on from: on the CPU, with as many threads, the
        weights are then equal to the bit to those of a run that was never stopped. Without it the folder's
        checkpoints are removed. The caller's random state and thread count are left as they were.

        Raises:
            ConfigError: the checkpoint is of another configuration or other data.
            FloatingPointError: a loss is no longer finite.
        """
        config, objective, size = self.config, self.objective, self.config.batch_size
        last = config.epochs * self.batches_per_epoch
        with self._surroundings(), closing(RunLog(self.folder, last, self.quiet)) as log:
            first = self._restore(resume)
            log.start(first)
            started, saved = time.monotonic() - self.elapsed, time.monotonic()
            means = Means()
            order = batch_order(len(self.train_data), config.seed, first // self.batches_per_epoch)
            for batch in range(first, last):
                if batch == self.rests_at:
                    self._rest()
                epoch, step = divmod(batch, self.batches_per_epoch)
                if step == 0:
                    order = batch_order(len(self.train_data), config.seed, epoch)
                self._set_learning_rates(batch)
                images, attributes = self._examples(order[step * size : (step + 1) * size])

                objective.train()
                terms = self._generative_step(images, attributes)
                for _ in range(objective.adversary_steps if self.adversary_optimizer else 0):
                    terms |= self._adversary_step()
                update_average(self.average, objective.model, config.ema_decay, batch)

                means.add(terms)
                done, now = batch + 1, time.monotonic()
                self.elapsed = now - started
                epoch_ends = step + 1 == self.batches_per_epoch
                save = done == last or now - saved >= 60 * config.checkpoint_minutes
                if save or epoch_ends or done % config.log_every_steps == 0:
                    rate = {"learning_rate": self.optimizer.param_groups[0]["lr"]}
                    log.write("batch", done, epoch + 1, size, means.take(done) | rate)
                if epoch_ends:
                    log.write("epoch", done, epoch + 1, size, self._end_epoch(epoch) | {"seconds": round(self.elapsed)})
                if save and self.folder is not None:
                    self._save(done)
                    saved = time.monotonic()
        return self._finish()

    def _generative_step(self, images: Tensor, attributes: Tensor) -> dict[str, Tensor]:
        """One step of θ, φ, γ; the adversary's gradients stay None."""
        with _frozen(self.adversary), self._autocast():
            loss, terms = self.objective.generative_step(images, attributes)
        terms = {"loss": loss.detach(), **terms}
        self._step(self.optimizer, self.generative, loss, terms, self.config.gradient_clip)
        return terms

    def _adversary_step(self) -> dict[str, Tensor]:
        """One step of δ on the latents of the last generative step; the gradients of all else stay None."""
        assert self.adversary_optimizer is not None
        with _frozen(self.generative), self._autocast():
            loss, terms = self.objective.adversary_step()
        self._step(self.adversary_optimizer, self.adversary, loss, {}, None)
        return {"adversary_loss": loss.detach(), **terms}

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        loss: Tensor,
        terms: dict[str, Tensor],
        clip: float | None,
    ) -> None:
        self.accelerator.backward(loss)
        if clip is not None:
            norm = self.accelerator.clip_grad_norm_(parameters, clip)
            terms["gradient_norm"] = torch.as_tensor(norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _set_optimizer(self) -> None:
        self.generative = self.objective.generative_parameters()
        self.optimizer = torch.optim.Adam(self.generative, self.config.learning_rate, self.config.betas)

    def _rest(self) -> None:
        """Goes on from the averaged weights with the encoder at rest; the optimiser's moments begin anew."""
        model = self.objective.model
        model.load_state_dict(self.average.state_dict())
        model.rest(self._all_examples(mirrored=self.config.flip and self.is_image))
        self.average.load_state_dict(model.state_dict())
        self._set_optimizer()

    def _all_examples(self, mirrored: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples in batches, then all of them mirrored."""
        for flip in (False, True) if mirrored else (False,):
            for part in torch.arange(len(self.train_data)).split(256):
                x, y = self.train_data.batch(part)
                yield (x.flip(-1) if flip else x).to(self.device), y.to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _set_learning_rates(self, batch: int) -> None:
        config = self.config
        factor = learning_rate_factor(config.schedule, config, batch, self.batches_per_epoch)
        self.optimizer.param_groups[0]["lr"] = config.learning_rate * factor
        if self.adversary_optimizer is not None:
            factor = learning_rate_factor(config.adversary_schedule, config, batch, self.batches_per_epoch)
            self.adversary_optimizer.param_groups[0]["lr"] = config.adversary_learning_rate * factor

    def _examples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images, attributes = self.train_data.batch(indices)
        if self.config.flip and self.is_image:
            images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(-1), images)
        return images.to(self.device, memory_format=self.memory_format), attributes.to(self.device)

    @torch.no_grad()
    def _end_epoch(self, epoch: int) -> dict[str, float]:
        """Draws the grid; gives the averaged model's squared error per value on up to 512 valid examples."""
        if self.valid_data is None or len(self.valid_data) == 0:
            return {}
        with torch.random.fork_rng():
            every = self.config.grid_every_epochs
            if self.folder is not None and self.is_image and every and (epoch + 1) % every == 0:
                write_grid(self.average, self.valid_data, self.folder / "grids" / f"epoch-{epoch + 1:03d}.png")
            indices = torch.linspace(0, len(self.valid_data) - 1, min(512, len(self.valid_data))).long()
            total = 0.0
            for part in indices.split(128):
                x = self.valid_data.batch(part)[0].to(self.device)
                decoded = self.average.decode(self.average.encode(x))
                total += (decoded - x).square().flatten(1).mean(1).sum().item()
        return {"valid_mse": total / len(indices)}

    def _tensors(self) -> dict[str, Tensor]:
        tensors = checkpoint.module_tensors(self.objective, "objective")
        tensors |= checkpoint.module_tensors(self.average, "average")
        tensors |= checkpoint.optimizer_tensors(self.optimizer, "generative")
        if self.adversary_optimizer is not None:
            tensors |= checkpoint.optimizer_tensors(self.adversary_optimizer, "adversary")
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one before, under dotted names."""
        fixed = {name: value for name, value in to_dict(self.config).items() if name not in FREE_TO_CHANGE}
        identity = {"trainer": fixed, "data_fingerprint": self.train_data.fingerprint}
        return _flat({**identity, **{key: value for key, value in self.record.items() if key != "trainer"}})

    def _save(self, batches: int) -> None:
        assert self.folder is not None
        progress = {"elapsed": self.elapsed, "identity": self._identity()}
        folder = self.folder / "checkpoints"
        checkpoint.save_checkpoint(folder, batches, self._tensors(), progress, self.config.keep_checkpoints)

    def _restore(self, resume: bool) -> int:
        """Puts the newest checkpoint in place, or starts the random numbers; gives the number of batches done."""
        torch.manual_seed(self.config.seed)
        folder = None if self.folder is None else self.folder / "checkpoints"
        if folder is None or not folder.exists():
            return 0
        if not resume:
            shutil.rmtree(folder)
            return 0
        found = checkpoint.load_latest(folder)
        if found is None:
            return 0
        tensors, progress = found
        now, then = self._identity(), progress["identity"]
        for name in sorted(now.keys() | then.keys()):
            before, value = then.get(name), now.get(name)
            if before != value:
                raise ConfigError(
                    f"{name}: the checkpoint in {folder} was made with {before!r}, this run has {value!r}: "
                    "keep the value, or train in another folder, or without resuming"
                )
        if int(progress["batches"]) > self.rests_at:
            self.objective.model.rest()
            self._set_optimizer()
        checkpoint.load_module_tensors(self.objective, "objective", tensors)
        checkpoint.load_module_tensors(self.average, "average", tensors)
        checkpoint.load_optimizer_tensors(self.optimizer, "generative", tensors)
        if self.adversary_optimizer is not None:
            checkpoint.load_optimizer_tensors(self.adversary_optimizer, "adversary", tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.elapsed = float(progress["elapsed"])
        return int(progress["batches"])

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        with torch.random.fork_rng():
            torch.set_num_threads(self.config.num_threads or threads)
            try:
                yield
            finally:
                torch.set_num_threads(threads)

    def _finish(self) -> AttributeModel:
        model = self.average.eval()
        _set_memory_format(model, torch.contiguous_format)
        model.settle(self._all_examples(), self.config.clear_means)
        if self.folder is not None:
            model.save_pretrained(self.folder / "model", extra={"training.json": self._training_record()})
        return model

    def _training_record(self) -> dict[str, Any]:
        from importlib.metadata import version

        libraries = ("csvae-hub", "torch", "accelerate", "safetensors", "numpy")
        return {
            **self.record,
            "trainer": to_dict(self.config),
            "seed": self.config.seed,
            "examples": len(self.train_data),
            "data_fingerprint": self.train_data.fingerprint,
            "elapsed_seconds": round(self.elapsed, 1),
            "device": str(self.device),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        }


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Keeps gradients away from parameters while a loss is built."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return json.loads(json.dumps(flat))


def _set_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    module.to(memory_format=memory_format)
