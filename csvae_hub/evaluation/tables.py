"""The results of `evaluate` as Markdown, in tables of at most six columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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


def markdown_table(result: Result) -> str:
    """The figures of `evaluate`'s result: means, edits and leakage by attribute, and locality.

    Results of earlier versions can be shown too; a dash stands for a figure that they lack.
    """
    rec, leak, names = result["reconstruction"], result["leakage"], result["attributes"]
    bound, variety, truth, judge = (result.get(key) for key in ("bound", "variety", "truth", "judge"))
    z, own, labelled = leak["z"], leak["w_own"], leak.get("w_own_labelled")
    tables = [
        _table(
            {
                "MSE": _number(rec["mse"], 4),
                "PSNR (dB)": _number(rec["psnr"], 1),
                "SSIM": _number(rec["ssim"], 3),
                "negative bound (nats)": _number(bound and bound["total"], 1),
                "AUC from z (logistic / MLP)": f"{_number(z['logistic']['mean'], 3)} / {_number(z['mlp']['mean'], 3)}",
                "AUC from w_i (y inferred / y given)": f"{_number(own and own['mlp']['mean'], 3)} / "
                f"{_number(labelled and labelled['mlp']['mean'], 3)}",
            }
        )
    ]
    if variety:
        tables.append(
            _table({f"variety: {key}": _number(variety[key], 4) for key in ("sampled", "transferred", "truth")})
        )
    if truth:
        by_example = truth["by_example"]
        cells = {
            "distance to truth": truth["distance"],
            "doing nothing": truth["nothing"],
            "by example": by_example["distance"],
            "by value": by_example["by_value"],
        }
        tables.append(_table({title: _number(value, 4) for title, value in cells.items()}))
    changes = {"decoded": result["attribute_change"], "photos": result.get("photos")}
    changes = {title: change for title, change in changes.items() if change}
    if changes:
        tables.append(_table(*(_means(title, change) for title, change in changes.items())))
    tables += [
        _table(*(_directions(title, name, change["attributes"][name]) for name in names))
        for title, change in changes.items()
    ]
    tables.append(
        _table(
            *(
                {
                    "attribute": name,
                    "z, logistic": _interval(z["logistic"]["attributes"][name]),
                    "z, MLP": _interval(z["mlp"]["attributes"][name]),
                    "w_i": _number(own and own["mlp"]["attributes"][name]["auc"], 3),
                    "judges' accuracy": _percent(judge and judge["attributes"][name]["accuracy"]),
                }
                for name in names
            )
        )
    )
    places = [_places(title, change.get("locality") or {}) for title, change in changes.items()]
    if any(places):
        tables.append(_table(*(row for rows in places for row in rows)))
    if judge and "members" not in judge:
        tables.append("These edits were judged by a single classifier, in an earlier version: evaluate again.\n")
    if judge and judge["at_chance"]:
        attributes = ", ".join(judge["at_chance"])
        tables.append(f"A judge is at chance on {attributes}: its answers on them say nothing and are left out.\n")
    return "\n".join(tables)


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


def _means(title: str, change: Mapping[str, Any]) -> dict[str, str]:
    return {
        "edits": title,
        "wished class": _percent(change["wished"]),
        "worst direction": _percent(change["worst"]),
        "unedited": _percent(change["before"]),
        "others, mean abs. Δp": _number(change["others"], 3),
        "Fréchet over floor": _number(change.get("frechet_over_floor"), 2),
    }


def _directions(title: str, name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    to = [entry.get(direction) or {} for direction in ("to_present", "to_absent")]
    others = [d["others"] for d in to if d.get("others") is not None]
    return {
        f"{title}: attribute": name,
        **{f"wished: to {word}": _percent(d.get("wished")) for word, d in zip(_WORDS, to, strict=True)},
        "others": _number(max(others, default=None), 3),
        **{f"Fréchet: to {word}": _number(d.get("frechet_over_floor"), 2) for word, d in zip(_WORDS, to, strict=True)},
    }


def _places(title: str, found: Mapping[str, Mapping[str, float] | None]) -> Iterable[dict[str, str]]:
    return [
        {"edits": title, "attribute": name, "place": place, "change there over the largest": _number(ratio, 2)}
        for name, ratios in found.items()
        for place, ratio in (ratios or {}).items()
    ]


_WORDS = ("present", "absent")


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


def _interval(entry: Mapping[str, Any]) -> str:
    return "–" if entry["auc"] is None else f"{entry['auc']:.3f} ({entry['low']:.3f}–{entry['high']:.3f})"
