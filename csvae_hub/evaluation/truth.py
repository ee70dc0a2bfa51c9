"""The distance of an edit to the truth, of drawn faces with the attribute changed: the paper's Table 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError
from csvae_hub.evaluation.attribute_change import DIRECTIONS, without_pictures
from csvae_hub.evaluation.encoding import BATCH, decode_all, edited, encode_data
from csvae_hub.evaluation.metrics import mean
from csvae_hub.models import AttributeModel, Latents

Nested = dict[str, Any]
ERRORS = ("distance", "unedited", "nothing", "moved", "reconstruction")


def distance_to_truth(
    model: AttributeModel, data: AttributeData, latents: Latents | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Mean squared errors between edits and the true pictures.

    Each attribute of each picture is switched against its label, by `model.edit` to True or False on latents encoded
    without labels. The truth is the same picture drawn with the other value and its own hidden kind of the attribute,
    which no model can know. So pictures are also edited *by example*: an absent attribute is taken over from another
    picture (`model.edit(latents, {name: other_latents})`), and the truth has that picture's kind. A model without
    subspaces takes over y_i only.

    Args:
        model: a model of images.
        data: N drawn pictures with the model's attributes; those with a missing label are passed over.
        latents: what `encode_data` gave for `data`, where it's at hand.
        seed: of the choice of the other pictures.

    Returns:
        Mean squared errors of values in [0, 1]: `distance`, between the edit and the truth; `unedited`, between the
        unedited reconstruction and the truth; `nothing`, between the original and the truth; `moved`, between the edit
        and the original; `reconstruction`, between the unedited reconstruction and the original. The five are means
        over all pixels; `inside` has them over the pixels where truth ≠ original, `outside` over the rest (None where
        there are none). `by_example` has the same, and `by_value`: between the edit to True and the truth with the
        other picture's kind.

        At the top stand means over attributes and directions. `attributes` has these figures for each attribute, by
        `to_present`, `to_absent` and `by_example`, with `count`, the number of pictures, and `share`, the part of the
        pixels that is inside. Figures that can't be measured are None, and the attribute has a `reason`.

    Raises:
        DataError: the data has no counterfactuals.
        UnknownAttributeError: the data lacks an attribute of the model.
    """
    if not data.has_counterfactuals:
        raise DataError(
            "expected drawn data, whose counterfactuals are known, got data without: measure the distance to the truth "
            "on synthetic-faces"
        )
    data = data.select(model.attributes)
    latents = encode_data(model, data) if latents is None else latents
    donors = [donors_of(data.labels[:, i], seed) for i in range(len(model.attributes))]
    tallies = {(name, part): _Tally() for name in model.attributes for part in (*dict(DIRECTIONS), "by_example")}
    for rows in torch.arange(len(data)).split(BATCH):
        original, reconstruction = data.batch(rows)[0], decode_all(model, latents[rows])
        for i, name in enumerate(model.attributes):
            for direction, value in DIRECTIONS:
                chosen = torch.from_numpy(np.flatnonzero(data.labels[rows, i] == (not value)))
                if len(chosen) == 0:
                    continue
                part = rows[chosen]
                before, again = original[chosen], reconstruction[chosen]
                edit = decode_all(model, edited(model, latents[part], {name: value}))
                truth = data.counterfactual(part, name, value)
                tallies[name, direction].add(truth, before, again, edit)
                donor = donors[i]
                if value and donor is not None:
                    by_example = decode_all(model, edited(model, latents[part], {name: latents[donor[part]]}))
                    truth = data.counterfactual(part, name, True, kinds=donor[part])
                    tallies[name, "by_example"].add(truth, before, again, by_example, by_value=edit)
    return _summary({name: _attribute(data.labels[:, i], tallies, name) for i, name in enumerate(model.attributes)})


def donors_of(labels: NDArray[np.float32], seed: int) -> Tensor | None:
    """For each of N examples the index of a random one that has the attribute; None where none has it."""
    present = np.flatnonzero(labels == 1)
    if len(present) == 0:
        return None
    return torch.from_numpy(np.random.default_rng(seed).choice(present, len(labels)))


class _Tally:
    """Sums of squared errors and of pixels, inside and outside the pixels that the attribute changes."""

    def __init__(self) -> None:
        self.count = 0
        self.pixels = torch.zeros(2, dtype=torch.float64)
        self.sums: dict[str, Tensor] = {}

    def add(self, truth: Tensor, original: Tensor, again: Tensor, edit: Tensor, by_value: Tensor | None = None) -> None:
        """Adds pictures (B, C, H, W): the truth, the original, its reconstruction and the edit."""
        inside = (truth != original).any(1)
        self.count += len(truth)
        self.pixels += torch.stack([inside.sum(), (~inside).sum()])
        pairs = {
            "distance": (edit, truth),
            "unedited": (again, truth),
            "nothing": (original, truth),
            "moved": (edit, original),
            "reconstruction": (again, original),
            **({} if by_value is None else {"by_value": (by_value, truth)}),
        }
        for name, (first, second) in pairs.items():
            squared = (first - second).square().mean(1, dtype=torch.float64)
            parts = torch.stack([squared[inside].sum(), squared[~inside].sum()])
            self.sums[name] = self.sums.get(name, torch.zeros_like(self.pixels)) + parts

    def result(self) -> Nested | None:
        """The mean squared errors, or None where no picture came."""
        if self.count == 0:
            return None
        total = self.pixels.sum()
        inside, outside = (
            {name: (sums[i] / self.pixels[i]).item() if self.pixels[i] else None for name, sums in self.sums.items()}
            for i in range(2)
        )
        everywhere = {name: (sums.sum() / total).item() for name, sums in self.sums.items()}
        return {
            **everywhere,
            "inside": inside,
            "outside": outside,
            "share": (self.pixels[0] / total).item(),
            "count": self.count,
        }


def _attribute(labels: NDArray[np.float32], tallies: dict[tuple[str, str], _Tally], name: str) -> Nested:
    entry = {part: tallies[name, part].result() for part in (*dict(DIRECTIONS), "by_example")}
    empty = [value for direction, value in DIRECTIONS if entry[direction] is None]
    return {**entry, "reason": without_pictures(labels, empty[0])} if empty else entry


def _summary(attributes: dict[str, Nested]) -> Nested:
    directions = [entry[d] for entry in attributes.values() for d, _ in DIRECTIONS if entry[d]]
    by_example = [entry["by_example"] for entry in attributes.values() if entry["by_example"]]
    means = _means(directions, ERRORS)
    return {**means, "by_example": _means(by_example, (*ERRORS, "by_value")), "attributes": attributes}


def _means(entries: list[Nested], names: tuple[str, ...]) -> Nested:
    """Means of the errors over entries, everywhere and by region."""
    regions = {r: {name: mean(entry[r][name] for entry in entries) for name in names} for r in ("inside", "outside")}
    return {**{name: mean(entry[name] for entry in entries) for name in names}, **regions}
