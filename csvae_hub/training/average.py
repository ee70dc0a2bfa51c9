"""The exponential average of a model that trains, by `torch.optim.swa_utils`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Moves a copy of a model after it: weights and floating buffers (batch norm's too); integers are copied.

    Where the tensors are is listed once, since that takes longer than to average those of a small network. They may be
    replaced later, their modules may not.
    """

    def __init__(self, average: nn.Module, model: nn.Module) -> None:
        self.places = list(zip(_places(average), _places(model), strict=True))

    @torch.no_grad()
    def update(self, decay: float, batch: int) -> None:
        """Average ← decay · average + (1 − decay) · model.

        Early on the decay is bounded by (1 + batch) / (10 + batch), so that the start is forgotten.
        """
        decay = min(decay, (1 + batch) / (10 + batch))
        pairs = [(ours[name], theirs[name]) for (ours, name), (theirs, _) in self.places]
        moving = [pair for pair in pairs if decay > 0 and pair[0].is_floating_point()]
        if moving:
            get_ema_multi_avg_fn(decay)([value for value, _ in moving], [current for _, current in moving], batch)
        for value, current in pairs:
            if decay == 0 or not value.is_floating_point():
                value.copy_(current)


def _places(module: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """For each parameter and buffer, where a module of it holds it, and by which name."""
    for held in (held for child in module.modules() for held in (child._parameters, child._buffers)):
        yield from ((held, name) for name, tensor in held.items() if tensor is not None)
