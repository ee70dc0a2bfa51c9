"""Trackers of accelerate's beside, or instead of, TensorBoard; and a compiled backbone."""

from __future__ import annotations

import functools

import pytest
import torch
from accelerate import Accelerator, tracking

from csvae_hub.errors import ConfigError, MissingExtraError
from csvae_hub.training import load_recipe, train
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.processes import join
from csvae_hub.training.trainer import Trainer

CONFIG = TrainerConfig(epochs=2, batch_size=8)


class Kept(tracking.GeneralTracker):
    """Keeps what it is told."""

    name, requires_logging_directory, runs = "wandb", False, []

    def __init__(self, run_name="given", **options):
        super().__init__(_blank=True)
        self.run_name, self.options, self.config, self.rows, self.ended = run_name, options, {}, [], 0
        type(self).runs.append(self)

    @property
    def tracker(self):
        return self

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **options):
        self.rows.append((step, values))

    def finish(self):
        self.ended += 1


@pytest.fixture(autouse=True)
def _none_before(monkeypatch):
    monkeypatch.setattr(Kept, "runs", [])


def test_an_accelerator_s_trackers_get_every_entry_and_tensorboard_none(tmp_path, build, data):
    kept = Kept()
    accelerator = Accelerator(log_with=[kept])
    run = Trainer(
        build(), CONFIG, data(), data(), tmp_path, quiet=True, accelerator=accelerator, record={"a": {"b": [1]}}
    )
    run.fit()
    steps, kinds = zip(*((step, {name.split("/")[0] for name in values}) for step, values in kept.rows), strict=True)
    assert steps == (5, 5, 10, 10)
    assert kinds == ({"batch"}, {"epoch"}) * 2
    assert {"batch/reconstruction", "batch/kl_w", "batch/adversary"} <= kept.rows[0][1].keys()
    assert kept.rows[1][1].keys() >= {"epoch/valid_mse"}
    assert kept.config["a.b"] == "[1]"
    assert kept.config["trainer.epochs"] == 2
    assert kept.ended == 1
    assert not (tmp_path / "logs").exists()


def test_a_tracker_is_chosen_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Kept)
    monkeypatch.setattr(
        tracking, "get_available_trackers", lambda: [tracking.LoggerType.WANDB, tracking.LoggerType.TENSORBOARD]
    )
    recipe = load_recipe("paper-swiss-roll", {"trainer.epochs": "1", "data.examples": "512"})
    train(recipe, None, tmp_path, quiet=True, log_with=["wandb", "tensorboard"])
    (kept,) = Kept.runs
    assert kept.run_name == "csvae-hub"
    assert kept.rows
    assert kept.config["trainer.epochs"] == 1
    assert list(tmp_path.glob("csvae-hub/events*"))


def test_a_tracker_that_is_not_known_or_not_installed_is_named(monkeypatch):
    with pytest.raises(ConfigError, match="^log_with: expected one of .*tensorboard.*, got 'tensorbord'"):
        join(1, ["tensorbord"])
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(MissingExtraError, match="^the library of the tracker wandb is missing: pip install wandb"):
        join(1, ["wandb"])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of dynamo's own looking
def test_a_compiled_backbone_trains_as_it_does_otherwise(build, data, monkeypatch):
    compiled = []

    def compile_(function):
        compiled.append(function.__name__)
        return functools.partial(torch._dynamo.optimize("eager", nopython=True)(function))

    monkeypatch.setattr(torch, "compile", compile_)
    runs = [Trainer(build(parts={"rest": {}}), CONFIG, data(), quiet=True, compile=flag) for flag in (True, False)]
    one, other = (run.fit().state_dict() for run in runs)
    assert compiled == ["encode", "decode"]
    assert all(torch.allclose(value, other[name], atol=1e-5) for name, value in one.items())
