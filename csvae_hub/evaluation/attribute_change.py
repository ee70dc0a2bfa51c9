"""The paper's Table 1 with two judges: the wished class, the other attributes, likeness to real pictures, locality."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation.encoding import BATCH, decode_in_batches, edited, encode_data
from csvae_hub.evaluation.judges import Judges, doubt, lower
from csvae_hub.evaluation.locality import LOCAL, Change, locality
from csvae_hub.evaluation.metrics import mean
from csvae_hub.evaluation.realism import frechet_over_floor
from csvae_hub.models import AttributeModel, Latents

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

    Args:
        model: a model of images.
        data: pictures with the model's attributes.
        judges: know all attributes of the model, and have never seen a picture of `data`.
        latents: what `encode_data` gave for `data`, where it's at hand.
        put_back: measures the photos that it gives instead of the decoded pictures.
        seed: of the halves of real pictures.

    Returns:
        For each attribute and for each of the directions `to_present` and `to_absent`: `wished`, the part that a judge
        takes for the wished class (p > 0.5), the lower of the two; `before`, the same of the unedited pictures;
        `others`, the mean |Δp| of the other attributes against the unedited ones, and `others_original` against the
        original, the greater of the two; `frechet_over_floor`, see there, the greater of the two; `count`. `wished` and
        `before` are None with a `reason` where the judges can't tell. A direction without pictures is None, and
        the attribute has a `reason`. At the top the means of all these over attributes and directions, as far as
        they are known; `worst`, the least `wished`; and `locality`, as the function of this name gives it.

    Raises:
        UnknownAttributeError: the judges or the data lack an attribute of the model.
        ValueError: the model takes vectors.
        MissingExtraError: torchmetrics or scikit-learn is missing.
    """
    if not model.config.is_image:
        raise ValueError(f"expected a model of images, got one of vectors of shape {model.config.shape}")
    columns = judges.columns(model.attributes)
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
        for direction, value in DIRECTIONS:
            chosen, having = (torch.from_numpy(np.flatnonzero(labels == kind)) for kind in (not value, value))
            if len(chosen) == 0:
                attributes[name] |= {direction: None, "reason": without_pictures(labels, value)}
                continue
            answer, features = judged(watched(chosen, {name: value}, changes.get(name)))
            before = unedited[:, chosen]
            ratios = (frechet_over_floor(own, r[having], seed=seed) for own, r in zip(features, real, strict=True))
            attributes[name][direction] = {
                "wished": _wished(answer[..., i], value),
                "before": _wished(before[..., i], value),
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
        "locality": locality(changes),
        "attributes": attributes,
    }


def without_pictures(labels: NDArray[np.float32], value: bool) -> str:
    """The reason why no picture can be set to a value: labels (N,) of one attribute."""
    if np.isnan(labels).all():
        return "no picture has a label"
    return f"no picture is labelled {'absent' if value else 'present'}"


def _wished(probabilities: Tensor, value: bool) -> float:
    return ((probabilities > 0.5) == value).float().mean(1).min().item()


def _moved(after: Tensor, before: Tensor, columns: Tensor) -> float | None:
    return (after - before)[..., columns].abs().mean((1, 2)).max().item() if columns.any() else None
