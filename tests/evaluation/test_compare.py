from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from csvae_hub.evaluation import compare, comparison_table, evaluate, over_seeds
from csvae_hub.evaluation.compare import FIGURES
from csvae_hub.models import list_models


def result_of(mse, wished=0.9, model="csvae"):
    """A result as `evaluate` gives it, with these figures and no more than the table reads."""
    return {
        "model": model,
        "attributes": ["A"],
        "reconstruction": {"mse": mse, "psnr": None, "ssim": 0.5},
        "attribute_change": {"wished": wished, "worst": 0.8, "others": 0.02},
        "truth": None,
        "variety": {"transferred": 0.03},
        "leakage": {"z": {"logistic": {"max": 0.6}, "mlp": {"max": 0.7}}},
    }


@pytest.fixture(scope="module")
def splits(make_halves):
    return make_halves(60, 10), make_halves(30, 11), make_halves(40, 12)


def test_all_models_are_measured_by_the_same_judges_as_evaluate_does(make_member, splits):
    models = {name: make_member(name) for name in list_models()}
    lines = []
    results = compare(models, *splits, progress=lines.append)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert sum(line.startswith("training the judge") for line in lines) == 2
    assert "vae: leakage" in lines
    assert {name: result["model"] for name, result in results.items()} == {name: name for name in models}
    judges = [result["judge"] for result in results.values()]
    assert all(judge == judges[0] for judge in judges)
    assert evaluate(models["vae"], *splits) == results["vae"]
    table = comparison_table(results).splitlines()
    assert [line.split(" | ")[0] for line in table if line] == 3 * [
        "| model",
        "| ---",
        *(f"| {name}" for name in models),
    ]
    assert max(line.count("|") - 1 for line in table) == 6


def test_models_of_other_data_are_refused(make_member, splits):
    models = {"one": make_member("csvae"), "two": make_member("vae", ("Left", "Top"))}
    with pytest.raises(
        ValueError, match="two: expected the attributes of one, Left, Right, got Left, Top: compare mod"
    ):
        compare(models, *splits)
    with pytest.raises(ValueError, match="expected at least one model to be measured, got none"):
        compare({}, *splits)


def test_the_interval_is_students():
    values = [0.010, 0.014, 0.011]
    found = over_seeds([result_of(value) for value in values])["mse"]
    assert found["values"] == values
    assert found["mean"] == pytest.approx(np.mean(values))
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found["low"], found["high"]) == pytest.approx(expected)


def test_the_interval_covers_the_truth_19_times_in_20():
    rng = np.random.default_rng(0)
    found = [over_seeds([result_of(v) for v in rng.normal(1, 0.2, 4)])["mse"] for _ in range(300)]
    assert np.mean([entry["low"] < 1 < entry["high"] for entry in found]) == pytest.approx(0.95, abs=0.03)


def test_one_value_has_no_interval_and_what_is_missing_is_left_out():
    found = over_seeds([result_of(0.01, wished=None), result_of(0.02, wished=0.8)])
    assert found["wished"] == {"mean": 0.8, "low": None, "high": None, "values": [None, 0.8]}
    assert found["psnr"] == {"mean": None, "low": None, "high": None, "values": [None, None]}
    assert set(found) == set(FIGURES)


def test_seeds_are_of_one_model():
    with pytest.raises(ValueError, match="model: expected results of one model over seeds, got 'csvae' and 'vae'"):
        over_seeds([result_of(0.1), result_of(0.1, model="vae")])
    with pytest.raises(ValueError, match="expected at least one result, got none"):
        over_seeds([])


def test_the_table_says_mean_and_half_the_interval():
    seeds = [result_of(0.010, 0.90), result_of(0.014, 0.94)]
    tables = comparison_table({"many": seeds, "one": result_of(0.5)}).split("\n\n")
    rows = [[line.strip("| ").split(" | ") for line in table.splitlines()] for table in tables]
    cells = {title: row for titles, _, *found in rows for title, *row in zip(titles, *found, strict=True)}
    half = 12.706 * 0.02
    assert cells["wished class"] == [f"92.0 ± {100 * half:.1f} %", "90.0 %"]
    assert cells["MSE"] == [f"0.0120 ± {12.706 * 0.002:.4f}", "0.5000"]
    assert cells["leak, MLP (max)"] == ["0.700 ± 0.000", "0.700"]
    assert cells["distance to truth"] == cells["PSNR (dB)"] == ["–", "–"]


def test_results_of_earlier_versions_can_be_shown():
    old = {key: value for key, value in result_of(0.01).items() if key not in ("truth", "variety")}
    assert comparison_table({"old": old}).endswith("| old | 0.0100 | – | 0.500 | 0.600 | 0.700 |\n")
