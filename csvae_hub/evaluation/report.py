"""The whole evaluation of a model as one JSON-able result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError
from csvae_hub.evaluation.attribute_change import PutBack, attribute_change
from csvae_hub.evaluation.encoding import check_fits, encode_data
from csvae_hub.evaluation.exclusive import group_change, group_probes
from csvae_hub.evaluation.judges import Judges, judges_record, train_judges
from csvae_hub.evaluation.leakage import leakage
from csvae_hub.evaluation.reconstruction import bound, reconstruction
from csvae_hub.evaluation.truth import distance_to_truth
from csvae_hub.evaluation.variety import variety
from csvae_hub.models import AttributeModel


def evaluate(
    model: AttributeModel,
    train_data: AttributeData,
    valid_data: AttributeData,
    test_data: AttributeData,
    judges: Judges | None = None,
    *,
    seed: int = 0,
    put_back: Callable[[AttributeModel], PutBack] | None = None,
    photos: int = 300,
    device: torch.device | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Reconstruction, bound, attribute change, distance to the truth, variety and leakage, on the test split.

    Args:
        model: any of the family; it is moved to `device`, if given, and stays there.
        train_data: trains the judges and the probes.
        valid_data: stops the MLP probes.
        test_data: everything is measured here.
        judges: trained on other pictures than `test_data`; by default `train_judges` makes them of `train_data`.
        seed: of the judges, the probes, the bootstrap and the samples.
        put_back: makes of a model the function that edits photos, as `csvae_hub.editing.aligned.put_back` does;
            without it no photo is measured.
        photos: at most so many pictures of `test_data`, drawn at random, are edited as photos.
        progress: is called with one line before each stage.

    Returns:
        Plain JSON types: `model`, `attributes`, `seed`, `data` (count and fingerprint of each split), `judge` as
        `judges_record` gives it; `reconstruction`, `bound`, `attribute_change`, `variety` and `leakage` as the
        functions of these names give them; `photos`, the same as `attribute_change` of photos put back together, or
        None; `groups`, what `group_change` gives for each exclusive group, with `group_probes` as `z`, or None; and
        `truth` as `distance_to_truth` gives it, None where the data has no counterfactuals. For models of vectors,
        `judge` and `attribute_change` are None and `reason` says so. The same seed gives the same result on the same
        machine.

    Raises:
        DataError: a split is empty, or two splits share an example, or the model does not take such examples.
        UnknownAttributeError: data or judges lack an attribute of the model.
        MissingExtraError: torchmetrics or scikit-learn is missing.
    """
    say = progress or (lambda line: None)
    splits = {"train": train_data, "valid": valid_data, "test": test_data}
    splits = {name: data.select(model.attributes) for name, data in splits.items()}
    for data in splits.values():
        check_fits(model, data)
    check_disjoint(splits)
    if device is not None:
        model.to(device)
    test_data = splits["test"]
    say("encoding the three splits")
    encoded, labelled = (
        tuple(encode_data(model, data, labelled=told) for data in splits.values()) for told in (False, True)
    )
    test = encoded[2]
    say("reconstruction and bound")
    result: dict[str, Any] = {
        "model": model.config.model,
        "attributes": list(model.attributes),
        "seed": seed,
        "data": {name: {"count": len(data), "fingerprint": data.fingerprint} for name, data in splits.items()},
        "reconstruction": reconstruction(model, test_data, test),
        "bound": bound(model, test_data, seed=seed),
        **dict.fromkeys(("judge", "attribute_change", "photos", "groups", "truth")),
    }
    if model.config.is_image:
        if judges is None:
            judges = train_judges(
                splits["train"], model.config.exclusive, seed=seed, device=model.device, progress=progress
            )
        judges.to(model.device)
        say("attribute change")
        result["judge"] = judges_record(judges, test_data)
        result["attribute_change"] = attribute_change(model, test_data, judges, test, seed=seed)
        if model.config.groups:
            say("exclusive groups")
            changes = group_change(model, test_data, judges, test)
            probes = group_probes(model, encoded, tuple(data.labels for data in splits.values()), seed)
            result["groups"] = [{**change, "z": probe} for change, probe in zip(changes, probes, strict=True)]
        if put_back is not None:
            rows = torch.randperm(len(test_data), generator=torch.Generator().manual_seed(seed))[:photos]
            say(f"{len(rows)} photos")
            some = test_data.subset(rows)
            result["photos"] = attribute_change(model, some, judges, put_back=put_back(model), seed=seed)
    else:
        result["reason"] = "the model takes vectors: there are no judges of edited pictures"
    if test_data.has_counterfactuals:
        say("distance to the truth")
        result["truth"] = distance_to_truth(model, test_data, test, seed=seed)
    say("variety")
    result["variety"] = variety(model, test_data, test, seed=seed)
    say("leakage")
    result["leakage"] = leakage(encoded, [data.labels for data in splits.values()], labelled, seed=seed)
    return result


def check_disjoint(splits: Mapping[str, AttributeData]) -> None:
    """Checks that no two splits share a file name or an example with the same values.

    Raises:
        DataError: a split is empty, or two share an example.
    """
    rows: dict[str, dict[bytes, int]] = {}
    for name, data in splits.items():
        if len(data) == 0:
            raise DataError(f"{name} split: expected at least one example, got none")
        digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in data.images)
        rows[name] = {digest: row for row, digest in enumerate(digests)}
    for (first, a), (second, b) in combinations(splits.items(), 2):
        pairs = sorted((row, rows[second][digest]) for digest, row in rows[first].items() if digest in rows[second])
        shared = sorted(set(a.files or ()) & set(b.files or ()))
        shared = shared or [f"{_name(a, i)} and {_name(b, j)}, equal in every value" for i, j in pairs]
        if shared:
            raise DataError(
                f"the splits {first} and {second} share {len(shared)} example(s), such as {shared[0]}: expected none, "
                "since figures from examples that were trained on say nothing. Give each example to one split"
            )


def _name(data: AttributeData, row: int) -> str:
    return f"example {row}" if data.files is None else data.files[row]
