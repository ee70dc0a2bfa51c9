"""The best epoch of a run beside the last one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from csvae_hub.models import CSVAE
from csvae_hub.training import looks
from csvae_hub.training.checkpoints import list_checkpoints
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.trainer import Trainer

CONFIG = TrainerConfig(epochs=4, batch_size=8, ema_decay=0.5)


class Watch:
    """Keeps the average's weights of each epoch; may break off at a batch."""

    def __init__(self, breaks_at=None):
        self.weights, self.breaks_at = {}, breaks_at

    def after_epoch(self, trainer, epoch, figures):
        self.weights[epoch] = _copy(trainer.average)

    def after_batch(self, trainer, batch, terms):
        if batch == self.breaks_at:
            raise KeyboardInterrupt


def _copy(model):
    return {name: value.clone() for name, value in model.named_parameters()}


@pytest.fixture
def trainer(build, data, monkeypatch):
    """A run in which the validation data has these errors, an epoch each."""

    def make(folder, errors, watch, config=CONFIG, **options):
        monkeypatch.setattr(looks, "look", lambda model, data, folder, epoch: {"valid_mse": errors[epoch - 1]})
        told = {"quiet": True, "callbacks": [watch], "checkpoint_minutes": 0.0}
        return Trainer(build(**options), config, data(), data(), folder, **told)

    return make


def assert_weights(folder, expected):
    model = CSVAE.from_pretrained(folder, device="cpu")
    assert all(torch.equal(value, expected[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize(("errors", "best"), [((3.0, 1.0, 2.0, 1.0), 2), ((4.0, 3.0, 2.0, 1.0), 4)])
def test_the_epoch_of_least_error_is_a_model_too(tmp_path, trainer, errors, best):
    watch = Watch()
    trainer(tmp_path, errors, watch).fit()
    assert_weights(tmp_path / "model", watch.weights[4])
    assert_weights(tmp_path / "best", watch.weights[best])
    about = json.loads((tmp_path / "best/training.json").read_text())
    assert about["best"] == {"epoch": best, "valid_mse": errors[best - 1]}
    assert CSVAE.from_pretrained(tmp_path / "best").class_scales.any()  # it is finished as the other


def test_a_run_that_goes_on_knows_the_best_epoch_before(tmp_path, trainer):
    watch, errors = Watch(breaks_at=17), (3.0, 1.0, 2.0, 1.5)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, errors, watch).fit()
    resumed = trainer(tmp_path, errors, Watch())
    resumed.fit()
    assert (resumed.looks.epoch, resumed.looks.error) == (2, 1.0)
    assert_weights(tmp_path / "best", watch.weights[2])


def test_in_a_rest_the_best_is_one_of_the_rest(tmp_path, trainer):
    watch = Watch()
    run = trainer(tmp_path, (1.0, 2.0, 5.0, 6.0), watch, parts={"rest": {"epochs": 2}})
    run.fit()
    assert run.looks.epoch == 3
    assert_weights(tmp_path / "best", watch.weights[3])


def test_without_validation_data_there_is_none(tmp_path, build, data):
    run = Trainer(build(), replace(CONFIG, epochs=1), data(), None, tmp_path, quiet=True)
    run.fit()
    assert not (tmp_path / "best").exists()
    assert len(list_checkpoints(tmp_path / "checkpoints")) == 1
