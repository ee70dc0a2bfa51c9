"""A flow takes out of z what it says of y, fitted where the encoder comes to rest."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from csvae_hub import erasure
from csvae_hub.config import check
from csvae_hub.training.parts._common import all_codes
from csvae_hub.training.progress_line import Reports
from csvae_hub.training.steps import Examples, NoOptions, Objective, Part, Step

TRIAL = 12
"""Steps of the trial that tells how long a fit will take; the first two are not counted."""


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
        objective.seconds_at_rest.append(lambda: _expected_seconds(objective))

    def terms(self, step: Step) -> dict[str, Tensor]:
        """None."""
        check(step.objective.begin_rest is not None, "parts.flow", "[parts.rest] beside it, to fit it in", "none")
        return {}


def _expected_seconds(objective: Objective) -> float:
    """The time that a fit will take, by some steps of a copy of the flow on noise."""
    flow, times = deepcopy(objective.model.q_z.flow), list[float]()
    if flow is None:
        return 0.0
    noise = torch.randn(erasure.BATCH, objective.model.config.z_dim, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(erasure.BATCH, len(objective.model.attributes), device=objective.model.device)
    flow.fit(noise.to(y.device), y, steps=TRIAL, progress=lambda done, steps: times.append(time.monotonic()))
    return erasure.STEPS * (times[-1] - times[1]) / (TRIAL - 2)
