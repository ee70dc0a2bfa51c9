"""The processes of a run, by accelerate: each has a share of every batch, and all do the same at the same moment."""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from csvae_hub.config import check
from csvae_hub.errors import ConfigError, MissingExtraError, require
from csvae_hub.sharing import Share, sharing
from csvae_hub.training.checkpoints import locked

if TYPE_CHECKING:
    from accelerate import Accelerator

    from csvae_hub.models import AttributeModel
    from csvae_hub.training.steps import Objective

PATIENCE = timedelta(hours=1)
"""The time that processes wait for one another, as while the first one decodes pictures."""
AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The type of autocast for each value of `TrainerConfig.precision`."""
OF_ACCELERATE = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""The same in accelerate's words."""


def join(parts: int = 1, log_with: Sequence[str] = (), folder: str | Path | None = None) -> Accelerator:
    """An accelerator that takes a batch in so many parts; the processes of a run find one another.

    `log_with` names trackers of accelerate's; those that need a folder write into `folder`.

    Raises:
        ConfigError: accelerate doesn't know a tracker.
        MissingExtraError: accelerate isn't installed, or the library of a tracker.
    """
    require("accelerate", "train")
    from accelerate import Accelerator, InitProcessGroupKwargs, tracking

    known = sorted(map(str, tracking.LOGGER_TYPE_TO_CLASS))
    installed = [str(name) for name in tracking.get_available_trackers()]
    for name in log_with:
        check(name in known, "log_with", f"one of {', '.join(known)}", name)
        if name not in installed:
            raise MissingExtraError(f"the library of the tracker {name} is missing: pip install {name}")
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    trackers: dict[str, Any] = {"log_with": list(log_with), "project_dir": folder} if log_with else {}
    return Accelerator(gradient_accumulation_steps=parts, kwargs_handlers=[patience], **trackers)


class Minimised(nn.Module):
    """Passes on the loss of a minimisation; wrapped for several processes, it takes the mean of its gradients.

    Gradients are then shared once for each backward pass, of the parameters of this minimisation alone.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.minimised = nn.ParameterList(parameters)

    def forward(self, loss: Tensor) -> Tensor:
        """The loss ()."""
        return loss


class Mean(torch.autograd.Function):
    """The mean of a tensor over the processes; its gradient is that of all processes' losses, by mean."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """The mean."""
        total = values.clone()
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The mean of the gradients."""
        return Mean.forward(ctx, gradients[0])


class BatchNormOnCPU(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` on a CPU, where torch's own does nothing: moments of the whole batch."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalises (B, C, …) by the moments of all processes' batches, and in eval mode by the running ones."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if not self.training:
            norm = (self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
            return F.batch_norm(input, *norm)
        assert self.momentum is not None
        assert self.num_batches_tracked is not None
        x, places, of = input.float(), [d for d in range(input.ndim) if d != 1], distributed.get_world_size()
        columns = (-1, *[1] * (input.ndim - 2))
        near = self.running_mean.clone()  # near the mean, so that squares are of small numbers
        x = x - near.view(columns)
        mean, squares = Mean.apply(torch.stack([x.mean(places), x.square().mean(places)])).unbind()
        variance = squares - mean.square()
        with torch.no_grad():
            count = of * x.numel() / x.shape[1]
            self.running_mean.lerp_(near + mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        x = (x - mean.view(columns)) * (variance + self.eps).rsqrt().view(columns)
        x = x * self.weight.view(columns) + self.bias.view(columns) if self.affine else x
        return x.to(input.dtype)


class Processes:
    """The processes of a run and the precision in which they compute.

    Args:
        accelerator: accelerate's, of which the number of processes and of parts of a batch are taken.
        precision: of `TrainerConfig`.
        clip_norm: the greatest norm of the gradient of a minimisation; None for any.
        compiles: compile the backbone.

    Raises:
        ConfigError: the accelerator's mixed precision is another.
    """

    def __init__(
        self, accelerator: Accelerator, precision: str, clip_norm: float | None = None, compiles: bool = False
    ) -> None:
        check(clip_norm is None or 0 < clip_norm < float("inf"), "clip_norm", "a positive number or none", clip_norm)
        self.accelerator, self.clip_norm, self.compiles = accelerator, clip_norm, compiles
        self.rank, self.count = accelerator.process_index, accelerator.num_processes
        self.accumulation = accelerator.gradient_accumulation_steps
        theirs = accelerator.mixed_precision
        check(
            theirs in ("no", OF_ACCELERATE[precision]),
            "precision",
            f"{theirs!r}, accelerate's, or no mixed precision of accelerate",
            precision,
        )
        self.dtype = AUTOCAST[precision]
        if precision == "float16" and accelerator.scaler is None:
            accelerator.scaler = torch.amp.GradScaler(self.device.type)
        if self.count > 1:
            from accelerate import DistributedDataParallelKwargs

            ours = DistributedDataParallelKwargs(find_unused_parameters=True)  # the encoder may come to rest
            setattr(accelerator, "ddp_handler", accelerator.ddp_handler or ours)  # noqa: B010  typed as None
        self.host: Any = distributed.new_group(backend="gloo", timeout=PATIENCE) if self.count > 1 else None
        self.signals: list[int] = []
        self.gates: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def is_first(self) -> bool:
        """True for the process that writes and speaks."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """Autocast in the run's precision."""
        return torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def sharing(self) -> AbstractContextManager[None]:
        """Within it this process's batches are its share of the whole ones."""
        return sharing(Share(self.rank, self.count))

    def check_batch(self, size: int) -> None:
        """Refuses a batch that can't be shared out.

        Raises:
            ConfigError: the size is no multiple of processes times parts, or leaves less than two examples to one.
        """
        shares = self.count * self.accumulation
        each = f"{self.count} process{'es' if self.count > 1 else ''}, parts for each {self.accumulation}"
        rule = f"a multiple of {shares} and at least {2 * shares} ({each})"
        check(shares == 1 or (size % shares == 0 and size >= 2 * shares), "batch_size", rule, size)

    def parts(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """The parts of this process's share of a batch, over which the gradients are added up."""
        return list(zip(*(t.tensor_split(self.accumulation) for t in tensors), strict=True))

    def average_of(self, objective: Objective) -> AttributeModel:
        """Makes an objective the same everywhere, and gives a copy of its model, in eval mode, for the average.

        The objective's batch norm takes its moments of the whole batch from now on: its layers are replaced, their
        parameters stay. The copy's layers are as they were, and it is not compiled.
        """
        self.equalise(objective)
        average = copy.deepcopy(objective.model).eval()
        for name in ("encode", "decode") if self.compiles else ():
            setattr(objective.model.backbone, name, torch.compile(getattr(objective.model.backbone, name)))
        if self.count > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(objective)
            for child in objective.modules():
                if isinstance(child, nn.SyncBatchNorm) and self.device.type == "cpu":
                    child.__class__ = BatchNormOnCPU
        return average

    def equalise(self, module: nn.Module) -> None:
        """Gives all processes the first one's parameters and buffers."""
        if self.count > 1:
            for value in module.state_dict().values():
                contiguous = value.contiguous()
                distributed.broadcast(contiguous, 0)
                value.copy_(contiguous)

    def prepare(self, name: str, parameters: list[nn.Parameter], rate: float, betas: tuple[float, float]) -> Any:
        """The optimiser of a minimisation, Adam; `gates` gets by its name what the loss passes through.

        accelerate's wrapper of it is left out where it has no scaler to serve: it looks on the disk for an optional
        package at every step, 2 % of a small network's time.
        """
        fused = True if self.device.type == "cuda" else None  # one kernel, where waiting for kernels takes the time
        adam = torch.optim.Adam(parameters, rate, betas, fused=fused)
        self.gates[name], optimizer = self.accelerator.prepare(Minimised(parameters), adam)
        bare = self.accelerator.scaler is None and self.device.type != "xla"
        return adam if bare else optimizer

    def clip(self, optimizer: Any) -> None:
        """Clips the gradients of an optimiser's parameters, which have to be whole."""
        if self.clip_norm is None:
            return
        if self.accelerator.scaler is not None and self.accelerator.mixed_precision != "fp16":
            self.accelerator.scaler.unscale_(optimizer.optimizer)  # else accelerate does so
        self.accelerator.clip_grad_norm_(optimizer.param_groups[0]["params"], self.clip_norm)

    def means(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The means of scalars over the parts of a batch and over the processes."""
        if len(rows) == self.count == 1:
            return dict(rows[0])
        values = torch.stack([torch.stack([value.float() for value in row.values()]) for row in rows]).mean(0)
        if self.count > 1:
            distributed.all_reduce(values)
        return dict(zip(rows[0], (values / self.count).unbind(), strict=True))

    def agree(self, *wishes: bool) -> list[bool]:
        """For each wish whether any process has it; a process gets the SIGTERM of another as its own.

        Every process has to ask at the same moment. It waits for the others and not for a GPU.
        """
        if self.count == 1:
            return list(wishes)
        asked = torch.tensor([bool(self.signals), *wishes], dtype=torch.int32)
        distributed.all_reduce(asked, distributed.ReduceOp.MAX, group=self.host)
        told, *agreed = (value > 0 for value in asked.tolist())
        if told and not self.signals:
            self.signals.append(signal.SIGTERM)
        return agreed

    @contextmanager
    def alone(self, folder: Path | None) -> Iterator[None]:
        """Keeps other runs out of the first process's folder, which no other process names.

        Raises:
            ConfigError: another run is there; all processes raise it.
        """
        with ExitStack() as stack:
            failed: ConfigError | None = None
            try:
                stack.enter_context(locked(folder))
            except ConfigError as error:
                failed = error
            said = self.from_first(None if failed is None else str(failed))
            if said is not None:
                raise failed or ConfigError(said)
            yield

    def from_first(self, value: Any) -> Any:
        """The first process's value, in all."""
        values = [value]
        if self.count > 1:
            distributed.broadcast_object_list(values, 0, group=self.host)
        return values[0]

    def tensors_from_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first process's tensors, on the CPU, in all."""
        if self.count == 1:
            return dict(tensors)
        found: dict[str, Tensor] = {}
        for name, (shape, dtype) in self.from_first({n: (t.shape, t.dtype) for n, t in tensors.items()}).items():
            found[name] = tensors[name].cpu().contiguous() if self.is_first else torch.empty(shape, dtype=dtype)
            distributed.broadcast(found[name], 0, group=self.host)
        return found

    def scaler_tensors(self) -> dict[str, Tensor]:
        """The state of the gradient scaler, for checkpoints; empty without one."""
        scaler = self.accelerator.scaler
        state = {} if scaler is None else scaler.state_dict()
        kept = {name: state[name] for name in ("scale", "_growth_tracker") if name in state}
        return {f"scaler.{name}": torch.tensor(value, dtype=torch.float64) for name, value in kept.items()}

    def load_scaler(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `scaler_tensors` gave.

        Raises:
            KeyError: it isn't there.
        """
        scaler = self.accelerator.scaler
        if scaler is not None:
            growth = int(tensors["scaler._growth_tracker"].item())
            state = {"scale": tensors["scaler.scale"].item(), "_growth_tracker": growth}
            scaler.load_state_dict({**scaler.state_dict(), **state})
