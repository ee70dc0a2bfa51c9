"""The exponential average of a model that trains, by `torch.optim.swa_utils`."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, batch: int) -> None:
    """Average ← decay · average + (1 − decay) · model, for weights and floating buffers (batch norm's too).

    Early on the decay is bounded by (1 + batch) / (10 + batch), so that the start is forgotten. Integers are copied.
    """
    decay = min(decay, (1 + batch) / (10 + batch))
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    moving = [pair for pair in pairs if decay > 0 and pair[0].is_floating_point()]
    if moving:
        get_ema_multi_avg_fn(decay)([value for value, _ in moving], [current for _, current in moving], batch)
    for value, current in pairs:
        if decay == 0 or not value.is_floating_point():
            value.copy_(current)
