"""The change of an edit in places where the attribute is not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 4
"""The largest change is that of a cell of a grid of so many cells a side."""
LOCAL = {
    "Eyeglasses": "lower third",
    "Smiling": "upper third",
    "Mouth_Slightly_Open": "upper third",
    "No_Beard": "upper third",
}
"""Attributes of one place in a face, and the part of the crop where nothing should change."""


class Change:
    """The sum of the absolute change at each place over the edits of one attribute."""

    def __init__(self) -> None:
        self.total = torch.zeros(())

    def add(self, before: Tensor, after: Tensor) -> None:
        """Takes pictures (B, C, H, W) in, unedited and edited."""
        self.total = self.total + (after - before).abs().mean(1).double().sum(0)

    def ratios(self, part: str) -> dict[str, float] | None:
        """Mean change in the part and in the `border` (outer tenth), over that of the cell that changes most."""
        if not self.total.any():
            return None
        height, width = self.total.shape
        largest = F.adaptive_avg_pool2d(self.total[None], CELLS).max()
        third = self.total[: round(height / 3)] if part == "upper third" else self.total[-round(height / 3) :]
        top, left = max(1, round(height / 10)), max(1, round(width / 10))
        border = torch.ones_like(self.total, dtype=torch.bool)
        border[top : height - top, left : width - left] = False
        return {part: (third.mean() / largest).item(), "border": (self.total[border].mean() / largest).item()}


def locality(changes: Mapping[str, Change]) -> dict[str, dict[str, float] | None]:
    """For each attribute of `LOCAL` that was edited the ratios by place, or None where nothing changed."""
    return {name: change.ratios(LOCAL[name]) for name, change in changes.items()}
