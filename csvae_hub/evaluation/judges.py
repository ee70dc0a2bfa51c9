"""Two judges of unlike architectures: a pattern that pleases one network does not please the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from csvae_hub.classifier import ARCHITECTURES, AttributeClassifier, train_classifier
from csvae_hub.data.balance import balanced
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import WeightsMismatchError
from csvae_hub.evaluation.metrics import mean, one_sided, roc_auc

CHANCE = 0.6
"""A judge whose ROC AUC on real pictures lies below this says nothing about edited ones."""
WIDTHS = {"resnet": 24, "convnext": 64}
EPOCHS = 14
"""About a quarter of an hour a judge for 26,578 pictures of 64 pixels, on two cores in bfloat16."""


class Judges:
    """Classifiers that are asked together, none of the model's architecture or the critic's.

    Raises:
        ValueError: no classifier, or other attributes or another order in one of them.
    """

    def __init__(self, members: Iterable[AttributeClassifier]) -> None:
        self.members = tuple(members)
        if len({member.attributes for member in self.members}) != 1:
            raise ValueError("expected judges that read the same attributes, in one order, at least one of them")
        self.attributes = self.members[0].attributes

    def to(self, device: torch.device | str) -> Self:
        """Moves all to a device."""
        for member in self.members:
            member.to(device)
        return self

    def read(self, batches: Iterable[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """p(present) (J, N, k) by each judge, and each judge's features (N, D), of batches of images in [0, 1]."""
        found = [[member.read(images) for member in self.members] for images in batches]
        probabilities = torch.cat([torch.stack([answer for answer, _ in batch]) for batch in found], 1)
        return probabilities, [torch.cat([batch[j][1] for batch in found]) for j in range(len(self.members))]

    def save(self, folder: str | Path) -> None:
        """Writes each judge into a folder of its own, named by its architecture."""
        for member in self.members:
            member.save(Path(folder) / member.architecture)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads what `save` wrote, in eval mode on the CPU.

        Raises:
            WeightsError: a judge is missing or corrupt, or they read different attributes.
        """
        try:
            return cls(AttributeClassifier.load(Path(folder) / name) for name in ARCHITECTURES)
        except ValueError as error:
            raise WeightsMismatchError(f"{folder}: {error}") from error


def train_judges(
    data: AttributeData,
    exclusive: Sequence[Sequence[str]] = (),
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    precision: str = "bfloat16",
    device: torch.device | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Judges:
    """A judge of each architecture, trained on all of `data` with strong augmentation.

    The members of each group of `exclusive` are drawn as often as one another (`balanced`): whether an edit looks like
    a rare one is asked, and a judge that saw it rarely would hardly ever say so. The other arguments are those of
    `train_classifier`; `progress` is called with a line before each judge and after each epoch.

    Raises:
        ValueError: see `train_classifier`.
        DataError: a member of a group that no picture has.
    """
    data = balanced(data, [group[0] for group in exclusive], exclusive) if exclusive else data
    say = progress or (lambda line: None)

    def trained(name: str) -> AttributeClassifier:
        say(f"training the judge {name}: {epochs} epochs of {len(data)} pictures")
        started = time.monotonic()

        def report(epoch: int, loss: float) -> None:
            left = (time.monotonic() - started) / epoch * (epochs - epoch)
            say(f"judge {name}: epoch {epoch} of {epochs}, loss {loss:.4f}, {left / 60:.0f} min left")

        return train_classifier(
            data,
            epochs=epochs,
            seed=seed,
            architecture=name,
            width=WIDTHS[name],
            precision=precision,
            device=device,
            report=report,
        )

    return Judges(map(trained, ARCHITECTURES))


def judges_record(judges: Judges, data: AttributeData) -> dict[str, Any]:
    """The judges' own accuracy and ROC AUC on real pictures, by attribute; the lower of them counts.

    `accuracy` is the mean over the attributes, `at_chance` names those on which a judge has an AUC below 0.6,
    `attributes` has `accuracy` and `auc` by name, `members` what `classifier_metrics` gives, by architecture.
    """
    members = {member.architecture: classifier_metrics(member, data) for member in judges.members}
    attributes = {
        name: {key: lower(found[name][key] for found in members.values()) for key in ("accuracy", "auc")}
        for name in next(iter(members.values()))
    }
    return {
        "accuracy": mean(entry["accuracy"] for entry in attributes.values()),
        "at_chance": [name for name, entry in attributes.items() if entry["auc"] is not None and entry["auc"] < CHANCE],
        "attributes": attributes,
        "members": members,
    }


def classifier_metrics(classifier: AttributeClassifier, data: AttributeData) -> dict[str, dict[str, float | None]]:
    """`accuracy` (threshold 0.5) and `auc` (ROC) on `data`, for each attribute that both know.

    None stands where no label is there (both), or only one class (AUC).
    """
    parts = torch.arange(len(data)).split(512)
    probabilities = torch.cat([classifier.probabilities(data.batch(rows)[0]) for rows in parts]).numpy()
    metrics: dict[str, dict[str, float | None]] = {}
    for name, scores in zip(classifier.attributes, probabilities.T, strict=True):
        if name in data.attributes:
            labels = data.labels[:, data.attributes.index(name)]
            hits = ((scores > 0.5) == (labels == 1))[~np.isnan(labels)]
            auc = None if one_sided(labels) else roc_auc(scores, labels)
            metrics[name] = {"accuracy": float(hits.mean()) if len(hits) else None, "auc": auc}
    return metrics


def doubt(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> str | None:
    """The reason why the judges say nothing on an attribute, or None: their scores (J, N) and the labels (N,)."""
    missing = one_sided(labels)
    if missing is not None:
        return f"the pictures have {missing}: whether the judges read the attribute can't be told"
    auc = min(roc_auc(answer, labels) for answer in scores)
    return None if auc >= CHANCE else f"a judge is at chance: its ROC AUC on unedited pictures is {auc:.2f}"


def lower(values: Iterable[float | None]) -> float | None:
    """The least of the values that are known, or None."""
    return min((value for value in values if value is not None), default=None)
