"""The lines that a run shows: live on a terminal, twice a minute elsewhere."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from csvae_hub.text import printable
from csvae_hub.training.guards import is_watched

PLAIN_SECONDS, LIVE_SECONDS = 30.0, 0.25
"""Seconds between two lines where there is no terminal, and between two states of the live line at least."""
FIRST_SECONDS = 2.0
"""Seconds after which a piece of work between two batches first says how long it takes."""
CELLS = 12
"""Width of the bar."""
TERMS = {
    "reconstruction": "reconstruction",
    "kl_w": "KL of w",
    "kl_z": "KL of z",
    "negative_entropy": "minus the adversary's entropy",
    "adversary": "adversary's cross entropy",
}
"""The five terms of the paper in words, each in nats."""
WORDS = {
    **TERMS,
    "negative_cross_entropy": "minus the adversary's cross entropy",
    "classifier": "cross entropy of q(y | x)",
    "loss": "weighted sum",
    "valid_mse": "squared error on validation data",
}
"""All that does not speak for itself."""
PLAIN = {"kind", "batch", "epoch", "images_per_second", "learning_rate", "seconds"}
"""Values that the lines leave out, or say otherwise; they leave out those of the guards, too."""
CLEAR = "\r\x1b[J"
"""Goes to the beginning of the line and clears the screen from there on."""


class ProgressLine:
    """Time left, speed and the terms in words and nats, and the newest grid, on stderr.

    On a terminal a bar stands over a table of all terms, renewed as batches go by; other lines stand above. Elsewhere
    there is a plain line every half minute, and at the end, with the paper's terms. `quiet` says nothing.
    """

    def __init__(self, last_batch: int, quiet: bool) -> None:
        self.last_batch, self.quiet = last_batch, quiet
        self.is_live = _is_live(quiet)
        self.drawn = 0  # lines of the live block

    def start(self, first_batch: int, later: float = 0.0) -> None:
        """Begins to count the time of a run that starts after `first_batch` batches.

        `later` are the seconds of what is to come between two batches; `leave_out` ends them.
        """
        self.first_batch, self.later, self.started = first_batch, later, time.monotonic()
        self.shown_at = -math.inf
        self.speed, self.table, self.grid = "", list[str](), list[str]()

    def renew(self, batch: int) -> None:
        """Redraws the live block after a batch, where it is time."""
        if not self.is_live or time.monotonic() - self.shown_at < LIVE_SECONDS:
            return
        self.shown_at = time.monotonic()
        done = batch / self.last_batch
        full, empty = ("█", "░") if _prints("█░") else ("#", "-")
        bar = full * int(CELLS * done) + empty * (CELLS - int(CELLS * done))
        columns, rows = _size()
        lines = [f"{bar} {done:.0%}, {self._left(batch)}{self.speed}", *self.table, *self.grid][: max(1, rows - 1)]
        cut = [printable(line)[: columns - 1] for line in lines]  # a line that wraps can't be rewritten
        sys.stderr.write(self._cleared() + "\n".join(cut))
        sys.stderr.flush()
        self.drawn = len(cut)

    def take(self, kind: str, batch: int, entry: Mapping[str, Any]) -> None:
        """Takes in an entry of the log; an "epoch" entry stays on a terminal, above the live block."""
        values = {name: value for name, value in entry.items() if name not in PLAIN and not is_watched(name)}
        speed = f", {entry['images_per_second']:.0f} examples a second" if kind == "batch" else ""
        if kind == "batch":
            self.speed, self.table = speed, _table(values)
        if self.is_live:
            if kind == "epoch":
                self.say(f"epoch {entry['epoch']}, batch {batch} of {self.last_batch}; {_in_a_line(values)}")
            self.shown_at = -math.inf
            self.renew(batch)
        elif time.monotonic() - self.shown_at >= PLAIN_SECONDS or batch >= self.last_batch:
            self.shown_at = time.monotonic()
            place = f"epoch {entry['epoch']}, batch {batch} of {self.last_batch}, {self._left(batch)}"
            self.say(f"{place}{speed}; {_in_a_line(values)}")

    def leave_out(self, seconds: float) -> None:
        """Counts so many seconds as no part of the time that batches take; nothing is to come between them any more."""
        self.started += seconds
        self.later = 0.0

    def show_grid(self, path: Path) -> None:
        """Names the newest grid: at once where there is no terminal, else in the live block from now on."""
        self.grid = [f"newest grid: {path}"]
        if not self.is_live:
            self.say(*self.grid)

    def say(self, text: str) -> None:
        """A line of its own, at once."""
        if self.drawn:
            sys.stderr.write(self._cleared())
            self.drawn = 0
        say(printable(text), self.quiet)

    def close(self) -> None:
        """Leaves the live block as it stands, and the cursor on the line below."""
        if self.drawn:
            say("")

    def _cleared(self) -> str:
        """The codes that take the live block away."""
        return (f"\x1b[{self.drawn - 1}A" if self.drawn > 1 else "") + CLEAR

    def _left(self, batch: int) -> str:
        seconds = (time.monotonic() - self.started) / max(1, batch - self.first_batch) * (self.last_batch - batch)
        seconds += self.later
        return f"{_clock(seconds)} left"


class DecodingLine:
    """Says how many pictures are decoded into the cache: in place on a terminal, elsewhere twice a minute."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.is_live = quiet, _is_live(quiet)
        self.started, self.shown_at, self.before = time.monotonic(), -math.inf, 0

    def __call__(self, count: int, total: int | None) -> None:
        """Is told of the pictures of one source; a count that falls begins another one."""
        now = time.monotonic()
        if count < self.before:
            self.started, self.shown_at = now, -math.inf
        self.before, last = count, count == total
        if now - self.shown_at < (LIVE_SECONDS if self.is_live else PLAIN_SECONDS) and not last:
            return
        self.shown_at = now
        speed = count / max(now - self.started, 1e-9)
        text = f"decoding pictures into the cache, which is done once: {count:,}"
        text += "" if total is None else f" of {total:,}, {_clock((total - count) / speed)} left"
        if self.is_live and not last:
            sys.stderr.write(CLEAR + text[: _size()[0] - 1])
            sys.stderr.flush()
        else:
            say((CLEAR if self.is_live else "") + text, self.quiet)


class Reports:
    """Reports, at the first step that tells anything and then twice a minute, how far a piece of work is.

    It is called after each step with the steps that are done and their number, and gives its lines to `say`.
    """

    def __init__(self, work: str, say: Callable[[str], None]) -> None:
        self.work, self.say = work, say
        self.started = self.said_at = time.monotonic()

    def __call__(self, done: int, steps: int) -> None:
        """Counts a step."""
        now = time.monotonic()
        waits = PLAIN_SECONDS if self.said_at > self.started else FIRST_SECONDS
        if now - self.said_at >= waits or done == steps:
            self.said_at = now
            left = (now - self.started) / done * (steps - done)
            self.say(f"{self.work}: step {done} of {steps}, {_clock(left)} left")


def say(line: str, quiet: bool = False) -> None:
    """A line on stderr at once, of what is being done now."""
    if not quiet:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _is_live(quiet: bool) -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet


def _prints(text: str) -> bool:
    try:
        text.encode(sys.stderr.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _table(values: Mapping[str, float]) -> list[str]:
    """A line for each term, the paper's first; the weighted sum of all, which is the last, has no unit."""
    order = [name for name in TERMS if name in values] + [name for name in values if name not in TERMS]
    terms = [f"  {WORDS.get(name, name):<36}{values[name]:>12.4g} nats" for name in order if name != "loss"]
    return terms + ([f"  {WORDS['loss']:<36}{values['loss']:>12.4g}"] if "loss" in values else [])


def _in_a_line(values: Mapping[str, float]) -> str:
    """The paper's terms with their unit, then the weighted sum and the error on validation data."""
    terms = [f"{words} {values[name]:.4g}" for name, words in TERMS.items() if name in values]
    others = [f"{WORDS[name]} {values[name]:.4g}" for name in ("loss", "valid_mse") if name in values]
    return "; ".join(([f"nats: {', '.join(terms)}"] if terms else []) + others)


def _size() -> tuple[int, int]:
    """The columns and rows of the terminal behind stderr; stdout may be a file."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        size = shutil.get_terminal_size()
    return size.columns or 80, size.lines or 24


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
