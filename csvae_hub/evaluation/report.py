"""The whole evaluation of a model as one JSON-able result, and as Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError
from csvae_hub.evaluation.attribute_change import CHANCE, attribute_change
from csvae_hub.evaluation.classifier import AttributeClassifier, classifier_metrics, train_classifier
from csvae_hub.evaluation.encoding import encode_data
from csvae_hub.evaluation.leakage import leakage
from csvae_hub.evaluation.reconstruction import reconstruction
from csvae_hub.models import AttributeModel

JUDGE_WIDTH, JUDGE_DEPTH = 24, 2
"""Sizes of the judge: others than the guide's by default, so that training can't aim at the judge itself."""


def evaluate(
    model: AttributeModel,
    train_data: AttributeData,
    valid_data: AttributeData,
    test_data: AttributeData,
    judge: AttributeClassifier | None = None,
    *,
    seed: int = 0,
    judge_epochs: int = 11,
    precision: str = "float32",
    device: torch.device | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Reconstruction, attribute change and leakage of a model, measured on the test split.

    Args:
        model: any of the family; it is moved to `device` and stays there.
        train_data: trains the judge and the probes.
        valid_data: stops the MLP probes.
        test_data: everything is measured here.
        judge: a classifier trained on other pictures than `test_data`, and not the one that guided the model's
            training; by default one is trained on `train_data`.
        seed: of the judge, the probes and the bootstrap.
        judge_epochs: how long the judge is trained, where none is given.
        precision: of the judge's training, "float32" or "bfloat16".
        device: by default the model's own.
        progress: is called with one line before each stage.

    Returns:
        Plain JSON types: `model`, `attributes`, `seed`, `data` (count and fingerprint of each split), `judge` (its
        accuracy and AUC on test; `at_chance` names the attributes whose AUC is below 0.6, on which it says nothing),
        `reconstruction`, `attribute_change` and `leakage` as the functions of these names give them. For models
        of vectors, `judge` and `attribute_change` are None and `reason` says so.

    Raises:
        DataError: a split is empty, or two splits share an example.
        UnknownAttributeError: data or judge lack an attribute of the model.
        MissingExtraError: torchmetrics or scikit-learn is missing.
    """
    say = progress or (lambda line: None)
    splits = {"train": train_data, "valid": valid_data, "test": test_data}
    splits = {name: data.select(model.attributes) for name, data in splits.items()}
    check_disjoint(splits)
    if device is not None:
        model.to(device)
    result: dict[str, Any] = {
        "model": model.config.model,
        "attributes": list(model.attributes),
        "seed": seed,
        "data": {name: {"count": len(data), "fingerprint": data.fingerprint} for name, data in splits.items()},
    }
    say("encoding the three splits")
    train, valid, test = (encode_data(model, data) for data in splits.values())
    labelled = tuple(encode_data(model, data, labelled=True) for data in splits.values())
    say("reconstruction")
    result["judge"] = result["attribute_change"] = None
    result["reconstruction"] = reconstruction(model, splits["test"], test)
    if model.config.is_image:
        if judge is None:
            judge = _train_judge(splits["train"], seed, judge_epochs, precision, model.device, say)
        judge.to(model.device)
        say("attribute change")
        result["judge"] = _judge_record(judge, splits["test"])
        result["attribute_change"] = attribute_change(model, splits["test"], judge, test)
    else:
        result["reason"] = "the model takes vectors: there is no judge of edited pictures"
    say("leakage")
    labels = (splits["train"].labels, splits["valid"].labels, splits["test"].labels)
    result["leakage"] = leakage((train, valid, test), labels, (labelled[0], labelled[1], labelled[2]), seed=seed)
    return result


def check_disjoint(splits: Mapping[str, AttributeData]) -> None:
    """Checks that no example is in two of the named splits: by file name, or by content where there are no files.

    Raises:
        DataError: a split is empty, or two share an example.
    """
    for name, data in splits.items():
        if len(data) == 0:
            raise DataError(f"{name} split: expected at least one example, got none")
    for (first, a), (second, b) in combinations(splits.items(), 2):
        shared = set(_keys(a, b)) & set(_keys(b, a))
        if shared:
            example = f", such as {min(shared)}" if a.files is not None and b.files is not None else ""
            raise DataError(
                f"the splits {first} and {second} share {len(shared)} example(s){example}: expected none, since "
                "figures from examples that were trained on say nothing. Give each example to one split"
            )


def markdown_table(result: Mapping[str, Any]) -> str:
    """The figures of `evaluate`'s result as Markdown: a line of means, and one row for each attribute."""
    rec, change, leak = result["reconstruction"], result["attribute_change"], result["leakage"]
    z, own, labelled = leak["z"], leak["w_own"], leak.get("w_own_labelled")
    lines = [
        "| MSE | PSNR (dB) | SSIM | wished class | worst direction | others, mean abs. Δp "
        "| AUC from z (logistic / MLP) | AUC from w_i (y inferred / y given) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        _row(
            _number(rec["mse"], 4),
            _number(rec["psnr"], 1),
            _number(rec["ssim"], 3),
            _percent(change and change["wished"]),
            _percent(change and change["worst"]),
            _number(change and change["others"], 3),
            f"{_number(z['logistic']['mean'], 3)} / {_number(z['mlp']['mean'], 3)}",
            f"{_number(own['mlp']['mean'], 3)} / {_number(labelled['mlp']['mean'] if labelled else None, 3)}",
        ),
        "",
        "| attribute | wished: to present | wished: to absent | others: to present | others: to absent "
        "| z, logistic | z, MLP | w_i | judge's accuracy |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in result["attributes"]:
        entry = change["attributes"][name] if change else {}
        to = [entry.get(direction) or {} for direction in ("to_present", "to_absent")]
        lines.append(
            _row(
                name,
                *(_percent(d.get("wished")) for d in to),
                *(_number(d.get("others"), 3) for d in to),
                *(_interval(z[kind]["attributes"][name]) for kind in ("logistic", "mlp")),
                _number(own["mlp"]["attributes"][name]["auc"], 3),
                _percent(result["judge"]["attributes"][name]["accuracy"] if result["judge"] else None),
            )
        )
    if result["judge"] and result["judge"]["at_chance"]:
        names = ", ".join(result["judge"]["at_chance"])
        lines += ["", f"The judge is at chance on {names}: its answers on them say nothing."]
    return "\n".join(lines) + "\n"


def _train_judge(
    data: AttributeData, seed: int, epochs: int, precision: str, device: torch.device, say: Callable[[str], None]
) -> AttributeClassifier:
    say(f"training the judge: {epochs} epochs of {len(data)} pictures")
    return train_classifier(
        data,
        epochs=epochs,
        seed=seed,
        width=JUDGE_WIDTH,
        depth=JUDGE_DEPTH,
        precision=precision,
        device=device,
        report=lambda epoch, loss: say(f"judge: epoch {epoch} of {epochs}, loss {loss:.4f}"),
    )


def _judge_record(judge: AttributeClassifier, data: AttributeData) -> dict[str, Any]:
    metrics = classifier_metrics(judge, data)
    known = {name: entry["auc"] for name, entry in metrics.items()}
    accuracies = [entry["accuracy"] for entry in metrics.values() if entry["accuracy"] is not None]
    return {
        "width": judge.width,
        "depth": judge.depth,
        "accuracy": float(np.mean(accuracies)) if accuracies else None,
        "at_chance": [name for name, auc in known.items() if auc is not None and auc < CHANCE],
        "attributes": metrics,
    }


def _keys(data: AttributeData, other: AttributeData) -> list[str]:
    if data.files is not None and other.files is not None:
        return data.files
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in data.images]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _interval(entry: Mapping[str, Any]) -> str:
    return "–" if entry["auc"] is None else f"{entry['auc']:.3f} ({entry['low']:.3f}–{entry['high']:.3f})"
