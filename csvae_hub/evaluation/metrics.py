"""Ranking metrics, and means that leave out what is not known; they need nothing but NumPy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are known, or None where none is.

    >>> mean([1.0, None, 2.0])
    1.5
    """
    known = [value for value in values if value is not None]
    return float(sum(known) / len(known)) if known else None


def one_sided(labels: np.ndarray) -> str | None:
    """Why labels (N,) can't be told apart, in words, or None where both classes are there; NaN is no label.

    >>> one_sided(np.array([1.0, 1.0, np.nan]))
    'only the class present'
    """
    classes = np.unique(labels[~np.isnan(labels)])
    if len(classes) == 0:
        return "no label"
    return f"only the class {'present' if classes[0] else 'absent'}" if len(classes) == 1 else None


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve, P(score | present > score | absent) with ties counted half.

    Scores and labels (N,); labels that are NaN are left out. NaN when only one class is left.
    """
    return float(_weighted_auc(scores, labels, None)[0])


def bootstrap_auc(
    scores: np.ndarray, labels: np.ndarray, *, resamples: int = 200, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of `roc_auc`, both classes resampled within themselves.

    Gives (low, high) in [0, 1]; NaN twice when only one class is there.
    """
    known = ~np.isnan(labels)
    scores, labels = scores[known], labels[known]
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(labels)))
    for value in (0, 1):
        members = np.flatnonzero(labels == value)
        if len(members) == 0:
            return float("nan"), float("nan")
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    low, high = np.quantile(_weighted_auc(scores, labels, weights), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weighted_auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """AUC under each row of weights (R, N), or under equal weights: (R,)."""
    known = ~np.isnan(labels)
    scores, labels = scores[known], labels[known]
    weights = np.ones((1, len(labels))) if weights is None else weights
    if len(labels) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    scores, present, weights = scores[order], labels[order] == 1, weights[:, order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # tied scores form one step of the curve
    positive = np.add.reduceat(weights * present, starts, axis=1)
    negative = np.add.reduceat(weights * ~present, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (positive * below).sum(1) / pairs, np.nan)
