r"""The terms of the objective (Klys et al. 2018, section 4), one function an equation.

Each gives nats per example, shape (B,), unweighted. `training.steps.ObjectiveConfig` holds the weights β.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence


def reconstruction(p_x: Distribution, x: Tensor) -> Tensor:
    r"""$-\log p_\theta(x \mid w, z)$ at one sample of w and z: a likelihood over x (B, …) to (B,)."""
    return -p_x.log_prob(x)


def kl_w(q_w: Distribution, p_w: Distribution) -> Tensor:
    r"""$KL(q_\phi(w \mid x, y) \,\|\, p_\gamma(w \mid y))$ over all subspaces: (B,)."""
    return kl_divergence(q_w, p_w)


def kl_z(q_z: Distribution, p_z: Distribution) -> Tensor:
    r"""$KL(q_\phi(z \mid x) \,\|\, p(z))$: (B,)."""
    return kl_divergence(q_z, p_z)


def negative_entropy(q_y: Distribution) -> Tensor:
    r"""$-H[q_\delta(y \mid z)]$ of the adversary's answer: (B,).

    Minimised by the encoder of z, so that z says nothing about y.
    """
    return -q_y.entropy()


def cross_entropy(q_y: Independent, y: Tensor, base_rate: Tensor | None = None) -> Tensor:
    r"""$-\log q(y \mid \cdot)$ of k Bernoullis: attributes y (B, k) in [0, 1], NaN where missing, to (B,).

    The adversary's term $-\log q_\delta(y \mid z)$ and the classifier's $-\log q(y \mid x)$ (ours).

    Args:
        q_y: the Bernoullis.
        y: the attributes. A missing one adds nothing.
        base_rate: (k,), the share of examples that have each attribute. With it both classes count alike (ours).
    """
    known = ~y.isnan()
    target = torch.where(known, y, torch.zeros_like(y))
    terms = -q_y.base_dist.log_prob(target)
    if base_rate is not None:
        terms = terms * (target * 0.5 / base_rate + (1 - target) * 0.5 / (1 - base_rate))
    return (terms * known).sum(-1)
