from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from csvae_hub.evaluation.metrics import bootstrap_auc, roc_auc


@pytest.mark.parametrize("levels", [3, 1000])  # many ties, and hardly any
def test_roc_auc_is_sklearns(levels):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).astype(np.float32)
    scores = rng.integers(0, levels, 300) + labels
    assert roc_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_roc_auc_knows_only_the_order():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0])
    assert roc_auc(scores, labels) == roc_auc(np.exp(9 * scores), labels) == 1 - roc_auc(-scores, labels) == 0.75


def test_missing_labels_are_left_out():
    labels = np.array([0.0, 1.0, np.nan])
    assert roc_auc(np.array([1.0, 2.0, 0.0]), labels) == 1


@pytest.mark.parametrize("labels", [[1.0, 1.0], [0.0, 0.0], [np.nan, 1.0], [np.nan, np.nan]])
def test_one_class_has_no_auc(labels):
    scores = np.array([0.2, 0.3])
    assert np.isnan(roc_auc(scores, np.array(labels)))
    assert np.isnan(bootstrap_auc(scores, np.array(labels))).all()


def test_bootstrap_interval_covers_the_truth_and_narrows():
    rng = np.random.default_rng(0)
    widths = []
    for n in (100, 10_000):
        labels = rng.integers(0, 2, n).astype(np.float32)
        scores = rng.normal(0, 1, n)
        low, high = bootstrap_auc(scores, labels)
        assert low < 0.5 < high
        assert low < roc_auc(scores, labels) < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.4)
