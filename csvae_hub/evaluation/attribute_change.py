"""Whether an edit does what it says and leaves the rest: the paper's Table 1, with a classifier as the judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import unknown_attribute
from csvae_hub.evaluation.classifier import AttributeClassifier
from csvae_hub.evaluation.encoding import decode_in_batches, encode_data, evaluating
from csvae_hub.models import AttributeModel, Latents

CHANCE = 0.6
"""A judge whose ROC AUC on real pictures lies below this says nothing about edited ones."""


def attribute_change(
    model: AttributeModel, data: AttributeData, judge: AttributeClassifier, latents: Latents | None = None
) -> dict[str, Any]:
    """Switches each attribute of each picture against its label, one at a time, and asks the judge about the outcome.

    A picture labelled absent is set to True, one labelled present to False, by `model.edit` on latents encoded
    without labels.

    Args:
        model: a model of images.
        data: N pictures with the model's attributes; those with a missing label are passed over.
        judge: knows all attributes of the model, and has never seen a picture of `data`.
        latents: what `encode_data` gave for `data`, where it's at hand.

    Returns:
        For each attribute and for each of the directions `to_present` and `to_absent`: `wished`, the share that the
        judge takes for the wished class (p > 0.5), and `before`, the same share among the unedited reconstructions;
        `others`, the mean |Δp| of the other attributes against the reconstruction, and `others_original` against
        the original; `count`. A direction without pictures is None, with a `reason`. At the top the means of `wished`
        and `others` over attributes and directions, and `worst`, the least `wished` of all directions.

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
    reconstructed = judged(latents)
    attributes: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(model.attributes):
        attributes[name] = {}
        for direction, value in (("to_present", True), ("to_absent", False)):
            chosen = torch.from_numpy(np.flatnonzero(data.labels[:, i] == (not value)))
            if len(chosen) == 0:
                attributes[name][direction] = None
                attributes[name]["reason"] = f"no picture is labelled {'absent' if value else 'present'}"
                continue
            with evaluating(model):
                edited = model.edit(latents[chosen].to(model.device), {name: value}).to("cpu")
            answer = judged(edited)
            attributes[name][direction] = {
                "wished": _share(answer[:, i], value),
                "before": _share(reconstructed[chosen, i], value),
                "others": _change_of_others(answer, reconstructed[chosen], i),
                "others_original": _change_of_others(answer, original[chosen], i),
                "count": len(chosen),
            }
    directions = [entry[d] for entry in attributes.values() for d in ("to_present", "to_absent") if entry[d]]
    return {
        "wished": _mean([d["wished"] for d in directions]),
        "worst": min((d["wished"] for d in directions), default=None),
        "before": _mean([d["before"] for d in directions]),
        "others": _mean([d["others"] for d in directions]),
        "others_original": _mean([d["others_original"] for d in directions]),
        "attributes": attributes,
    }


def _share(probabilities: Tensor, value: bool) -> float:
    return ((probabilities > 0.5) == value).float().mean().item()


def _change_of_others(after: Tensor, before: Tensor, column: int) -> float | None:
    if after.shape[1] == 1:
        return None
    change = (after - before).abs()
    change = torch.cat([change[:, :column], change[:, column + 1 :]], dim=1)
    return change.mean().item()


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
