"""The quality of a model: reconstruction, edits by two judges and against the truth, leakage by fresh probes."""

from __future__ import annotations

from csvae_hub.classifier import AttributeClassifier, train_classifier
from csvae_hub.evaluation.attribute_change import attribute_change, frechet_over_floor
from csvae_hub.evaluation.compare import compare, comparison_table, over_seeds
from csvae_hub.evaluation.judges import Judges, classifier_metrics, train_judges
from csvae_hub.evaluation.leakage import leakage
from csvae_hub.evaluation.reconstruction import bound, reconstruction
from csvae_hub.evaluation.report import check_disjoint, evaluate
from csvae_hub.evaluation.truth import distance_to_truth
from csvae_hub.evaluation.variety import variety

__all__ = [
    "AttributeClassifier",
    "Judges",
    "attribute_change",
    "bound",
    "check_disjoint",
    "classifier_metrics",
    "compare",
    "comparison_table",
    "distance_to_truth",
    "evaluate",
    "frechet_over_floor",
    "leakage",
    "over_seeds",
    "reconstruction",
    "train_classifier",
    "train_judges",
    "variety",
]
