r"""Removes from E[z | x] what a linear probe reads of y, while the model learns.

What is removed costs $½ |h - r(h)|^2$, as KL of z would cost it. For nothing the encoder says y ever louder in what is
removed, and the moments, which run behind, let a part of it through: the decoder learns to read that part, and misses
it after training, when the moments are those of all data.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from csvae_hub.config import check
from csvae_hub.erasure import LinearEraser
from csvae_hub.models import AttributeModel
from csvae_hub.sharing import gathered
from csvae_hub.training.parts._common import all_codes
from csvae_hub.training.steps import Examples, NoOptions, Objective, Part, Step


class Eraser(Part):
    """Keeps the running moments of the model's `LinearEraser` (`model.erase`), and fits it at the end.

    With a grid nothing is removed while the encoder learns: a `FittedEraser` is fitted where a rest begins, so that the
    decoder learns to do without what it takes, and at the end.
    """

    Options = NoOptions

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__(options, objective)
        check(objective.model.config.erase, "model.erase", "true with [parts.eraser]", objective.model.config.erase)
        objective.at_end.append(_fit)
        if objective.model.config.z_grid > 1:
            objective.fit_at_rest.append(lambda examples: _fit(objective.model, examples))

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The cost of the removed part, while the encoder learns; takes the batch into the moments."""
        q_z = step.objective.model.q_z
        if step.objective.at_rest or not isinstance(q_z.eraser, LinearEraser):
            return {}
        code = q_z.code(step.out.features)[0]
        removed = code - q_z.eraser(code)
        q_z.eraser.observe(gathered(code), gathered(step.out.y))
        return {"removed": 0.5 * removed.square().sum(1)}


def _fit(model: AttributeModel, examples: Examples) -> None:
    codes, attributes = all_codes(model, examples)
    assert model.q_z.eraser is not None
    model.q_z.eraser.fit(codes, attributes)
