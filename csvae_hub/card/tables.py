"""The figures of an evaluation on a card: tables of Markdown, and the Hub's evaluation results."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

METRICS = (
    (("reconstruction", "mse"), "mse", "Reconstruction, mean squared error of values in [0, 1]"),
    (("reconstruction", "psnr"), "psnr", "Reconstruction, PSNR in dB"),
    (("reconstruction", "ssim"), "ssim", "Reconstruction, SSIM"),
    (("attribute_change", "wished"), "accuracy", "Edits that a separate classifier takes for the wished class, mean"),
    (("attribute_change", "worst"), "accuracy", "The same, worst attribute and direction"),
    (("attribute_change", "others"), "mae", "Change of the other attributes' probabilities by an edit, mean"),
    (
        ("leakage", "z", "logistic", "mean"),
        "roc_auc",
        "Leakage: AUC of logistic probes that read attributes from z",
    ),
    (("leakage", "z", "mlp", "mean"), "roc_auc", "Leakage: AUC of MLP probes that read attributes from z"),
)
"""Where a figure is in evaluation.json, the Hub's name of the metric, and ours."""

PER_ATTRIBUTE = (
    (
        "Edited pictures that the separate classifier takes for the wished class, and how far their other attributes"
        " moved (mean change of their probabilities):",
        tuple(
            (f"{title}: {to.replace('_', ' ')}", ("attribute_change", "attributes", "*", to, key), kind)
            for title, key, kind in (("wished", "wished", "accuracy"), ("others", "others", "mae"))
            for to in ("to_present", "to_absent")
        ),
    ),
    (
        "AUC of fresh probes that read an attribute: 0.5 is chance, 1 is certain. From z they should not, from the"
        " attribute's own subspace w they should:",
        (
            ("z, logistic", ("leakage", "z", "logistic", "attributes", "*", "auc"), "roc_auc"),
            ("z, MLP", ("leakage", "z", "mlp", "attributes", "*", "auc"), "roc_auc"),
            ("w, MLP", ("leakage", "w_own", "mlp", "attributes", "*", "auc"), "roc_auc"),
            ("accuracy of the classifier", ("judge", "attributes", "*", "accuracy"), "accuracy"),
        ),
    ),
)
"""Words, and columns of a table by attribute: title, place in evaluation.json (* for the attribute), kind of figure."""

_BEGIN, _END = "<!-- figures of evaluation.json -->", "<!-- end of the figures -->"


def figures(evaluation: Mapping[str, Any], attributes: Sequence[str]) -> str:
    """Gives the tables of an evaluation, between two comments by which `with_results` finds them again."""
    rows = [(title, said(v, kind)) for path, kind, title in METRICS if is_number(v := at(evaluation, *path))]
    parts = [table(("figure", "measured"), rows)]
    for words, columns in PER_ATTRIBUTE:
        found = {
            title: [at(evaluation, *(name if key == "*" else key for key in path)) for name in attributes]
            for title, path, _ in columns
        }
        kept = [(title, kind) for title, _, kind in columns if any(map(is_number, found[title]))]
        if kept:
            cells = [[said(value, kind) for value in found[title]] for title, kind in kept]
            rows = [(plain(name), *row) for name, *row in zip(attributes, *cells, strict=True)]
            parts += [words, table(("attribute", *(title for title, _ in kept)), rows)]
    return "\n\n".join([_BEGIN, *parts, _END])


def renewed(text: str, evaluation: Mapping[str, Any]) -> str:
    """Gives a text whose tables of `figures`, if it has any, are those of this evaluation."""
    tables = figures(evaluation, evaluation.get("attributes") or [])
    return re.sub(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", lambda _: tables, text, flags=re.DOTALL)


def eval_results(evaluation: Mapping[str, Any], datasets: list[str], task: str | None) -> list[EvalResult]:
    """Gives the figures of an evaluation as the Hub's `EvalResult`s; those that were not measured are left out."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=task or "other",
            dataset_type=datasets[0] if datasets else "custom",
            dataset_name=datasets[0] if datasets else "not stated",
            dataset_split="test",
            metric_type=kind,
            metric_name=title,
            metric_value=float(f"{value:.4g}"),
        )
        for path, kind, title in METRICS
        if is_number(value := at(evaluation, *path))
    ]


def at(content: Any, *path: str, default: Any = None) -> Any:
    """Gives what nested objects hold at a path, or under its names joined by dots."""
    dotted = content.get(".".join(path)) if isinstance(content, Mapping) else None
    for key in path:
        content = content.get(key) if isinstance(content, Mapping) else None
    found = content if content is not None else dotted
    return default if found is None else found


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of JSON is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def plain(text: str) -> str:
    """Text without what Markdown, its tables or HTML would act on."""
    return re.sub(r"([|`\[\]*\\])", r"\\\1", " ".join(text.split()).replace("<", "&lt;"))


def table(head: tuple[str, ...], rows: list[Any]) -> str:
    """A table of Markdown: the head's cells, and those of each row."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def said(value: Any, kind: str) -> str:
    """A figure in words: a share of pictures as a percentage, others with three digits."""
    if not is_number(value):
        return "–"
    if kind == "accuracy":
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if kind in ("roc_auc", "mae") else f"{value:.3g}"
