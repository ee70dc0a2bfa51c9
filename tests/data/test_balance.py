"""Weights of rare attributes, and what an epoch draws by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import AttributeData, balanced, load_data
from csvae_hub.data.balance import MOST, raked
from csvae_hub.errors import DataError, UnknownAttributeError
from csvae_hub.training import Recipe, Trainer
from csvae_hub.training.config import TrainerConfig, batch_order
from csvae_hub.training.guards import Guards
from csvae_hub.training.recipes import objective_of

NAMES = ("Hat", "Glasses", "Beard", "Sad", "Happy", "Calm")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = (rng.random((4000, 6)) < (0.06, 0.1, 0.4, 0, 0, 0)).astype(np.float32)
    labels[np.arange(4000), 3 + rng.choice(3, 4000, p=(0.1, 0.2, 0.7))] = 1
    labels[labels[:, 2] == 1, 0] *= rng.random((labels[:, 2] == 1).sum()) < 0.5  # beards and hats seldom go together
    labels[rng.random(4000) < 0.3, 1] = np.nan
    return AttributeData(rng.random((4000, 2), dtype=np.float32), labels, NAMES, [f"{i}" for i in range(4000)])


def shares(labels, order):
    return np.nanmean(labels[order.numpy()], 0)


def test_an_epoch_has_each_attribute_in_half_of_the_examples(data):
    weighted = balanced(data, ["Hat", "Glasses", "Beard", "Sad"], [NAMES[3:]])
    drawn = [batch_order(4000, 0, epoch, weighted.weights) for epoch in range(10)]
    np.testing.assert_allclose(shares(data.labels, torch.cat(drawn)), [0.5] * 3 + [1 / 3] * 3, atol=0.01)
    assert abs(np.nanmean(data.labels[:, 0]) - 0.05) < 0.02
    for order in drawn:
        times = torch.bincount(order, minlength=4000)
        assert len(order) == 4000
        assert ((times == weighted.weights.floor()) | (times == weighted.weights.ceil())).all()
    assert weighted.weights.max() <= MOST * 1.001
    assert (weighted.labels[~np.isnan(data.labels)] == data.labels[~np.isnan(data.labels)]).all()


def test_the_weights_are_the_nearest_to_equal_ones(data):
    """Those of one attribute depend on it alone; a missing label keeps its share."""
    weights = balanced(data, ["Glasses"]).weights.numpy()
    column = data.labels[:, 1]
    assert len(np.unique(weights.round(9))) == 3
    np.testing.assert_allclose(weights[np.isnan(column)], 1)
    known = (~np.isnan(column)).sum()
    for value in (0, 1):
        np.testing.assert_allclose(weights[column == value], known / 2 / (column == value).sum())
    two = balanced(data, ["Glasses", "Beard"]).weights.numpy()
    logs = {key: np.log(two[(data.labels[:, 1:3] == key).all(1)]).mean() for key in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert logs[0, 0] + logs[1, 1] == pytest.approx(logs[0, 1] + logs[1, 0], abs=1e-6)  # a product of two factors


def test_no_example_is_drawn_without_end():
    rare = np.zeros(10_000, bool)
    rare[:3] = True
    weights = raked(10_000, [[(rare, 0.5), (~rare, 0.5)]])
    assert weights.max() == pytest.approx(MOST, rel=0.01)
    assert weights.mean() == pytest.approx(1)


def test_the_order_is_of_seed_epoch_and_weights_alone(data):
    weights = balanced(data, ["Hat"]).weights
    found = [batch_order(4000, *key, weights) for key in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])
    assert sorted(batch_order(4000, 0, 0).tolist()) == list(range(4000))


def test_weights_belong_to_the_data(data):
    weighted = balanced(data, ["Hat"])
    assert weighted.fingerprint != data.fingerprint
    assert torch.equal(weighted.select(["Beard"]).weights, weighted.weights)
    assert torch.equal(weighted.exclusive([NAMES[3:]]).weights, weighted.weights)
    assert weighted.subset(range(9)).weights is None
    assert data.weights is None


def test_what_counts_classes_counts_those_that_are_drawn(data, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    names = ["Hat", "Glasses", "Beard"]
    data = data.select(names)
    weighted = balanced(data, names)
    assert data.drawn_labels is data.labels
    np.testing.assert_allclose(np.nanmean(weighted.drawn_labels, 0), 0.5, atol=0.01)
    model = ModelConfig(tuple(names), shape=(2,), backbone=BackboneConfig("mlp", 8, features=8), z_dim=2)
    rates, chances = [], []
    for examples in (data, weighted):
        objective = objective_of(Recipe(model, parts={"balanced": {}}), examples)
        rates.append(objective.base_rate())
        trainer = Trainer(objective_of(Recipe(model), examples), TrainerConfig(), examples, quiet=True)
        chances.append(Guards.of(trainer).chances["adversary"])
    torch.testing.assert_close(rates[0], torch.from_numpy(np.nanmean(data.labels, 0)))
    torch.testing.assert_close(rates[1], torch.full((3,), 0.5), atol=0.01, rtol=0)
    known = (~np.isnan(weighted.drawn_labels)).mean()
    assert chances[1] == pytest.approx(3 * known * np.log(2), rel=1e-3)
    assert chances[0] < 0.7 * chances[1]


def test_three_quarters_of_an_epoch_are_labelled_where_fewer_examples_are(data):
    labels = data.labels.copy()
    labels[400:] = np.nan
    few = balanced(AttributeData(data.images, labels, NAMES), ())
    np.testing.assert_allclose(few.weights[:400], 7.5)
    drawn = batch_order(4000, 0, 0, few.weights)
    assert (drawn < 400).float().mean() == pytest.approx(0.75, abs=1e-3)
    assert len(drawn[drawn >= 400].unique()) > 990
    labels[400:3000] = data.labels[400:3000]
    assert balanced(AttributeData(data.images, labels, NAMES), ()).weights is None
    assert balanced(data, ()) is data


def test_rare_attributes_are_balanced_among_the_labelled(data):
    labels = data.labels.copy()
    labels[800:] = np.nan
    weights = balanced(AttributeData(data.images, labels, NAMES), ["Beard"]).weights.numpy()
    beard = labels[:, 2] == 1
    assert weights[:800].sum() == pytest.approx(3000)
    assert weights[beard].sum() == pytest.approx(1500)
    np.testing.assert_allclose(weights[800:], 1000 / 3200)


@pytest.mark.parametrize(
    ("labelled", "weight", "known"), [(4, 4.5, 0.75), (16, 1.125, 0.75), (18, None, 0.75), (24, None, 1)]
)
def test_training_draws_labelled_examples_three_times_of_four(tmp_path, labelled, weight, known):
    from PIL import Image

    from csvae_hub.training import load_recipe
    from csvae_hub.training.recipes import prepare

    (tmp_path / "images").mkdir()
    rows = ["file,Smile"]
    for i in range(24):
        Image.new("RGB", (32, 32), (10 * i, 0, 0)).save(tmp_path / f"images/{i}.png")
        rows.append(f"{i}.png,{i % 2 if i < labelled else ''}")
    (tmp_path / "attributes.csv").write_text("\n".join(rows), encoding="utf-8")
    recipe = load_recipe("paper-faces", {"trainer.batch_size": "8", "model.attributes": '["Smile"]'})
    trainer = prepare(recipe, tmp_path, None, cache_dir=tmp_path / "cache", quiet=True)
    weights = trainer.train_data.weights
    assert (None if weights is None else weights[0]) == weight
    assert trainer.objective.known == pytest.approx(known)


def test_what_cannot_be_balanced(data):
    with pytest.raises(UnknownAttributeError, match="did you mean 'Hat'"):
        balanced(data, ["Hats"])
    data.labels[:, 0] = np.where(data.labels[:, 0] == 1, np.nan, 0)
    with pytest.raises(DataError, match="Hat: expected examples that have it and others: .* got one without"):
        balanced(data, ["Hat"])
    for weights in (np.ones(3), -np.ones(4000), np.zeros(4000), np.full(4000, np.nan)):
        with pytest.raises(DataError, match="weights: expected 4000 numbers of 0 or more, one an example"):
            data.weighted(weights)


def test_a_run_with_balance_says_so(tmp_path):
    from csvae_hub import hub
    from csvae_hub.cli import main
    from csvae_hub.errors import ConfigError
    from csvae_hub.training import load_recipe, train

    small = {"trainer.epochs": "1", "data.examples": "300"}
    options = [word for pair in small.items() for word in ("--set", "=".join(pair))]
    command = ["train", "--recipe", "paper-swiss-roll", "-o", str(tmp_path), "--balance", "Above", *options]
    main(command, standalone_mode=False)
    found = hub.read_json(tmp_path / "model/training.json")
    data = load_data("swiss-roll", examples=300)
    assert found["balance"] == ["Above"]
    assert found["data_fingerprint"] == balanced(data, ["Above"]).fingerprint != data.fingerprint
    with pytest.raises(ConfigError, match="^balance: the checkpoint in .* was made with"):
        train(load_recipe("paper-swiss-roll", small), None, tmp_path, quiet=True)
