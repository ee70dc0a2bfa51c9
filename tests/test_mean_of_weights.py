"""The mean of trained weights that benchmarks/celeba.py packages."""

from __future__ import annotations

import json

import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import create_model


def test_weights_are_the_mean_and_counts_those_of_the_last(script, tmp_path):
    config = ModelConfig(("Smile", "Hat"), shape=(3, 16, 16), z_dim=4, backbone=BackboneConfig(width=4, features=8))
    folders = [tmp_path / name for name in "abc"]
    states = []
    for i, folder in enumerate(folders):
        model = create_model(config).eval()
        for value in model.state_dict().values():
            value.copy_(torch.rand(value.shape)) if value.is_floating_point() else value.fill_(i)
        model.save_pretrained(folder)
        states.append(model.state_dict())
    mean = script("celeba").mean_of(folders).state_dict()
    kinds = set()
    for name, value in mean.items():
        kinds.add(value.is_floating_point())
        if value.is_floating_point():
            torch.testing.assert_close(value, sum(state[name] for state in states) / 3)
        else:
            assert (value == 2).all()
    assert kinds == {True, False}


def test_the_record_of_a_mean_has_all_histories_and_how_often_each_counts(script, tmp_path):
    folders = [tmp_path / name / "model" for name in ("first", "second")]
    for folder, record in zip(folders, ({"seed": 1}, {"seed": 2, "initial": str(folders[0])}), strict=True):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "training.json").write_text(json.dumps(record))
    celeba = script("celeba")
    assert celeba.histories(folders[1:]) == {"first": {"seed": 1}, "second": {"seed": 2}}
    mean = {"mean_of": ["first", "first", "second"]}
    assert celeba.histories([folders[0], *folders]) == {"first": {"seed": 1}, "second": {"seed": 2}, "mean": mean}
