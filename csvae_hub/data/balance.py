"""Weights of examples, by which an epoch draws rare attributes as often as others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from csvae_hub.data.base import AttributeData, column_indices, expect

MOST = 20.0
"""An epoch draws no example more often than this, by mean: else the rarest would be learned by heart."""
LABELLED = 0.75
"""At least this share of what an epoch draws has labels, where fewer examples have."""
SWEEPS, CLOSE = 500, 1e-4
"""At most so many rounds over the attributes, which end when none changes a weight by more than this share."""


Partition = Sequence[tuple[NDArray[np.bool_], float]]
"""Classes without an example in common: masks (size,), and their shares, of sum 1."""


def balanced(data: AttributeData, attributes: Sequence[str], exclusive: Sequence[Sequence[str]] = ()) -> AttributeData:
    """The same data, with weights by which each of the attributes is present in half of what an epoch draws.

    In a group of attributes of which an example has exactly one, each member is drawn as often as another. A missing
    label counts for neither class. Where fewer than three quarters of the examples have a label, three quarters of what
    an epoch draws have one: else q(y | x) sees a few of them in a batch, and fills the gaps of all others badly.
    Attributes that go together in the data may keep them from being reached in full, and no weight is above `MOST`.

    Args:
        data: the examples.
        attributes: the names; one of a group stands for its group. None is right for labels alone.
        exclusive: the groups.

    Raises:
        UnknownAttributeError: an attribute that the data lacks.
        DataError: an attribute that all labelled examples have, or none.
    """
    columns = dict(zip(data.attributes, data.labels.T, strict=True))
    column_indices(attributes, data.attributes)
    partitions: list[Partition] = []
    for name in attributes:
        group = next((group for group in exclusive if name in group), None)
        classes = [columns[name] == value for value in (0, 1)] if group is None else [columns[n] == 1 for n in group]
        said = f"{name}: expected examples that have it and others" if group is None else ", ".join(group)
        expect(all(c.any() for c in classes), f"{said}: expected examples of each class to balance, got one without")
        partitions.append([(c, 1 / len(classes)) for c in classes])
    labelled = np.asarray(~np.isnan(data.labels).all(1))
    if 0 < labelled.mean() < LABELLED:
        partitions.append([(labelled, LABELLED), (~labelled, 1 - LABELLED)])
    return data.weighted(raked(len(data), partitions)) if partitions else data


def raked(size: int, partitions: Sequence[Partition]) -> NDArray[np.float64]:
    """Weights (size,) of mean 1 under which the classes of each partition have these shares of its sum.

    Iterative proportional fitting (Deming and Stephan 1940): of all such weights those nearest to equal ones, by their
    relative entropy. What is in no class of a partition keeps its sum.
    """
    weights = np.ones(size)
    for _ in range(SWEEPS):
        before = weights.copy()
        for classes in partitions:
            sums = [weights[members].sum() for members, _ in classes]
            for (members, share), total in zip(classes, sums, strict=True):
                weights[members] *= share * sum(sums) / max(total, 1e-12)
        weights = _limited(weights)
        if np.abs(weights / before - 1).max() < CLOSE:
            break
    return weights


def _limited(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights with a mean of 1 and none above `MOST`."""
    for _ in range(SWEEPS):
        weights = weights / weights.mean()
        if weights.max() <= MOST * (1 + CLOSE):
            break
        weights = np.minimum(weights, MOST)
    return weights
