"""Removes from E[z | x] what a linear probe reads of y, while the model learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from csvae_hub.config import check
from csvae_hub.models import AttributeModel
from csvae_hub.training.parts._common import all_codes
from csvae_hub.training.steps import Examples, NoOptions, Objective, Part, Step


class Eraser(Part):
    """Keeps the running moments of the model's `LinearEraser` (`model.erase`), and fits it at the end."""

    Options = NoOptions

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__(options, objective)
        check(objective.model.config.erase, "model.erase", "true with [parts.eraser]", objective.model.config.erase)
        objective.at_end.append(_fit)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """None; takes the batch into the moments, while the encoder learns."""
        if step.objective.at_rest:
            return {}
        q_z = step.objective.model.q_z
        assert q_z.eraser is not None
        with torch.no_grad():
            q_z.eraser.observe(q_z.code(step.out.features)[0], step.out.y)
        return {}


def _fit(model: AttributeModel, examples: Examples) -> None:
    codes, attributes = all_codes(model, examples)
    assert model.q_z.eraser is not None
    model.q_z.eraser.fit(codes, attributes)
