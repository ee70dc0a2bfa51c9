"""The results of `evaluate` as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from csvae_hub.evaluation.compare import FIGURES, over_seeds

Result = Mapping[str, Any]


def markdown_table(result: Result) -> str:
    """The figures of `evaluate`'s result: a line of means, and one row for each attribute.

    Results of earlier versions, without bound, truth and variety, can be shown too.
    """
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
            f"{_number(own and own['mlp']['mean'], 3)} / {_number(labelled and labelled['mlp']['mean'], 3)}",
        ),
        "",
        *_further_lines(result),
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
                _number(own and own["mlp"]["attributes"][name]["auc"], 3),
                _percent(result["judge"]["attributes"][name]["accuracy"] if result["judge"] else None),
            )
        )
    if result["judge"] and result["judge"]["at_chance"]:
        names = ", ".join(result["judge"]["at_chance"])
        lines += ["", f"The judge is at chance on {names}: its answers on them say nothing and are left out."]
    return "\n".join(lines) + "\n"


def comparison_table(results: Mapping[str, Result | Sequence[Result]]) -> str:
    """A row for each model, with the figures of `FIGURES`; a dash where a figure can't be measured.

    Args:
        results: by the models' names what `evaluate` gave; or several results, over seeds of the training, which
            are shown as mean ± half the width of the 95 % interval (`over_seeds`).
    """
    lines = [_row("model", *(figure.title for figure in FIGURES.values())), _row(*["---"] * (1 + len(FIGURES)))]
    for name, found in results.items():
        measured = over_seeds([found] if isinstance(found, Mapping) else found)
        lines.append(
            _row(name, *(_spread(measured[key], figure.percent, figure.digits) for key, figure in FIGURES.items()))
        )
    return "\n".join(lines) + "\n"


def _further_lines(result: Result) -> list[str]:
    """What came with later versions: bound, variety and, for drawn data, the distance to the truth."""
    bound, variety, truth = (result.get(key) for key in ("bound", "variety", "truth"))
    if bound is None or variety is None:
        return []
    cells = {
        "negative bound (nats)": _number(bound["total"], 1),
        "variety: sampled": _number(variety["sampled"], 4),
        "variety: transferred": _number(variety["transferred"], 4),
    }
    if truth is not None:
        cells |= {
            "variety: true": _number(variety["truth"], 4),
            "distance to truth": _number(truth["distance"], 4),
            "doing nothing": _number(truth["nothing"], 4),
            "by example": _number(truth["by_example"]["distance"], 4),
            "by value": _number(truth["by_example"]["by_value"], 4),
        }
    return [_row(*cells), _row(*["---"] * len(cells)), _row(*cells.values()), ""]


def _spread(measured: Mapping[str, Any], percent: bool, digits: int) -> str:
    show: Callable[[float | None], str] = _percent if percent else lambda value: _number(value, digits)
    if measured["low"] is None:
        return show(measured["mean"])
    half = (measured["high"] - measured["low"]) / 2
    mean = show(measured["mean"]).removesuffix(" %")
    return f"{mean} ± {show(half)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _interval(entry: Mapping[str, Any]) -> str:
    return "–" if entry["auc"] is None else f"{entry['auc']:.3f} ({entry['low']:.3f}–{entry['high']:.3f})"
