"""A further term against y in z: the adversary's distance from knowing nothing."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Independent

from csvae_hub.training.steps import Part, Step, Weighted


def confusion(q_y: Independent) -> Tensor:
    r"""$\sum_i KL(½ \,\|\, q_\delta(y_i \mid z))$ (Tzeng et al. 2015): k Bernoullis to (B,).

    Least where the entropy is greatest. Where the adversary is sure, the entropy's gradient vanishes, not this one.
    """
    logits: Tensor = q_y.base_dist.logits
    return (-0.5 * (F.logsigmoid(logits) + F.logsigmoid(-logits)) - math.log(2)).sum(-1)


class Confusion(Part):
    """Adds `confusion` of the adversary's answer."""

    Options = Weighted

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The term, where an adversary was asked."""
        return {} if step.q_y is None else {"confusion": confusion(step.q_y)}
