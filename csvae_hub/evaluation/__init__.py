"""How good a model is: reconstruction, attribute change by an independent judge, leakage by fresh probes."""

from __future__ import annotations

from csvae_hub.evaluation.attribute_change import attribute_change
from csvae_hub.evaluation.classifier import AttributeClassifier, classifier_metrics, train_classifier
from csvae_hub.evaluation.leakage import leakage
from csvae_hub.evaluation.reconstruction import reconstruction
from csvae_hub.evaluation.report import evaluate, markdown_table

__all__ = [
    "AttributeClassifier",
    "attribute_change",
    "classifier_metrics",
    "evaluate",
    "leakage",
    "markdown_table",
    "reconstruction",
    "train_classifier",
]
