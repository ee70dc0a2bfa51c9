"""Writes the figures of an evaluation as Markdown tables and as the Hub's evaluation results."""

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
    (("photos", "wished"), "accuracy", "Photos put back together: edits taken for the wished class, mean"),
    (("photos", "worst"), "accuracy", "Photos: the same, worst attribute and direction"),
    (("photos", "others"), "mae", "Photos: change of the other attributes' probabilities, mean"),
    (("photos", "frechet_over_floor"), "fid", "Photos: Fréchet distance to real pictures, over that between real ones"),
    (("groups", "0", "accuracy"), "accuracy", "Edits to each member of the first exclusive group, taken for it, mean"),
    (("truth", "distance"), "mae", "Distance of edits to the truth of drawn data"),
    (("leakage", "z", "logistic", "mean"), "roc_auc", "Leakage: AUC of logistic probes that read attributes from z"),
    (("leakage", "z", "mlp", "mean"), "roc_auc", "Leakage: AUC of MLP probes that read attributes from z"),
)
"""For each figure: its place in evaluation.json, the Hub's name of the metric, and ours."""

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
"""For each table by attribute: its caption, and its columns as title, place in evaluation.json and kind."""

_BEGIN, _END = "<!-- figures of evaluation.json -->", "<!-- end of the figures -->"


def figures(evaluation: Mapping[str, Any], attributes: Sequence[str]) -> str:
    """Gives the tables of an evaluation."""
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
    groups = evaluation.get("groups")
    for group in groups if isinstance(groups, list) else []:
        parts += _group(group)
    if at_chance := texts(at(evaluation, "judge", "at_chance")):
        names = ", ".join(map(plain, at_chance))
        parts.append(f"A judge is at chance on {names}: its answers on them say nothing and are left out.")
    return "\n\n".join(parts)


def _group(group: Any) -> list[str]:
    """The caption and the table of an exclusive group, one row a member and one column a judge; nothing without one."""
    members, judges = texts(at(group, "members")), at(group, "judges")
    if not members or not isinstance(judges, Mapping):
        return []
    names = [name for name in judges if isinstance(name, str)]
    rows = [
        (plain(member), *(said(at(judges, name, "to", member), "accuracy") for name in names)) for member in members
    ]
    own = [said(at(judges, name, "own_accuracy"), "accuracy") for name in names]
    rows += [("mean", *(said(at(judges, name, "accuracy"), "accuracy") for name in names))]
    rows += [("the judge's accuracy on real pictures", *own)]
    words = "Edits to each member that a judge takes for it, out of all members of the group:"
    probes = [f"{kind} {said(at(group, 'z', kind), 'accuracy')}" for kind in ("logistic", "mlp")]
    rate = said(at(group, "z", "base_rate"), "accuracy")
    note = f"Softmax probes read the member from z with these accuracies: {', '.join(probes)}; its base rate is {rate}."
    return [words, table(("to", *map(plain, names)), rows), note]


def framed(evaluation: Mapping[str, Any], attributes: Sequence[str]) -> str:
    """Gives the tables of an evaluation between two comments, which `renewed` looks for."""
    return f"{_BEGIN}\n\n{figures(evaluation, attributes)}\n\n{_END}"


def renewed(text: str, evaluation: Mapping[str, Any]) -> str:
    """Replaces the tables of `framed` in a text by those of this evaluation."""
    tables = framed(evaluation, texts(evaluation.get("attributes")))
    return re.sub(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", lambda _: tables, text, flags=re.DOTALL)


def eval_results(evaluation: Mapping[str, Any], datasets: list[str], task: str | None) -> list[EvalResult]:
    """Gives the measured figures of an evaluation as the Hub's `EvalResult`s."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=task or "other",
            dataset_type=datasets[0] if datasets else "custom",
            dataset_name=datasets[0] if datasets else "not stated",
            dataset_split=split_of(evaluation),
            metric_type=kind,
            metric_name=title,
            metric_value=float(f"{value:.4g}"),
        )
        for path, kind, title in METRICS
        if is_number(value := at(evaluation, *path))
    ]


def split_of(evaluation: Mapping[str, Any]) -> str:
    """Gives the split that the figures are of: `test`, unless the evaluation names another."""
    return next(iter(texts(evaluation.get("split"))), "test")


def at(content: Any, *path: str, default: Any = None) -> Any:
    """Looks up a path in nested objects and lists, or the path's names joined by dots as one key."""
    dotted = content.get(".".join(path)) if isinstance(content, Mapping) else None
    for key in path:
        if isinstance(content, list) and key.isdecimal():
            content = dict(enumerate(content)).get(int(key))
        else:
            content = content.get(key) if isinstance(content, Mapping) else None
    found = content if content is not None else dotted
    return default if found is None else found


def texts(value: Any) -> list[str]:
    """The texts of a JSON list, each once; those of a text, that text; nothing for any other value."""
    values = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    return list(dict.fromkeys(text for text in values if isinstance(text, str) and text))


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tells numbers that a float can hold from other values of JSON, booleans among them."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def plain(text: str) -> str:
    """Escapes the characters that mean something to Markdown, its tables or HTML."""
    return re.sub(r"([|`\[\]*\\])", r"\\\1", " ".join(text.split()).replace("<", "&lt;"))


def table(head: tuple[str, ...], rows: list[Any]) -> str:
    """Writes a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def said(value: Any, kind: str) -> str:
    """Formats a figure: an accuracy as a percentage, others with three digits."""
    if not is_number(value):
        return "–"
    if kind == "accuracy":
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if kind in ("roc_auc", "mae") else f"{value:.3g}"
