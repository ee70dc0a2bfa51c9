from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from csvae_hub.classifier import ARCHITECTURES, AttributeClassifier
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import SyntheticFaces
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError
from csvae_hub.evaluation import Judges, evaluate
from csvae_hub.evaluation.encoding import encode_data
from csvae_hub.hub.card_tables import figures
from csvae_hub.models import CSVAE, create_model, list_models


@pytest.fixture(scope="module")
def model(make_member):
    return make_member("csvae", ("Right", "Left"))


@pytest.fixture(scope="module")
def splits(make_halves):
    return make_halves(200, 10), make_halves(60, 11), make_halves(80, 12)


def ignorant(attributes):
    """Judges that answer the same whatever they see."""
    members = [AttributeClassifier(attributes, architecture=name, width=4, size=16) for name in ARCHITECTURES]
    for member in members:
        torch.nn.init.zeros_(member.head[-1].weight)
    return Judges(members)


@pytest.mark.parametrize("name", list_models())
def test_evaluate_measures_everything_of_every_model_and_the_same_twice(make_member, splits, judges, name):
    model, stages = make_member(name, ("Right", "Left")), []
    result = evaluate(model, *splits, judges, progress=stages.append)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert evaluate(model, *splits, judges) == result
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
    assert "| Left |" in figures(result, result["attributes"])


def test_photos_are_measured_as_they_are_put_back(make_member, splits, judges):
    model, seen = make_member("csvae", ("Right", "Left")), []

    def put_back(of):
        assert of is model
        return lambda images, values: seen.append((len(images), dict(values))) or images.repeat_interleave(2, -1)

    result = evaluate(model, *splits, judges, put_back=put_back, photos=50)
    assert result["photos"]["wished"] == result["photos"]["before"] < 0.1  # nothing was edited
    assert result["photos"]["others"] == 0
    assert sum(n for n, values in seen if values == {}) == 50
    counts = [
        entry[d]["count"] for entry in result["photos"]["attributes"].values() for d in ("to_present", "to_absent")
    ]
    assert sum(n for n, values in seen if values) == sum(counts) == 100
    table = figures(result, result["attributes"])
    assert "| Photos put back together: edits taken for the wished class, mean | " in table
    assert max(line.count("|") - 1 for line in table.splitlines()) <= 6


def test_drawn_data_has_a_truth(make_member):
    splits = [SyntheticFaces(n, seed=seed, image_size=16) for seed, n in enumerate((40, 20, 20))]
    judges = ignorant(splits[0].attributes)
    stages = []
    result = evaluate(make_member("csvae", splits[0].attributes), *splits, judges, progress=stages.append)
    assert "distance to the truth" in stages
    assert result["truth"]["by_example"]["distance"] > 0
    assert result["variety"]["transferred_ratio"] is not None


def test_a_judge_is_trained_where_none_is_given(model, splits):
    stages = []
    result = evaluate(model, *splits, progress=stages.append)
    assert "training the judge resnet: 14 epochs of 200 pictures" in stages
    assert "training the judge convnext: 14 epochs of 200 pictures" in stages
    assert set(result["judge"]["members"]) == {"resnet", "convnext"}


def test_a_judge_at_chance_is_reported_and_not_counted(model, splits):
    judges = ignorant(("Left", "Right", "More"))
    result = evaluate(model, *splits, judges)
    assert result["judge"]["at_chance"] == ["Left", "Right"]
    assert result["attribute_change"]["wished"] is None
    assert "A judge is at chance on Left, Right" in figures(result, result["attributes"])


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
    table = figures(result, result["attributes"])
    assert "wished" not in table
    assert table.splitlines()[-1].startswith("| Above | ")


def test_overlapping_splits_are_refused(model, splits, judges):
    train, valid, _ = splits
    with pytest.raises(DataError, match=r"the splits train and test share 80 example\(s\), such as example 0"):
        evaluate(model, train, valid, train.subset(range(80)), judges)


@pytest.mark.parametrize(
    ("shape", "backbone", "text"),
    [
        (
            (3, 32, 32),
            "conv",
            "pictures of 3×32×32, as the model takes them, got pictures of 3×16×16: load the data with",
        ),
        ((5,), "mlp", "vectors of 5 numbers, as the model takes them, got pictures of 3×16×16: take data of that kind"),
    ],
)
def test_data_of_another_kind_than_the_model_s_are_refused(splits, judges, shape, backbone, text):
    config = BackboneConfig(name=backbone, width=4, features=8)
    model = create_model(ModelConfig(("Left", "Right"), shape=shape, z_dim=4, backbone=config))
    with pytest.raises(DataError, match=f"^the model and the data don't match: expected {text}"):
        evaluate(model, *splits, judges)
    with pytest.raises(DataError, match="don't match"):
        encode_data(model, splits[0])
