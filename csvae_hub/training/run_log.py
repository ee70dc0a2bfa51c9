"""The log of a training run: log.jsonl, TensorBoard or other trackers, and the lines that it shows."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TextIO

import torch
from torch import Tensor

from csvae_hub.errors import TrainingError, require
from csvae_hub.hub import replacing
from csvae_hub.training.guards import Guards, is_watched
from csvae_hub.training.progress_line import PLAIN_SECONDS, ProgressLine
from csvae_hub.training.resume import flat, identity, not_finite

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker
    from torch.utils.tensorboard import SummaryWriter

    from csvae_hub.training.trainer import Trainer


class Means:
    """Means of named scalars over batches; they stay on their device until they are taken.

    `examples` names those of a batch, counted from 0, for errors.
    """

    def __init__(self, examples: Callable[[int], Sequence[str]] = lambda batch: ()) -> None:
        self.rows: list[dict[str, Tensor]] = []
        self.examples = examples

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Takes in the scalars of one batch."""
        self.rows.append({name: value.detach().float() for name, value in terms.items()})

    def take(self, batch: int) -> dict[str, float]:
        """Gives the means since the last time; `batch` is the number of the last one.

        Raises:
            TrainingError: one isn't finite; the error names the first batch of that kind and its examples.
        """
        rows = [dict(zip(row, torch.stack([*row.values()]).tolist(), strict=True)) for row in self.rows]
        self.rows = []
        for number, row in enumerate(rows, batch - len(rows) + 1):
            broken = {name: f"{name} = {value}" for name, value in row.items() if not math.isfinite(value)}
            if broken:
                terms = [text for name, text in broken.items() if not is_watched(name)] or [*broken.values()]
                raise not_finite(f"{', '.join(terms)} in batch {number}", self.examples(number - 1))
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: fmean(row[name] for row in rows if name in row) for name in names}


class RunLog:
    """Writes numbers to `folder/log.jsonl`, to trackers and to a `ProgressLine` on stderr.

    The trackers are those of the `accelerator`, which get `record` as the run's configuration. Where it has none, they
    are TensorBoard in `folder/logs`. Without a folder that is left out, and log.jsonl; `quiet` leaves out the line.
    Warnings of the guards and an error of training are entries as well, of the kinds "warning" and "error".

    Raises:
        MissingExtraError: a folder is given and no tracker, and tensorboard isn't installed.
    """

    def __init__(
        self,
        folder: Path | None,
        last_batch: int,
        quiet: bool = False,
        guards: Guards | None = None,
        accelerator: Accelerator | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.guards, self.line = folder, guards, ProgressLine(last_batch, quiet)
        self.file: TextIO | None = None
        self.writer: SummaryWriter | None = None
        self.record, self.trackers = dict(record or {}), list["GeneralTracker"]()
        tracked = accelerator is not None and accelerator.log_with and accelerator.is_main_process
        self.accelerator = accelerator if tracked else None
        if folder is not None and self.accelerator is None:
            require("tensorboard", "train")

    @classmethod
    def of(cls, run: Trainer, guards: Guards) -> RunLog:
        """The log of a run."""
        return cls(run.folder, run.last_batch, run.quiet, guards, run.accelerator, identity(run))

    def start(self, first_batch: int, later: float = 0.0) -> None:
        """Opens the files of a run that starts after `first_batch` batches; later entries are removed.

        `later` are the seconds that the first `aside` begins.
        """
        self.last_time, self.last_batch_logged = time.monotonic(), first_batch
        self.line.start(first_batch, later)
        if first_batch:
            self.say(f"resuming after batch {first_batch} of {self.line.last_batch}")
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            said = _cut_log(self.folder / "log.jsonl", first_batch)
            if self.guards is not None:
                self.guards.said |= said
            self.file = (self.folder / "log.jsonl").open("a", encoding="utf-8")
        if self.accelerator is not None:
            self.accelerator.trackers.clear()  # those of a run before
            self.accelerator.init_trackers("csvae-hub", init_kwargs={"tensorboard": {"purge_step": first_batch + 1}})
            self.trackers = list(self.accelerator.trackers)
            told = {
                name: value if isinstance(value, int | float) else str(value)
                for name, value in flat(self.record).items()
            }
            for tracker in self.trackers:
                if tracker.name != "tensorboard":  # it would get a run of its own for them
                    tracker.store_init_configuration(told)
        elif self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder / "logs"), purge_step=first_batch + 1)

    def is_due(self) -> bool:
        """True when half a minute has gone by since the last entry."""
        return time.monotonic() - self.last_time >= PLAIN_SECONDS

    def write(self, kind: str, batch: int, epoch: int, batch_size: int, values: dict[str, float]) -> None:
        """One entry after `batch` batches: `values` in nats per example, or as they are named.

        Images per second are counted since the entry before; a "batch" entry also renews the line on stderr, and is
        shown to the guards.
        """
        now = time.monotonic()
        entry: dict[str, Any] = {"kind": kind, "batch": batch, "epoch": epoch, **values}
        if kind == "batch":
            images = (batch - self.last_batch_logged) * batch_size
            entry["images_per_second"] = round(images / max(now - self.last_time, 1e-9), 1)
            self.last_time, self.last_batch_logged = now, batch
        self._keep(entry)
        scalars = {f"{kind}/{name}": value for name, value in entry.items() if name not in ("kind", "batch")}
        for tracker in self.trackers:
            tracker.log(scalars, step=batch)
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, batch)
        self.line.take(kind, batch, entry)
        if kind == "batch" and self.guards is not None:
            for name, text in self.guards.look(batch, values).items():
                self._keep({"kind": "warning", "batch": batch, "epoch": epoch, "name": name, "text": text})
                self.say(f"warning, batch {batch}: {text}")

    def say(self, line: str) -> None:
        """A line of its own on stderr."""
        self.line.say(line)

    def aside(self, line: str) -> None:
        """The same, of what is done between two batches: the time since the last entry isn't counted as theirs."""
        now = time.monotonic()
        self.line.leave_out(now - self.last_time)
        self.last_time = now
        self.say(line)

    def _keep(self, entry: Mapping[str, Any]) -> None:
        if self.file is not None:
            self.file.write(json.dumps(entry) + "\n")
            self.file.flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Closes the files, after a last entry where training has failed."""
        if isinstance(error, TrainingError):
            examples = list(error.examples)
            self._keep({"kind": "error", "batch": self.last_batch_logged, "text": str(error), "examples": examples})
        self.line.close()
        if self.file is not None:
            self.file.close()
        if self.writer is not None:
            self.writer.close()
        for tracker in self.trackers:
            tracker.finish()


def _cut_log(path: Path, batch: int) -> set[str]:
    """Removes the entries after `batch` batches, and a last line that was cut off; gives the names of the warnings."""
    kept: list[str] = []
    said: set[str] = set()
    if not path.exists():
        return said
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            if entry["batch"] <= batch and entry["kind"] != "error":
                kept.append(line + "\n")
                said |= {entry["name"]} if entry["kind"] == "warning" else set()
        except (ValueError, KeyError, TypeError):
            continue
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
    return said
