"""The line that a run shows: live on a terminal, twice a minute elsewhere."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

from csvae_hub.text import printable
from csvae_hub.training.guards import is_watched

PLAIN_SECONDS, LIVE_SECONDS = 30.0, 0.25
"""Seconds between two lines where there is no terminal, and between two states of the live line at least."""
CELLS = 12
"""Width of the bar."""
WORDS = {
    "kl_w": "KL of w",
    "kl_z": "KL of z",
    "negative_entropy": "minus the adversary's entropy",
    "valid_mse": "squared error on validation data",
}
"""The terms that do not speak for themselves."""
PLAIN = {"kind", "batch", "epoch", "images_per_second", "learning_rate", "seconds"}
"""Values that the line leaves out, or says otherwise; it leaves out those of the guards, too."""
CLEAR = "\r\x1b[2K"


class ProgressLine:
    """Time left, speed and the terms in words, on stderr.

    On a terminal the line has a bar and is renewed while batches go by; other lines stand above it. Elsewhere there is
    a plain line every half minute, and at the end. `quiet` says nothing.
    """

    def __init__(self, last_batch: int, quiet: bool) -> None:
        self.last_batch, self.quiet = last_batch, quiet
        self.is_live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet
        self.drawn = False

    def start(self, first_batch: int) -> None:
        """Begins to count the time of a run that starts after `first_batch` batches."""
        self.first_batch, self.started = first_batch, time.monotonic()
        self.shown_at = -math.inf
        self.speed, self.terms = "", ""

    def renew(self, batch: int) -> None:
        """Redraws the live line after a batch, where it is time."""
        if not self.is_live or time.monotonic() - self.shown_at < LIVE_SECONDS:
            return
        self.shown_at, self.drawn = time.monotonic(), True
        done = batch / self.last_batch
        full, empty = ("█", "░") if _prints("█░") else ("#", "-")
        bar = full * int(CELLS * done) + empty * (CELLS - int(CELLS * done))
        text = f"{bar} {done:.0%}, {self._left(batch)}{self.speed}{self.terms}"
        sys.stderr.write(CLEAR + printable(text)[: _columns() - 1])  # a wrapped line can't be rewritten
        sys.stderr.flush()

    def take(self, kind: str, batch: int, entry: Mapping[str, Any]) -> None:
        """Takes in an entry of the log; an "epoch" entry stays on a terminal, above the live line."""
        shown = {name: value for name, value in entry.items() if name not in PLAIN and not is_watched(name)}
        terms = "; " + ", ".join(f"{WORDS.get(name, name)} {value:.4g}" for name, value in shown.items())
        speed = f", {entry['images_per_second']:.0f} examples a second" if kind == "batch" else ""
        if kind == "batch":
            self.speed, self.terms = speed, terms
        if self.is_live:
            if kind == "epoch":
                self.say(f"epoch {entry['epoch']}, batch {batch} of {self.last_batch}{terms}")
            self.shown_at = -math.inf
            self.renew(batch)
        elif time.monotonic() - self.shown_at >= PLAIN_SECONDS or batch >= self.last_batch:
            self.shown_at = time.monotonic()
            self.say(f"epoch {entry['epoch']}, batch {batch} of {self.last_batch}, {self._left(batch)}{speed}{terms}")

    def say(self, text: str) -> None:
        """A line of its own, at once."""
        if self.drawn:
            sys.stderr.write(CLEAR)
            self.drawn = False
        say(printable(text), self.quiet)

    def close(self) -> None:
        """Leaves the live line as it stands, and the cursor on the next one."""
        if self.drawn:
            say("")

    def _left(self, batch: int) -> str:
        seconds = (time.monotonic() - self.started) / max(1, batch - self.first_batch) * (self.last_batch - batch)
        return f"{_clock(seconds)} left"


def say(line: str, quiet: bool = False) -> None:
    """A line on stderr at once, of what is being done now."""
    if not quiet:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _prints(text: str) -> bool:
    try:
        text.encode(sys.stderr.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _columns() -> int:
    """The width of the terminal behind stderr; stdout may be a file."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
