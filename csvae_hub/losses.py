r"""The terms of the objective (Klys et al. 2018, section 4), one function an equation.

Each gives nats per example, shape (B,), unweighted. The weights β live in `training.objective.ObjectiveConfig`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, kl_divergence


def reconstruction(p_x: Distribution, x: Tensor) -> Tensor:
    r"""$-\log p_\theta(x \mid w, z)$ at one sample of w and z: a likelihood over x (B, …) to (B,)."""
    return -p_x.log_prob(x)


def kl_w(q_w: Distribution, p_w: Distribution) -> Tensor:
    r"""$KL(q_\phi(w \mid x, y) \,\|\, p_\gamma(w \mid y))$ over all subspaces: (B,)."""
    return kl_divergence(q_w, p_w)


def kl_z(q_z: Distribution, p_z: Distribution) -> Tensor:
    r"""$KL(q_\phi(z \mid x) \,\|\, p(z))$: (B,)."""
    return kl_divergence(q_z, p_z)


def negative_entropy(logits: Tensor) -> Tensor:
    r"""$-H[q_\delta(y \mid z)]$ of k Bernoullis: logits (B, k) to (B,).

    Minimised by the encoder of z, so that z says nothing about y.
    """
    p = logits.sigmoid()
    return (p * F.logsigmoid(logits) + (1 - p) * F.logsigmoid(-logits)).sum(-1)  # finite at saturated logits


def confusion(logits: Tensor) -> Tensor:
    r"""$\sum_i KL(½ \,\|\, q_\delta(y_i \mid z))$ (ours; Tzeng et al. 2015): logits (B, k) to (B,).

    Least where the entropy is greatest. Where the adversary is sure, the entropy's gradient vanishes; this one stays.
    """
    return (-0.5 * (F.logsigmoid(logits) + F.logsigmoid(-logits)) - math.log(2)).sum(-1)


def adversary(logits: Tensor, y: Tensor, share: Tensor | None = None) -> Tensor:
    r"""$-\log q_\delta(y \mid z)$: logits (B, k) and attributes (B, k) in [0, 1], NaN where missing, to (B,).

    With `share` (k,), the share of examples that have each attribute, both classes count alike (ours): an adversary
    that knows nothing then answers ½, which is also where its entropy is greatest.
    """
    known = ~y.isnan()
    target = torch.where(known, y, torch.zeros_like(y))
    terms = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if share is not None:
        terms = terms * (target * 0.5 / share + (1 - target) * 0.5 / (1 - share))
    return (terms * known).sum(-1)


def classification(logits: Tensor, y: Tensor) -> Tensor:
    r"""$-\log q(y \mid x)$ of the attribute classifier (ours): logits (B, k), attributes (B, k) or NaN, to (B,)."""
    return adversary(logits, y)


def consistency(logits: Tensor, before: Tensor, wished: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    r"""$-\log r(y_i' \mid x')$ and $\sum_{j \ne i} KL(r(y_j \mid x) \,\|\, r(y_j \mid x'))$ of a guide r (ours).

    Args:
        logits: the guide's, on the edited pictures x' (B, k).
        before: the guide's, on the pictures themselves (B, k).
        wished: attributes after the edit (B, k).
        which: the edited attribute of each picture (B,).

    Returns:
        The edited attribute's term and the others' sum, (B,) each.
    """
    rows = torch.arange(len(logits), device=logits.device)
    own = F.binary_cross_entropy_with_logits(logits[rows, which], wished[rows, which], reduction="none")
    p = before.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, p, reduction="none")
    divergence = cross - F.binary_cross_entropy_with_logits(before, p, reduction="none")
    unedited = torch.ones_like(divergence)
    unedited[rows, which] = 0
    return own, (divergence * unedited).sum(-1)


def invariance(q_z: Distribution, q_z_edited: Distribution) -> Tensor:
    r"""$KL(q(z \mid \hat x) \,\|\, q(z \mid x'))$ of a decoded picture and an edited one (ours): (B,)."""
    return kl_divergence(q_z, q_z_edited)
