"""A batch that several processes share: each holds every n-th example, and what is drawn is drawn for all of them.

All processes draw the same random numbers for the whole batch, and each takes those of its own examples. So a training
in any number of processes is the same but for rounding. One process holds the whole batch, and nothing here does
anything then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The examples rank, rank + of, rank + 2 of, … of a batch."""

    rank: int = 0
    of: int = 1


_SHARE: ContextVar[Share] = ContextVar("share", default=Share())  # noqa: B039  frozen


@contextmanager
def sharing(share: Share) -> Iterator[None]:
    """Within it a batch is a share of the whole one. Every process of torch's default group has to be in one."""
    token = _SHARE.set(share)
    try:
        yield
    finally:
        _SHARE.reset(token)


def whole(examples: int) -> int:
    """The size of the whole batch of which this process holds so many examples."""
    return examples * _SHARE.get().of


def mine(rows: Tensor) -> Tensor:
    """The rows of this process's examples: of the whole batch (N, …) to (N / processes, …)."""
    share = _SHARE.get()
    return rows if share.of == 1 else rows[share.rank :: share.of]


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of the whole batch, without gradient: (B, …) to (B · processes, …)."""
    share, rows = _SHARE.get(), rows.detach()
    if share.of == 1:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(share.of)]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)
