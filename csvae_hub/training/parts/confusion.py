"""A further term against y in z: the adversary's distance from knowing nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub.distributions import attributes
from csvae_hub.training.steps import Part, Step, Weighted


def confusion(q_y: Independent) -> Tensor:
    r"""$\sum_i KL(½ \,\|\, q_\delta(y_i \mid z))$ (Tzeng et al. 2015), of a group $KL(1/n \,\|\, q)$: (B,).

    Least where the entropy is greatest. Where the adversary is sure, the entropy's gradient vanishes, not this one.
    """
    logits: Tensor = q_y.base_dist.logits
    ignorant = attributes(torch.zeros_like(logits), getattr(q_y.base_dist, "groups", ()))
    return -q_y.log_prob(ignorant.mean) - ignorant.entropy()


class Confusion(Part):
    """Adds `confusion` of the adversary's answer."""

    Options = Weighted

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The term, where an adversary was asked."""
        return {} if step.q_y is None else {"confusion": confusion(step.q_y)}
