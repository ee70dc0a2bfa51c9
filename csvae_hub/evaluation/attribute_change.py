"""Whether an edit does what it says and leaves the rest: the paper's Table 1, with a classifier as the judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvae_hub.classifier import AttributeClassifier
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import unknown_attribute
from csvae_hub.evaluation.encoding import decode_in_batches, edited, encode_data
from csvae_hub.evaluation.metrics import mean, one_sided, roc_auc
from csvae_hub.models import AttributeModel, Latents

CHANCE = 0.6
"""A judge whose ROC AUC on real pictures lies below this says nothing about edited ones."""
DIRECTIONS = (("to_present", True), ("to_absent", False))


def attribute_change(
    model: AttributeModel, data: AttributeData, judge: AttributeClassifier, latents: Latents | None = None
) -> dict[str, Any]:
    """Switches each attribute of each picture against its label, one at a time, and asks the judge about the outcome.

    A picture labelled absent is set to True, one labelled present to False, by `model.edit` on latents encoded
    without labels. Where the judge can't read an attribute of the unedited pictures (ROC AUC below 0.6, or not to be
    told, since one class is missing), its answers on that attribute are left out of all figures.

    Args:
        model: a model of images.
        data: N pictures with the model's attributes; those with a missing label are passed over.
        judge: knows all attributes of the model, and has never seen a picture of `data`.
        latents: what `encode_data` gave for `data`, where it's at hand.

    Returns:
        For each attribute and for each of the directions `to_present` and `to_absent`: `wished`, the share that the
        judge takes for the wished class (p > 0.5), and `before`, the same share among the unedited reconstructions,
        both None with a `reason` where the judge can't tell; `others`, the mean |Δp| of the other attributes against
        the reconstruction, and `others_original` against the original; `count`. A direction without pictures is None,
        and the attribute has a `reason`. At the top the means of all these over attributes and directions, as far as
        they are known, and `worst`, the least `wished` of all directions.

    Raises:
        UnknownAttributeError: the judge or the data lacks an attribute of the model.
        ValueError: the model takes vectors.
    """
    if not model.config.is_image:
        raise ValueError(f"expected a model of images, got one of vectors of shape {model.config.shape}")
    for name in model.attributes:
        if name not in judge.attributes:
            raise unknown_attribute(name, judge.attributes, "The judge")
    data = data.select(model.attributes)
    columns = [judge.attributes.index(name) for name in model.attributes]
    latents = encode_data(model, data) if latents is None else latents

    def judged(codes: Latents) -> Tensor:
        return torch.cat([judge.probabilities(images)[:, columns] for images in decode_in_batches(model, codes)])

    rows = torch.arange(len(data)).split(256)
    original = torch.cat([judge.probabilities(data.batch(part)[0])[:, columns] for part in rows])
    doubts = [judge_doubt(original[:, i].numpy(), data.labels[:, i]) for i in range(len(columns))]
    trusted = torch.tensor([doubt is None for doubt in doubts])
    reconstructed = judged(latents)
    attributes: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(model.attributes):
        attributes[name] = {}
        others = trusted & (torch.arange(len(trusted)) != i)
        for direction, value in DIRECTIONS:
            chosen = torch.from_numpy(np.flatnonzero(data.labels[:, i] == (not value)))
            if len(chosen) == 0:
                attributes[name][direction] = None
                attributes[name]["reason"] = without_pictures(data.labels[:, i], value)
                continue
            answer = judged(edited(model, latents[chosen], {name: value}))
            doubt = doubts[i]
            attributes[name][direction] = {
                "wished": _share(answer[:, i], value) if doubt is None else None,
                "before": _share(reconstructed[chosen, i], value) if doubt is None else None,
                **({} if doubt is None else {"reason": doubt}),
                "others": _change(answer, reconstructed[chosen], others),
                "others_original": _change(answer, original[chosen], others),
                "count": len(chosen),
            }
    directions = [entry[d] for entry in attributes.values() for d, _ in DIRECTIONS if entry[d]]
    means = {key: mean(d[key] for d in directions) for key in ("before", "others", "others_original")}
    wished = [d["wished"] for d in directions]
    worst = min((share for share in wished if share is not None), default=None)
    return {"wished": mean(wished), "worst": worst, **means, "attributes": attributes}


def judge_doubt(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> str | None:
    """Why a judge's word on an attribute says nothing, or None where it does: its scores and the labels (N,)."""
    missing = one_sided(labels)
    if missing is not None:
        return f"the pictures have {missing}: whether the judge reads the attribute can't be told"
    auc = roc_auc(scores, labels)
    return None if auc >= CHANCE else f"the judge is at chance: its ROC AUC on unedited pictures is {auc:.2f}"


def without_pictures(labels: NDArray[np.float32], value: bool) -> str:
    """Why there is nothing to be set to a value: labels (N,) of one attribute."""
    return "no picture has a label" if np.isnan(labels).all() else f"no picture is labelled {_word(not value)}"


def _word(value: bool) -> str:
    return "present" if value else "absent"


def _share(probabilities: Tensor, value: bool) -> float:
    return ((probabilities > 0.5) == value).float().mean().item()


def _change(after: Tensor, before: Tensor, columns: Tensor) -> float | None:
    return (after - before)[:, columns].abs().mean().item() if columns.any() else None
