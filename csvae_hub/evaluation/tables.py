"""Results of `evaluate` side by side as Markdown, in tables of at most six columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from csvae_hub.evaluation.compare import FIGURES, over_seeds

Result = Mapping[str, Any]
COMPARED = (
    ("wished", "worst", "others", "frechet"),
    ("photos_wished", "photos_worst", "photos_others", "photos_frechet"),
    ("distance", "inside", "by_example", "variety"),
    ("mse", "psnr", "ssim", "leak_logistic", "leak_mlp"),
)
"""The figures of each table of a comparison."""


def comparison_table(results: Mapping[str, Result | Sequence[Result]]) -> str:
    """Tables with a row for each model and the figures of `FIGURES`; a dash where a figure can't be measured.

    A table without any figure is left out.

    Args:
        results: by the models' names what `evaluate` gave; or several results, over seeds of the training, which
            are shown as mean ± half the width of the 95 % interval (`over_seeds`).
    """
    measured = {name: over_seeds([found] if isinstance(found, Mapping) else found) for name, found in results.items()}
    known = [keys for keys in COMPARED if any(m[key]["mean"] is not None for m in measured.values() for key in keys)]
    return "\n".join(
        _table(
            *(
                {"model": name, **{FIGURES[key].title: _spread(found[key], key) for key in keys}}
                for name, found in measured.items()
            )
        )
        for keys in known
    )


def _table(*rows: Mapping[str, str]) -> str:
    """A table of rows with the same titles."""
    lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _spread(measured: Mapping[str, Any], key: str) -> str:
    figure = FIGURES[key]
    show: Callable[[float | None], str] = _percent if figure.percent else lambda value: _number(value, figure.digits)
    if measured["low"] is None:
        return show(measured["mean"])
    half = (measured["high"] - measured["low"]) / 2
    return f"{show(measured['mean']).removesuffix(' %')} ± {show(half)}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
