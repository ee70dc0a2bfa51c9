"""The paper's toy figure, from the recipe as it stands: y is in W and not in Z."""

from __future__ import annotations

import pytest
import torch

from csvae_hub.data import load_data
from csvae_hub.evaluation import evaluate
from csvae_hub.training import load_recipe, train


@pytest.fixture(scope="module")
def splits():
    return [load_data("swiss-roll", split=split) for split in ("train", "valid", "test")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        return train(load_recipe("swiss-roll"), None, tmp_path_factory.mktemp("roll"), quiet=True)


def test_y_is_separable_in_w_and_not_in_z(model, splits):
    result = evaluate(model, *splits)
    leak = result["leakage"]
    assert leak["w_own"]["mlp"]["mean"] >= 0.99
    assert leak["w_own_labelled"]["mlp"]["mean"] >= 0.99
    assert leak["z"]["logistic"]["mean"] <= 0.60
    assert leak["z"]["mlp"]["mean"] <= 0.60
    assert result["reconstruction"]["mse"] < 0.05 * splits[2].images.var(0).mean()


@pytest.mark.parametrize("value", [True, False])
def test_an_edit_moves_the_height_across_the_threshold(model, splits, value):
    x, y = splits[2].batch(torch.arange(2000))
    x = x[y[:, 0] == (not value)]
    with torch.no_grad():
        edited = model.decode(model.set_attribute(model.encode(x), "Above", value))
    assert ((edited[:, 1] > 10.5) == value).float().mean() > 0.98
