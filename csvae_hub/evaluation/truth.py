"""The distance of an edit to the truth, of drawn faces with the attribute changed: the paper's Table 2."""

from __future__ import annotations

from collections import defaultdict
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

ERRORS = ("distance", "unedited", "nothing", "moved", "reconstruction", "by_value")


def distance_to_truth(
    model: AttributeModel, data: AttributeData, latents: Latents | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Mean squared errors between edits and the true pictures.

    Each attribute of each picture is switched against its label, by `model.edit` to True or False on latents encoded
    without labels. The truth is the same picture drawn with the other value and its own hidden kind of the attribute,
    which no model can know. So pictures are also edited *by example*: an absent attribute is taken over from another
    picture (`model.edit(latents, {name: other_latents})`), and the truth has that picture's kind. A model without
    subspaces takes over y_i only. Pictures with a missing label are passed over. The seed chooses the other pictures;
    `latents` are what `encode_data` gave for the data, where they're at hand.

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
    donors = [donors_of(labels, seed) for labels in data.labels.T]
    sums: defaultdict[tuple[str, str], Any] = defaultdict(int)
    for rows in torch.arange(len(data)).split(BATCH):
        original, reconstruction = data.batch(rows)[0], decode_all(model, latents[rows])
        for name, labels, donor in zip(model.attributes, data.labels[rows].T, donors, strict=True):
            for direction, value in DIRECTIONS:
                chosen = torch.from_numpy(labels == (not value))
                if not chosen.any():
                    continue
                part, before = rows[chosen], (original[chosen], reconstruction[chosen])
                edit = decode_all(model, edited(model, latents[part], {name: value}))
                sums[name, direction] += _errors(data.counterfactual(part, name, value), *before, edit)
                if value and donor is not None:
                    by_example = decode_all(model, edited(model, latents[part], {name: latents[donor[part]]}))
                    truth = data.counterfactual(part, name, True, kinds=donor[part])
                    sums[name, "by_example"] += _errors(truth, *before, by_example, edit)
    attributes: dict[str, dict[str, Any]] = {}
    for name, labels in zip(model.attributes, data.labels.T, strict=True):
        attributes[name] = {part: _figures(sums[name, part]) for part in (*dict(DIRECTIONS), "by_example")}
        if empty := [value for direction, value in DIRECTIONS if attributes[name][direction] is None]:
            attributes[name]["reason"] = without_pictures(labels, empty[0])
    directions = [entry[d] for entry in attributes.values() for d, _ in DIRECTIONS if entry[d]]
    by_example = [entry["by_example"] for entry in attributes.values() if entry["by_example"]]
    return {**_means(directions, ERRORS[:-1]), "by_example": _means(by_example, ERRORS), "attributes": attributes}


def donors_of(labels: NDArray[np.float32], seed: int) -> Tensor | None:
    """For each of N examples the index of a random one that has the attribute; None where none has it."""
    present = np.flatnonzero(labels == 1)
    if len(present) == 0:
        return None
    return torch.from_numpy(np.random.default_rng(seed).choice(present, len(labels)))


def _errors(truth: Tensor, original: Tensor, again: Tensor, edit: Tensor, by_value: Tensor | None = None) -> Tensor:
    """Sums of `ERRORS` over pictures (B, C, H, W), then of pixels and pictures: inside and outside of the attribute."""
    pairs = [(edit, truth), (again, truth), (original, truth), (edit, original), (again, original)]
    pairs += [] if by_value is None else [(by_value, truth)]
    squared = [(first - second).square().mean(1, dtype=torch.float64) for first, second in pairs]
    counted = torch.ones_like(squared[0])
    inside = (truth != original).any(1)
    figures = torch.stack([*squared, counted, counted / inside[0].numel()])
    return torch.stack([figures[:, inside].sum(1), figures[:, ~inside].sum(1)])


def _figures(sums: Tensor | int) -> dict[str, Any] | None:
    """The mean squared errors of what `_errors` gave, or None where no picture came."""
    if isinstance(sums, int):
        return None

    def means(errors: Tensor) -> dict[str, float | None]:
        *found, pixels, _ = errors.tolist()
        return {name: e / pixels if pixels else None for name, e in zip(ERRORS, found, strict=False)}

    inside, outside = sums
    total = sums.sum(0)
    regions = {"inside": means(inside), "outside": means(outside), "share": (inside[-2] / total[-2]).item()}
    return {**means(total), **regions, "count": round(total[-1].item())}


def _means(entries: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Means of the errors over entries, everywhere and by region."""
    regions = {r: {name: mean(entry[r][name] for entry in entries) for name in names} for r in ("inside", "outside")}
    return {**{name: mean(entry[name] for entry in entries) for name in names}, **regions}
