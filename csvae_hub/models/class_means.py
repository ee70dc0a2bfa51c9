"""Means of the two classes of each attribute, running or final."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def observe(means: Tensor, points: Tensor, y: Tensor, momentum: float = 0.01, counted: Tensor | None = None) -> None:
    """Takes a batch into class means (k, 2, d), absent and present, in place; a class that is not there stays.

    Args:
        means: (k, 2, d).
        points: (B, k, d), or (B, 1, d) for all attributes.
        y: (B, k), 0 or 1.
        momentum: weight of this batch; 1 forgets what was.
        counted: (B, k) of bool: which examples count for each attribute; by default all.
    """
    everywhere = torch.ones_like(y, dtype=torch.bool) if counted is None else counted
    for value in (0, 1):
        member = ((y.round() == value) & everywhere).to(points)
        count = member.sum(0)[:, None]
        if points.shape[1] == 1:
            total = member.T @ points[:, 0]
        else:
            total = (points * member[..., None]).sum(0)
        kept = 1 - momentum * (count > 0).to(points)
        means[:, value] = kept * means[:, value] + (1 - kept) * total / count.clamp(min=1)
