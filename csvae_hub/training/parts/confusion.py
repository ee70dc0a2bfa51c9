"""A further term against y in z: the adversary's distance from knowing nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Independent

from csvae_hub.config import check_weights
from csvae_hub.training.steps import Part, Step


def confusion(q_y: Independent) -> Tensor:
    r"""$\sum_i KL(½ \,\|\, q_\delta(y_i \mid z))$ (Tzeng et al. 2015): k Bernoullis to (B,).

    Least where the entropy is greatest. Where the adversary is sure, the entropy's gradient vanishes, not this one.
    """
    logits: Tensor = q_y.base_dist.logits
    return (-0.5 * (F.logsigmoid(logits) + F.logsigmoid(-logits)) - math.log(2)).sum(-1)


@dataclass(frozen=True)
class Options:
    """weight: of the term."""

    weight: float = 30.0

    def __post_init__(self) -> None:
        check_weights(self, "parts.confusion")


class Confusion(Part):
    """Adds `confusion` of the adversary's answer."""

    Options = Options

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The term, where an adversary was asked."""
        return {} if step.q_y is None else {"confusion": confusion(step.q_y)}
