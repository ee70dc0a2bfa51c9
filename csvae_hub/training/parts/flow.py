"""A flow takes out of z what it says of y, fitted where the encoder comes to rest."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from csvae_hub.config import check
from csvae_hub.training.parts._common import all_codes
from csvae_hub.training.progress_line import Reports
from csvae_hub.training.steps import Examples, NoOptions, Objective, Part, Step


class Flow(Part):
    """Fits the model's `ConditionalFlow` to all training data at the beginning of the rest."""

    Options = NoOptions

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__(options, objective)
        model = objective.model
        check(model.config.flow > 0, "model.flow", "a width above 0 with [parts.flow]", model.config.flow)

        def fit(examples: Examples) -> None:
            codes, attributes = all_codes(model, examples)
            if model.q_z.flow is not None:
                model.q_z.flow.fit(codes, attributes, progress=Reports("fitting the flow", objective.say))

        objective.fit_at_rest.append(fit)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """None."""
        check(step.objective.begin_rest is not None, "parts.flow", "[parts.rest] beside it, to fit it in", "none")
        return {}
