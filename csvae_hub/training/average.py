"""The exponential average of a model that trains."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, batch: int) -> None:
    """Average ← decay · average + (1 − decay) · model, for weights and floating buffers (batch norm's too).

    Early on the decay is bounded by (1 + batch) / (10 + batch), so that the start is forgotten. Integers are copied.
    """
    weight = 1 - min(decay, (1 + batch) / (10 + batch))
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    moving = [pair for pair in pairs if weight < 1 and pair[0].is_floating_point()]
    if moving:
        torch._foreach_lerp_([value for value, _ in moving], [current for _, current in moving], weight)
    for value, current in pairs:
        if weight == 1 or not value.is_floating_point():
            value.copy_(current)
