"""The training step of the benchmark of speed: it moves every network; ratios and shares follow from the times."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn


class Other(nn.Module):
    """Stands for pythae's VAE: one convolution."""

    model_config = SimpleNamespace(input_dim=(3, 64, 64))

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, inputs):
        return SimpleNamespace(loss=self.layer(inputs["data"]).square().mean())


@pytest.fixture
def speed_training(script, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    return script("speed_training")


def test_a_step_of_ours_moves_the_adversary_and_every_other_network(speed_training):
    model, step = speed_training.our_step("float32", 4)
    before = {name: tensor.clone() for name, tensor in model.named_parameters() if tensor.requires_grad}
    step()
    moved = {
        name.partition(".")[0]
        for name, tensor in model.named_parameters()
        if name in before and not tensor.equal(before[name])
    }
    assert moved == {name.partition(".")[0] for name in before}
    assert "adversary_net" in moved


def test_a_step_of_theirs_moves_it(speed_training):
    theirs = Other()
    before = theirs.layer.weight.clone()
    speed_training.their_step(theirs, "bfloat16", 2)()
    assert not theirs.layer.weight.equal(before)


def test_shares_and_ratios_follow_from_times_and_operations(speed_training, monkeypatch):
    took = {"ours": 2.0, "pythae": 5.0, "convolution": 0.001}
    monkeypatch.setattr(
        speed_training, "in_turns", lambda calls, setting, repeats: {name: took[name] for name in calls}
    )
    for found in speed_training.training(lambda model: Other(), quick=True).values():
        assert found["pythae over ours"] == pytest.approx(2.5)
        assert found["convolution, operations"] == 2 * 64 * 16 * 16 * 9 * 4 * 4
        assert found["pythae, operations"] == pytest.approx(
            2 * 2 * 4 * 3 * 8 * 9 * 62**2
        )  # no gradient of the pictures
        ours = found["ours, operations"] / 2.0 / (found["convolution, operations"] / 0.001)
        assert found["share of the convolution's arithmetic"] == pytest.approx(ours)
