"""Several models side by side, and one model over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import require
from csvae_hub.evaluation.attribute_change import PutBack
from csvae_hub.evaluation.judges import Judges, train_judges
from csvae_hub.evaluation.metrics import mean
from csvae_hub.evaluation.report import evaluate
from csvae_hub.hub.card_tables import at, table
from csvae_hub.models import AttributeModel

Result = Mapping[str, Any]


class Figure(NamedTuple):
    """One figure of a result: its column's title, its place in the result, and its format."""

    title: str
    path: tuple[str, ...]
    digits: int = 3
    percent: bool = False


FIGURES = {
    "wished": Figure("wished class", ("attribute_change", "wished"), percent=True),
    "worst": Figure("worst direction", ("attribute_change", "worst"), percent=True),
    "others": Figure("others, mean abs. Δp", ("attribute_change", "others")),
    "frechet": Figure("Fréchet over floor", ("attribute_change", "frechet_over_floor"), digits=2),
    "photos_wished": Figure("photos: wished class", ("photos", "wished"), percent=True),
    "photos_worst": Figure("photos: worst direction", ("photos", "worst"), percent=True),
    "photos_others": Figure("photos: others", ("photos", "others")),
    "photos_frechet": Figure("photos: Fréchet", ("photos", "frechet_over_floor"), digits=2),
    "members": Figure("edits to each member", ("groups", "0", "accuracy"), percent=True),
    "below_own": Figure("below the judge's own accuracy", ("groups", "0", "below_own"), percent=True),
    "softmax_logistic": Figure("softmax probe of z, logistic", ("groups", "0", "z", "logistic"), percent=True),
    "softmax_mlp": Figure("softmax probe of z, MLP", ("groups", "0", "z", "mlp"), percent=True),
    "distance": Figure("distance to truth", ("truth", "distance"), digits=4),
    "inside": Figure("where it draws", ("truth", "inside", "distance"), digits=4),
    "by_example": Figure("by example", ("truth", "by_example", "distance"), digits=4),
    "mse": Figure("MSE", ("reconstruction", "mse"), digits=4),
    "psnr": Figure("PSNR (dB)", ("reconstruction", "psnr"), digits=1),
    "ssim": Figure("SSIM", ("reconstruction", "ssim")),
    "leak_logistic": Figure("leak, logistic (max)", ("leakage", "z", "logistic", "max")),
    "leak_mlp": Figure("leak, MLP (max)", ("leakage", "z", "mlp", "max")),
    "variety": Figure("variety", ("variety", "transferred"), digits=4),
}
"""The figures that models are compared by. `variety` is that of transferred kinds, in units of x."""
COMPARED = (
    ("wished", "worst", "others", "frechet"),
    ("photos_wished", "photos_worst", "photos_others", "photos_frechet"),
    ("members", "below_own", "softmax_logistic", "softmax_mlp"),
    ("distance", "inside", "by_example", "variety"),
    ("mse", "psnr", "ssim", "leak_logistic", "leak_mlp"),
)
"""The figures of each table of a comparison."""


def compare(
    models: Mapping[str, AttributeModel],
    train_data: AttributeData,
    valid_data: AttributeData,
    test_data: AttributeData,
    judges: Judges | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    seed: int = 0,
    put_back: Callable[[AttributeModel], PutBack] | None = None,
    photos: int = 300,
) -> dict[str, dict[str, Any]]:
    """The results of `evaluate` for several models, by name, with the same judges and data.

    The arguments are those of `evaluate`. Judges are trained once.

    Raises:
        ValueError: no model, or models with other attributes or of other shapes than the first.
        DataError: what `evaluate` refuses.
    """
    if not models:
        raise ValueError("expected at least one model to be measured, got none")
    check_comparable(models)
    first = next(iter(models.values()))
    say = progress or (lambda line: None)
    if judges is None and first.config.is_image:
        data = train_data.select(first.attributes)
        judges = train_judges(data, first.config.exclusive, seed=seed, device=first.device, progress=progress)
    return {
        name: evaluate(
            model,
            train_data,
            valid_data,
            test_data,
            judges,
            seed=seed,
            put_back=put_back,
            photos=photos,
            progress=lambda line, name=name: say(f"{name}: {line}"),
        )
        for name, model in models.items()
    }


def check_comparable(models: Mapping[str, AttributeModel]) -> None:
    """Checks that the models have the same attributes, in any order, and examples of the same shape.

    Raises:
        ValueError: they differ; the error names two of them.
    """
    facts = {
        name: {"attributes": sorted(model.attributes), "shape": list(map(str, model.config.shape))}
        for name, model in models.items()
    }
    (first, reference), *further = facts.items()
    for name, found in further:
        for what, expected in reference.items():
            if found[what] != expected:
                raise ValueError(
                    f"{name}: expected the {what} of {first}, {', '.join(expected)}, got {', '.join(found[what])}: "
                    "compare models of the same data"
                )


def over_seeds(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Each figure of `FIGURES` over results of one model that was trained with several seeds.

    Returns:
        For each figure its `mean`, a 95 % interval by Student's t, `low` to `high` (None for fewer than two values),
        and the `values` in the order of the results, None where a result lacks the figure.

    Raises:
        ValueError: no result, or results of models of different kinds or attributes.
        MissingExtraError: SciPy, which comes with scikit-learn, is missing.
    """
    if not results:
        raise ValueError("expected at least one result, got none")
    for result in results[1:]:
        for key in ("model", "attributes"):
            if result[key] != results[0][key]:
                raise ValueError(
                    f"{key}: expected results of one model over seeds, got {results[0][key]!r} and {result[key]!r}"
                )
    return {key: _interval([at(result, *figure.path) for result in results]) for key, figure in FIGURES.items()}


def _interval(values: list[float | None]) -> dict[str, Any]:
    known = np.array([value for value in values if value is not None])
    low = high = None
    if len(known) > 1:
        spread = known.std(ddof=1) / len(known) ** 0.5
        half = float(require("scipy.stats", "eval").t.ppf(0.975, len(known) - 1) * spread)
        low, high = float(known.mean()) - half, float(known.mean()) + half
    return {"mean": mean(values), "low": low, "high": high, "values": values}


def comparison_table(results: Mapping[str, Result | Sequence[Result]]) -> str:
    """Markdown tables, six columns at most, with a row for each model; a dash where a figure can't be measured.

    A table without any figure is left out.

    Args:
        results: by the models' names what `evaluate` gave; or several results, over seeds of the training, which
            are shown as mean ± half the width of the 95 % interval (`over_seeds`).
    """
    measured = {name: over_seeds([found] if isinstance(found, Mapping) else found) for name, found in results.items()}
    known = [keys for keys in COMPARED if any(m[key]["mean"] is not None for m in measured.values() for key in keys)]
    return "\n".join(
        table(
            ("model", *(FIGURES[key].title for key in keys)),
            [(name, *(_spread(found[key], FIGURES[key]) for key in keys)) for name, found in measured.items()],
        )
        + "\n"
        for keys in known
    )


def _spread(measured: Mapping[str, Any], figure: Figure) -> str:
    scale, digits, unit = (100, 1, " %") if figure.percent else (1, figure.digits, "")
    if measured["mean"] is None:
        return "–"
    half = "" if measured["low"] is None else f" ± {scale * (measured['high'] - measured['low']) / 2:.{digits}f}"
    return f"{scale * measured['mean']:.{digits}f}{half}{unit}"
