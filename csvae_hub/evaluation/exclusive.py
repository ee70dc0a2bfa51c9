"""Exclusive groups: edits from each member to each, beside the judges' own confusion, and probes of z."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvae_hub.data.base import AttributeData, column_indices
from csvae_hub.errors import require
from csvae_hub.evaluation.encoding import BATCH, decode_in_batches, edited
from csvae_hub.evaluation.judges import Judges
from csvae_hub.evaluation.leakage import whitened
from csvae_hub.evaluation.metrics import mean
from csvae_hub.models import AttributeModel, Latents


def group_change(model: AttributeModel, data: AttributeData, judges: Judges, latents: Latents) -> list[dict[str, Any]]:
    """Sets each member of each exclusive group and asks the judges which member they see.

    `judges` have never seen a picture of `data`; `latents` are what `encode_data` gave for `data`. A judge's answer is
    the likeliest member.

    Returns:
        For each group `members`, `counts` of the pictures by member, and `judges` by architecture: `own_confusion`, the
        share of the real pictures of each member (row) that is taken for each (column), and `own_accuracy`, the mean
        of its diagonal; `edits`, the share of the pictures of each member (row) that is taken for the one wished
        (column) after the edit, `to`, its means by wished member without the diagonal, and `accuracy`, their mean.
        `accuracy` at the top is the lower judge's, `below_own` the greatest distance to a judge's own accuracy.
        Shares of no picture are None.

    Raises:
        UnknownAttributeError: the judges or the data lack an attribute of the model.
    """
    columns = column_indices(model.attributes, judges.attributes, "The judges")
    data = data.select(model.attributes)
    names = [member.architecture for member in judges.members]

    def answers(batches: Any, group: list[int]) -> Tensor:
        return judges.read(batches)[0][..., columns][..., group].argmax(-1)

    found: list[dict[str, Any]] = []
    for group in map(list, model.config.groups):
        members = [model.attributes[i] for i in group]
        classes = member_of(data.labels[:, group])
        of_class = [np.flatnonzero(classes == c) for c in range(len(group))]
        everything = torch.arange(len(data)).split(BATCH)
        real = answers((data.batch(rows)[0] for rows in everything), group)
        after = [answers(decode_in_batches(model, edited(model, latents, {name: True})), group) for name in members]
        table: dict[str, Any] = {}
        for j, name in enumerate(names):
            own = [[_share(real[j][rows] == c) for c in range(len(group))] for rows in of_class]
            edits = [[_share(after[c][j][rows] == c) for c in range(len(group))] for rows in of_class]
            to = {m: mean(edits[a][c] for a in range(len(group)) if a != c) for c, m in enumerate(members)}
            table[name] = {
                "own_accuracy": mean(own[c][c] for c in range(len(group))),
                "own_confusion": own,
                "accuracy": mean(to.values()),
                "to": to,
                "edits": edits,
            }
        known = [entry for entry in table.values() if None not in (entry["accuracy"], entry["own_accuracy"])]
        found.append(
            {
                "members": members,
                "counts": {name: len(rows) for name, rows in zip(members, of_class, strict=True)},
                "accuracy": min((entry["accuracy"] for entry in known), default=None),
                "below_own": max((entry["own_accuracy"] - entry["accuracy"] for entry in known), default=None),
                "judges": table,
            }
        )
    return found


def group_probes(
    model: AttributeModel, latents: tuple[Latents, ...], labels: tuple[NDArray[np.float32], ...], seed: int = 0
) -> list[dict[str, Any]]:
    """Accuracies of softmax probes that read the member of each group from E[z | x], beside the base rate.

    The probes, a logistic regression and an MLP that stops early, are trained on whitened codes of the first split and
    measured on the last.

    Args:
        model: its groups.
        latents: E[z | x] of train, valid and test, as `encode_data` gives them.
        labels: the attributes (N, k) of the three, in the model's order, NaN where missing.
        seed: of the MLP.

    Returns:
        For each group `members`, `base_rate` (the share of the most frequent member on the last split), `logistic` and
        `mlp`.

    Raises:
        MissingExtraError: scikit-learn is missing.
    """
    linear, neural = require("sklearn.linear_model", "eval"), require("sklearn.neural_network", "eval")
    codes = [part[0].numpy() for part in whitened([part.z.flatten(1)[None] for part in latents])]
    found: list[dict[str, Any]] = []
    for group in map(list, model.config.groups):
        classes = [member_of(y[:, group]) for y in labels]
        (x, y), (test_x, test_y) = ((codes[i][classes[i] >= 0], classes[i][classes[i] >= 0]) for i in (0, -1))
        probes = {
            "logistic": linear.LogisticRegression(max_iter=500),
            "mlp": neural.MLPClassifier((256, 256), alpha=1e-3, early_stopping=True, max_iter=40, random_state=seed),
        }
        found.append(
            {
                "members": [model.attributes[i] for i in group],
                "base_rate": float(np.bincount(test_y).max() / len(test_y)),
                **{name: float(probe.fit(x, y).score(test_x, test_y)) for name, probe in probes.items()},
            }
        )
    return found


def member_of(labels: NDArray[np.float32]) -> NDArray[np.int64]:
    """The position (N,) of the member that each row (N, n) of 0 and 1 has, -1 where a label is missing."""
    return np.where(np.isnan(labels).any(1), -1, np.nan_to_num(labels).argmax(1))


def _share(hits: Tensor) -> float | None:
    return hits.float().mean().item() if len(hits) else None
