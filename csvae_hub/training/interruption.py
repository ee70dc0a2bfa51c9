"""SIGTERM: a run that is asked to end saves a checkpoint first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STATUS = 128 + signal.SIGTERM
"""The exit status of a process that SIGTERM ended, as shells and schedulers count it."""


@contextmanager
def sigterm_stops(stop: Callable[[], None], say: Callable[[], None], came: list[int]) -> Iterator[None]:
    """Calls `stop` when SIGTERM comes; what is inside is to end soon and to keep what it has.

    Then calls `say` and ends the process with status 143. The handler from before is back in place by then. Outside
    the main thread, where Python gives no signals, nothing is changed. `came` is emptied at first, and gets the signal;
    what another process put there counts alike.

    Raises:
        SystemExit: SIGTERM came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came.clear()

    def handle(number: int, frame: object) -> None:
        came.append(number)
        stop()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
    if came:
        say()
        raise SystemExit(STATUS)
