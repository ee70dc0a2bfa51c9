"""Training data on the device that trains, where it fits there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from csvae_hub.data.base import AttributeData, Indices, in_batches, row_numbers

SHARE = 1 / 3
"""Of a GPU's free memory, for data; training needs the rest."""
AT_ONCE = 4096
"""Examples that are copied together."""


def on_device(data: AttributeData, device: torch.device) -> AttributeData | OnDevice:
    """The data on a CUDA device, where it takes no more than `SHARE` of what is free there; else the data itself."""
    if device.type != "cuda" or data.images.nbytes > SHARE * torch.cuda.mem_get_info(device)[0]:
        return data
    return OnDevice(data, device)


class OnDevice:
    """The examples of a data set on a device: batches to the bit as `AttributeData` gives them, but made there."""

    def __init__(self, data: AttributeData, device: torch.device) -> None:
        kind = torch.uint8 if data.images.dtype == np.uint8 else torch.float32
        self.images = torch.empty(data.images.shape, dtype=kind, device=device)
        for start in range(0, len(data), AT_ONCE):  # memory-mapped pictures are never all in the host's memory
            part = np.array(data.images[start : start + AT_ONCE])
            self.images[start : start + AT_ONCE] = torch.from_numpy(part).to(device)
        self.labels = torch.from_numpy(data.labels).to(device)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Copies of x, float32 (B, C, H, W) in [0, 1] or (B, D), and y, float32 (B, k), on the device."""
        rows = torch.from_numpy(row_numbers(indices)).to(self.images.device, non_blocking=True)
        x = self.images[rows]
        return x.float().div_(255) if x.dtype == torch.uint8 else x, self.labels[rows]

    def batches(self, size: int, mirrored: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples, in order, in batches of up to so many; then all of them mirrored."""
        return in_batches(self.batch, len(self.images), size, mirrored)
