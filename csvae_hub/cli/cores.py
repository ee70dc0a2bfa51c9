"""The cores that a process may use, and torch's threads."""

from __future__ import annotations

import math
import os
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")


def cores(group: Path = CONTROL_GROUP) -> int:
    """The cores that the system gives this process: those of its affinity, and no more than a container's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(affinity, math.ceil(_quota(group)))


def obey_the_cores() -> None:
    """Lets torch start no more threads than there are cores, unless OMP_NUM_THREADS says how many.

    torch counts the cores of the machine where a container has a quota, and its threads then wait for each other.
    """
    import torch

    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(min(torch.get_num_threads(), cores()))


def _quota(group: Path) -> float:
    """Cores, infinite where there is no quota; of control groups of version 2, or else 1."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota, period = (
                (group / f"cpu/cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        except (OSError, ValueError):
            return 1e9
    try:
        return float(quota) / float(period) if float(quota) > 0 else 1e9
    except (ValueError, ZeroDivisionError):  # "max"
        return 1e9
