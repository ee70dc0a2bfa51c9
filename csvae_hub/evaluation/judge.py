"""The judge of edited pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from csvae_hub.classifier import AttributeClassifier, train_classifier
from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation.attribute_change import CHANCE
from csvae_hub.evaluation.metrics import mean, roc_auc

JUDGE_WIDTH, JUDGE_DEPTH = 24, 2
"""Sizes of the judge: others than the guide's by default, so that training can't aim at the judge itself."""


def train_judge(
    data: AttributeData,
    *,
    seed: int = 0,
    epochs: int = 11,
    precision: str = "float32",
    device: torch.device | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> AttributeClassifier:
    """A judge of edits as `evaluate` trains one: on all of `data`, of another size than the guide of training.

    Args:
        data: N pictures and their attributes.
        seed: of weights, order and augmentation.
        epochs: passes over the data.
        precision: "float32" or "bfloat16".
        device: by default CUDA where there is one, else the CPU.
        progress: is called with a line before the first and after each epoch.

    Raises:
        ValueError: what `train_classifier` refuses.
    """
    say = progress or (lambda line: None)
    say(f"training the judge: {epochs} epochs of {len(data)} pictures")
    return train_classifier(
        data,
        epochs=epochs,
        seed=seed,
        width=JUDGE_WIDTH,
        depth=JUDGE_DEPTH,
        precision=precision,
        device=device,
        report=lambda epoch, loss: say(f"judge: epoch {epoch} of {epochs}, loss {loss:.4f}"),
    )


def judge_record(judge: AttributeClassifier, data: AttributeData) -> dict[str, Any]:
    """The judge as `evaluate` reports it."""
    metrics = classifier_metrics(judge, data)
    known = {name: entry["auc"] for name, entry in metrics.items()}
    return {
        "width": judge.width,
        "depth": judge.depth,
        "accuracy": mean(entry["accuracy"] for entry in metrics.values()),
        "at_chance": [name for name, auc in known.items() if auc is not None and auc < CHANCE],
        "attributes": metrics,
    }


def classifier_metrics(classifier: AttributeClassifier, data: AttributeData) -> dict[str, dict[str, float | None]]:
    """`accuracy` (threshold 0.5) and `auc` (ROC) on `data`, for each attribute that both know.

    None stands where no label is there (both), or only one class (AUC).
    """
    probabilities = torch.cat(
        [classifier.probabilities(data.batch(part)[0]) for part in torch.arange(len(data)).split(512)]
    ).numpy()
    metrics: dict[str, dict[str, float | None]] = {}
    for column, name in enumerate(classifier.attributes):
        if name not in data.attributes:
            continue
        labels = data.labels[:, data.attributes.index(name)]
        known = ~np.isnan(labels)
        auc = roc_auc(probabilities[:, column], labels)
        hits = (probabilities[known, column] > 0.5) == (labels[known] == 1)
        metrics[name] = {
            "accuracy": float(hits.mean()) if known.any() else None,
            "auc": None if math.isnan(auc) else auc,
        }
    return metrics
