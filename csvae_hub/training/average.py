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
    current = model.state_dict()
    for key, value in average.state_dict().items():
        if value.is_floating_point() and weight < 1:
            value.lerp_(current[key], weight)
        else:
            value.copy_(current[key])
