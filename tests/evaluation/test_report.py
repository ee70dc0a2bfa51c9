from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import SyntheticFaces
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError
from csvae_hub.evaluation import AttributeClassifier, evaluate, markdown_table
from csvae_hub.models import CSVAE, list_models


@pytest.fixture(scope="module")
def model(make_member):
    return make_member("csvae", ("Right", "Left"))


@pytest.fixture(scope="module")
def splits(make_halves):
    return make_halves(200, 10), make_halves(60, 11), make_halves(80, 12)


@pytest.mark.parametrize("name", list_models())
def test_evaluate_measures_everything_of_every_model_and_the_same_twice(make_member, splits, judge, name):
    model, stages = make_member(name, ("Right", "Left")), []
    result = evaluate(model, *splits, judge, progress=stages.append)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert evaluate(model, *splits, judge) == result
    assert (result["model"], result["attributes"]) == (name, ["Right", "Left"])
    assert {name: entry["count"] for name, entry in result["data"].items()} == {"train": 200, "valid": 60, "test": 80}
    assert result["judge"]["accuracy"] > 0.95
    assert result["judge"]["at_chance"] == []
    assert 0 < result["reconstruction"]["mse"] < 1
    assert result["bound"]["total"] > 0
    assert result["variety"]["sampled"] >= 0
    assert result["truth"] is None
    assert list(result["attribute_change"]["attributes"]) == ["Right", "Left"]
    assert stages == [
        "encoding the three splits",
        "reconstruction and bound",
        "attribute change",
        "variety",
        "leakage",
    ]
    assert "| Left |" in markdown_table(result)


def test_drawn_data_has_a_truth(make_member):
    splits = [SyntheticFaces(n, seed=seed, image_size=16) for seed, n in enumerate((40, 20, 20))]
    judge = AttributeClassifier(splits[0].attributes, width=2).eval()
    stages = []
    result = evaluate(make_member("csvae", splits[0].attributes), *splits, judge, progress=stages.append)
    assert "distance to the truth" in stages
    assert result["truth"]["by_example"]["distance"] > 0
    assert result["variety"]["transferred_ratio"] is not None


def test_a_judge_is_trained_where_none_is_given(model, splits):
    stages = []
    result = evaluate(model, *splits, judge_epochs=1, progress=stages.append)
    assert "training the judge: 1 epochs of 200 pictures" in stages
    assert result["judge"]["depth"] == 2


def test_a_judge_at_chance_is_reported_and_not_counted(model, splits):
    judge = AttributeClassifier(("Left", "Right", "More"), width=2).eval()
    with torch.no_grad():
        judge.head[-1].weight.zero_()
    result = evaluate(model, *splits, judge)
    assert result["judge"]["at_chance"] == ["Left", "Right"]
    assert result["attribute_change"]["wished"] is None
    assert "The judge is at chance on Left, Right" in markdown_table(result)


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
    assert result["variety"]["sampled"] > 0
    assert result["truth"] is None
    assert "| Above | – | – |" in markdown_table(result)


def test_overlapping_splits_are_refused(model, splits, judge):
    train, valid, _ = splits
    with pytest.raises(DataError, match=r"the splits train and test share 80 example\(s\), such as example 0"):
        evaluate(model, train, valid, train.subset(range(80)), judge)
