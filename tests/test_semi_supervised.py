"""The benchmark of pictures without labels: what its three models are trained on, and its verdict."""

from __future__ import annotations

import numpy as np
import pytest

from csvae_hub.data import SyntheticFaces
from csvae_hub.training import load_recipe


@pytest.fixture
def semi(script):
    return script("semi_supervised")


def test_the_models_differ_in_their_data_alone(semi):
    train, recipe = SyntheticFaces(1280, image_size=16), load_recipe("synthetic-faces")
    every, few_labels, few_faces = semi.variants(train).values()
    assert every is train
    np.testing.assert_array_equal(few_labels.images, train.images)
    np.testing.assert_array_equal(few_labels.labels[:128], train.labels[:128])
    assert np.isnan(few_labels.labels[128:]).all()
    np.testing.assert_array_equal(few_faces.images, train.images[:128])
    np.testing.assert_array_equal(few_faces.labels, train.labels[:128])
    recipes = [semi.shortened(recipe, 8, 3, train, data) for data in (every, few_labels, few_faces)]
    assert [one.trainer.epochs * (n // 64) for one, n in zip(recipes, (1280, 1280, 128), strict=True)] == [160] * 3
    assert [one.parts["rest"].epochs for one in recipes] == [2, 2, 20]
    assert {one.trainer.seed for one in recipes} == {3}


def test_the_verdict_says_which_of_the_two_is_closer(semi):
    def runs(*wished):
        return {name: {"0": {"wished": w}, "1": {"wished": w}} for name, w in zip(names, wished, strict=True)}

    names = (semi.ALL, semi.FEW_LABELS, semi.FEW_FACES)
    found = {"to_all_labels": 5, "to_few_faces": 15, "to_all_labels_by_seed": 5, "to_few_faces_by_seed": 15}
    assert semi.verdict(runs(0.9, 0.85, 0.7)) == pytest.approx({**found, "closer": True})
    assert not semi.verdict(runs(0.9, 0.75, 0.7))["closer"]
    crossed = runs(0.9, 0.8, 0.82)
    for name, w in zip(names, (0.8, 0.9, 0.92), strict=True):
        crossed[name]["1"] = {"wished": w}
    assert semi.verdict(crossed)["to_all_labels"] == pytest.approx(0)
    assert not semi.verdict(crossed)["closer"]  # seed by seed few faces are nearer
    few = runs(0.9, 0.75, 0.7)
    del few[semi.FEW_FACES]
    assert semi.verdict(few) is None
