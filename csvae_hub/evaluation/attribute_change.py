"""The paper's Table 1 with two judges: the wished class, the other attributes, likeness to real pictures, locality."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from csvae_hub.data.base import AttributeData, column_indices
from csvae_hub.errors import require
from csvae_hub.evaluation.encoding import BATCH, decode_in_batches, edited, encode_data
from csvae_hub.evaluation.judges import Judges, doubt, lower
from csvae_hub.evaluation.metrics import mean
from csvae_hub.models import AttributeModel, Latents

CELLS = 4
"""The largest change is that of a cell of a grid of so many cells a side."""
LOCAL = {
    "Eyeglasses": "lower third",
    "Smiling": "upper third",
    "Mouth_Slightly_Open": "upper third",
    "No_Beard": "upper third",
}
"""Attributes of one place in a face, and the part of the crop where nothing should change."""
FEWEST = 10
"""Pictures a side below which no distance is measured."""
DIRECTIONS = (("to_present", True), ("to_absent", False))
PutBack: TypeAlias = Callable[[Tensor, Mapping[str, bool]], Tensor]
"""Edits photos: aligned pictures (B, 3, S, S) in [0, 1] and values to photos (B, 3, H, W), enlarged and put together.

Without values they are the enlarged pictures. `csvae_hub.editing.aligned.put_back` makes one of a model.
"""


def attribute_change(
    model: AttributeModel,
    data: AttributeData,
    judges: Judges,
    latents: Latents | None = None,
    *,
    put_back: PutBack | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Switches each attribute of each picture against its label, one at a time, and asks the judges.

    A picture labelled absent is set to True, one labelled present to False, by `model.edit` on latents encoded
    without labels; pictures with a missing label are passed over. All figures are those of the stricter judge, for each
    attribute and direction. An attribute that a judge can't read on real pictures (ROC AUC below 0.6, or one class
    missing) is left out.

    `judges` have never seen a picture of `data`. `latents` are what `encode_data` gave for `data`, where they're at
    hand. With `put_back` the photos that it gives are measured instead of the decoded pictures. The seed halves the
    real pictures. A member of an exclusive group is set to True alone; see `group_change`.

    Returns:
        For each attribute and for each of the directions `to_present` and `to_absent`: `wished`, the part that a judge
        takes for the wished class (p > 0.5; of an exclusive group: the likeliest member), the lower of the two;
        `before`, the same of the unedited pictures; `others`, the mean |Δp| of the other attributes against the
        unedited ones, and `others_original` against the original, the greater of the two; `frechet_over_floor`, see
        there, the greater of the two; `count`. `wished` and `before` are None with a `reason` where the judges can't
        tell. A direction without pictures is None, and the attribute has a `reason`. At the top the means of all these
        over attributes and directions, as far as they are known; `worst`, the least `wished`; and `locality`, what
        `Change.ratios` gives by attribute of `LOCAL`.

    Raises:
        UnknownAttributeError: the judges or the data lack an attribute of the model.
        ValueError: the model takes vectors.
        MissingExtraError: torchmetrics or scikit-learn is missing.
    """
    if not model.config.is_image:
        raise ValueError(f"expected a model of images, got one of vectors of shape {model.config.shape}")
    columns = column_indices(model.attributes, judges.attributes, "The judges")
    data = data.select(model.attributes)
    if put_back is None:
        codes = encode_data(model, data) if latents is None else latents

        def draw(rows: Tensor, values: Mapping[str, bool]) -> Iterator[Tensor]:
            return decode_in_batches(model, edited(model, codes[rows], values) if values else codes[rows])
    else:

        def draw(rows: Tensor, values: Mapping[str, bool]) -> Iterator[Tensor]:
            return (put_back(data.batch(part)[0], values) for part in rows.split(BATCH))

    def watched(rows: Tensor, values: Mapping[str, bool], change: Change | None) -> Iterator[Tensor]:
        """The edited batches, each compared on its way with the unedited one."""
        if change is None:
            yield from draw(rows, values)
            return
        for after, before in zip(draw(rows, values), draw(rows, {}), strict=True):
            change.add(before, after)
            yield after

    def judged(batches: Iterator[Tensor]) -> tuple[Tensor, list[Tensor]]:
        probabilities, features = judges.read(batches)
        return probabilities[..., columns], features

    everything = torch.arange(len(data))
    original, real = judged(data.batch(rows)[0] for rows in everything.split(BATCH))
    doubts = [doubt(original[..., i].numpy(), data.labels[:, i]) for i in range(len(columns))]
    trusted = torch.tensor([reason is None for reason in doubts])
    unedited, _ = judged(draw(everything, {}))
    attributes: dict[str, dict[str, Any]] = {name: {} for name in model.attributes}
    changes = {name: Change() for name in model.attributes if name in LOCAL}
    for i, (name, labels) in enumerate(zip(model.attributes, data.labels.T, strict=True)):
        others = trusted & (torch.arange(len(trusted)) != i)
        group = next((list(group) for group in model.config.groups if i in group), None)
        for direction, value in DIRECTIONS:
            if group and not value:
                attributes[name][direction] = None
                continue
            chosen, having = (torch.from_numpy(np.flatnonzero(labels == kind)) for kind in (not value, value))
            if len(chosen) == 0:
                attributes[name] |= {direction: None, "reason": without_pictures(labels, value)}
                continue
            answer, features = judged(watched(chosen, {name: value}, changes.get(name)))
            before = unedited[:, chosen]
            ratios = (frechet_over_floor(own, r[having], seed=seed) for own, r in zip(features, real, strict=True))
            attributes[name][direction] = {
                "wished": _wished(answer, i, value, group),
                "before": _wished(before, i, value, group),
                "others": _moved(answer, before, others),
                "others_original": _moved(answer, original[:, chosen], others),
                "frechet_over_floor": max((ratio for ratio in ratios if ratio is not None), default=None),
                "count": len(chosen),
                **({"wished": None, "before": None, "reason": doubts[i]} if doubts[i] else {}),
            }
    found = [entry[d] for entry in attributes.values() for d, _ in DIRECTIONS if entry[d]]
    figures = ("wished", "before", "others", "others_original", "frechet_over_floor")
    return {
        **{key: mean(entry[key] for entry in found) for key in figures},
        "worst": lower(entry["wished"] for entry in found),
        "locality": {name: change.ratios(LOCAL[name]) for name, change in changes.items()},
        "attributes": attributes,
    }


def without_pictures(labels: NDArray[np.float32], value: bool) -> str:
    """The reason why no picture can be set to a value: labels (N,) of one attribute."""
    if np.isnan(labels).all():
        return "no picture has a label"
    return f"no picture is labelled {'absent' if value else 'present'}"


def _wished(probabilities: Tensor, i: int, value: bool, group: list[int] | None) -> float:
    taken = probabilities[..., group].argmax(-1) == group.index(i) if group else probabilities[..., i] > 0.5
    return (taken == value).float().mean(1).min().item()


def _moved(after: Tensor, before: Tensor, columns: Tensor) -> float | None:
    return (after - before)[..., columns].abs().mean((1, 2)).max().item() if columns.any() else None


class Change:
    """The sum of the absolute change at each place over the edits of one attribute."""

    def __init__(self) -> None:
        self.total = torch.zeros(())

    def add(self, before: Tensor, after: Tensor) -> None:
        """Takes pictures (B, C, H, W) in, unedited and edited."""
        self.total = self.total + (after - before).abs().mean(1).double().sum(0)

    def ratios(self, part: str) -> dict[str, float] | None:
        """Mean change in the part and in the `border` (outer tenth), over that of the cell that changes most."""
        if not self.total.any():
            return None
        height, width = self.total.shape
        largest = F.adaptive_avg_pool2d(self.total[None], CELLS).max()
        third = self.total[: round(height / 3)] if part == "upper third" else self.total[-round(height / 3) :]
        top, left = max(1, round(height / 10)), max(1, round(width / 10))
        border = torch.ones_like(self.total, dtype=torch.bool)
        border[top : height - top, left : width - left] = False
        return {part: (third.mean() / largest).item(), "border": (self.total[border].mean() / largest).item()}


def frechet_over_floor(edited: Tensor, real: Tensor, *, seed: int = 0) -> float | None:
    """Fréchet distance of features of edited (N, D) and real pictures (M, D), over that between halves of the real.

    The real pictures have what was wished. The three sets are drawn at random and equally large, so that their number
    does not matter: pictures that are as the real ones score about 1. None with fewer than ten pictures a set, or
    where the halves are equal.

    Raises:
        MissingExtraError: torchmetrics is missing.
    """
    size = min(len(edited), len(real) // 2)
    if size < FEWEST:
        return None
    generator = torch.Generator().manual_seed(seed)
    first, second = real[torch.randperm(len(real), generator=generator)].split(len(real) // 2)[:2]
    edited = edited[torch.randperm(len(edited), generator=generator)[:size]]
    floor = frechet_distance(first[:size], second[:size])
    return frechet_distance(edited, first[:size]) / floor if floor > 0 else None


def frechet_distance(first: Tensor, second: Tensor) -> float:
    r"""$|\mu_1 - \mu_2|^2 + \operatorname{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})$ of sets (N, D)."""
    metric = require("torchmetrics.image.fid", "eval").FrechetInceptionDistance(_Features(first.shape[1]))
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    return max(float(metric.compute()), 0.0)


class _Features(nn.Identity):
    """Stands for the network that torchmetrics asks: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
