"""Both classes of an attribute count alike in the adversary's loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from csvae_hub.config import check
from csvae_hub.training.steps import NoOptions, Objective, Part, Step


class Balanced(Part):
    """Weighs the classes by the base rates of the training data.

    An adversary that knows nothing then answers ½, or 1/n in an exclusive group of n, where its entropy is greatest.
    """

    Options = NoOptions
    base_rate: Tensor

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__(options, objective)
        data = objective.data
        check(data is not None, "parts.balanced", "training data, to count the classes", data)
        assert data is not None
        rate = torch.from_numpy(data.drawn_labels).nanmean(0).nan_to_num(0.5)
        for group in map(list, objective.model.config.groups):  # a member counts 1/2 over this, which is to be 1/n
            rate[group] *= len(group) / 2
        self.register_buffer("base_rate", rate.clamp(0.01, 0.99))
        objective.base_rate = lambda: self.base_rate

    def terms(self, step: Step) -> dict[str, Tensor]:
        """None."""
        return {}
