"""ROC AUC with missing labels, its bootstrap interval, and means of the values that are known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from csvae_hub.errors import require


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are known, or None where none is.

    >>> mean([1.0, None, 2.0])
    1.5
    """
    known = [value for value in values if value is not None]
    return float(sum(known) / len(known)) if known else None


def one_sided(labels: np.ndarray) -> str | None:
    """Says which classes labels (N,) hold, or gives None where both are there; NaN is no label.

    >>> one_sided(np.array([1.0, 1.0, np.nan]))
    'only the class present'
    """
    classes = np.unique(labels[~np.isnan(labels)])
    if len(classes) == 0:
        return "no label"
    return f"only the class {'present' if classes[0] else 'absent'}" if len(classes) == 1 else None


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of scores and labels (N,), NaN labels left out; NaN when only one class is left."""
    if one_sided(labels) is not None:
        return float("nan")
    known = ~np.isnan(labels)
    return float(require("sklearn.metrics", "eval").roc_auc_score(labels[known], scores[known]))


def bootstrap_auc(
    scores: np.ndarray, labels: np.ndarray, *, resamples: int = 200, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval (low, high) of `roc_auc`, each class resampled within itself.

    NaN twice when only one class is there.
    """
    if one_sided(labels) is not None:
        return float("nan"), float("nan")
    stats = require("scipy.stats", "eval")

    def auc(present: np.ndarray, absent: np.ndarray, axis: int) -> np.ndarray:
        n, m = present.shape[axis], absent.shape[axis]
        ranks = stats.rankdata(np.concatenate([present, absent], axis), axis=axis)
        return (ranks.take(range(n), axis).sum(axis) - n * (n + 1) / 2) / (n * m)  # Mann and Whitney's U over its most

    classes = (scores[labels == 1], scores[labels == 0])
    generator = np.random.default_rng(seed)
    found = stats.bootstrap(
        classes, auc, vectorized=True, n_resamples=resamples, method="percentile", random_state=generator
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
