from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError
from csvae_hub.evaluation import AttributeClassifier, evaluate, markdown_table
from csvae_hub.evaluation.report import check_disjoint
from csvae_hub.models import CSVAE


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ModelConfig(("Right", "Left"), shape=(3, 16, 16), z_dim=4, backbone=BackboneConfig(width=4, features=8))
    return CSVAE(config)


@pytest.fixture(scope="module")
def splits(make_halves):
    return make_halves(200, 10), make_halves(60, 11), make_halves(80, 12)


def test_evaluate_measures_everything_and_the_same_twice(model, splits, judge):
    stages = []
    result = evaluate(model, *splits, judge, progress=stages.append)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert evaluate(model, *splits, judge) == result
    assert result["attributes"] == ["Right", "Left"]
    assert {name: entry["count"] for name, entry in result["data"].items()} == {"train": 200, "valid": 60, "test": 80}
    assert result["judge"]["accuracy"] > 0.95
    assert result["judge"]["at_chance"] == []
    assert 0 < result["reconstruction"]["mse"] < 1
    assert list(result["attribute_change"]["attributes"]) == ["Right", "Left"]
    assert stages == ["encoding the three splits", "reconstruction", "attribute change", "leakage"]


def test_a_judge_is_trained_where_none_is_given(model, splits):
    stages = []
    result = evaluate(model, *splits, judge_epochs=1, progress=stages.append)
    assert "training the judge: 1 epochs of 200 pictures" in stages
    assert result["judge"]["depth"] == 2


def test_a_judge_at_chance_is_reported(model, splits, make_halves):
    judge = AttributeClassifier(("Left", "Right", "More"), width=2).eval()
    with torch.no_grad():
        judge.head[-1].weight.zero_()
    result = evaluate(model, *splits, judge)
    assert result["judge"]["at_chance"] == ["Left", "Right"]
    assert "The judge is at chance on Left, Right" in markdown_table(result)


def test_markdown_has_a_row_an_attribute_and_equal_columns(model, splits, judge):
    text = markdown_table(evaluate(model, *splits, judge))
    tables = [table.splitlines() for table in text.strip().split("\n\n")]
    assert [line.split(" | ")[0] for line in tables[1][2:]] == ["| Right", "| Left"]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert "–" not in text.replace("–0", "").replace("–1", "")  # nothing is missing but the dash of intervals


def test_vectors_have_no_judge():
    rng = np.random.default_rng(0)
    x = [rng.normal(0, 1, (n, 3)).astype(np.float32) for n in (100, 50, 50)]
    splits = [AttributeData(part, (part[:, :1] > 0).astype(np.float32), ["Above"]) for part in x]
    model = CSVAE(ModelConfig(("Above",), shape=(3,), z_dim=2, backbone=BackboneConfig("mlp", width=8, features=8)))
    result = evaluate(model, *splits)
    assert result["judge"] is None
    assert result["attribute_change"] is None
    assert result["reason"].startswith("the model takes vectors")
    assert result["reconstruction"]["psnr"] is None
    assert result["leakage"]["w_others"]["mlp"]["attributes"]["Above"]["reason"] == "the model has one attribute"
    assert "| Above | – | – |" in markdown_table(result)


def test_overlapping_splits_are_refused(model, splits, judge):
    train, valid, test = splits
    with pytest.raises(DataError, match=r"the splits train and test share 80 example\(s\): expected none"):
        evaluate(model, train, valid, AttributeData(train.images[:80], train.labels[:80], train.attributes), judge)
    named = [
        AttributeData(part.images, part.labels, part.attributes, [f"{name}{i}.jpg" for i in range(len(part))])
        for name, part in zip(("a", "b", "a"), splits, strict=True)
    ]
    with pytest.raises(DataError, match=r"train and test share 80 example\(s\), such as a0.jpg"):
        check_disjoint(dict(zip(("train", "valid", "test"), named, strict=True)))
    with pytest.raises(DataError, match="valid split: expected at least one example, got none"):
        check_disjoint({"train": train, "valid": valid.subset([])})
