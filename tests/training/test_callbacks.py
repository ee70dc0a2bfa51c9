"""Callbacks are told of batches, epochs and the end, can end a run, and leave its bits alone."""

from __future__ import annotations

import json

import pytest
import torch

from csvae_hub.errors import ConfigError
from csvae_hub.training import Trainer, TrainerConfig
from csvae_hub.training.callbacks import Callbacks
from csvae_hub.training.checkpoints import load_latest

CONFIG = TrainerConfig(epochs=3, batch_size=8)


class Told:
    """Notes what it is told, and draws random numbers meanwhile."""

    def __init__(self):
        self.batches, self.epochs, self.ends = [], [], []

    def after_batch(self, trainer, batch, terms):
        torch.rand(3)
        self.batches.append((batch, dict(terms)))

    def after_epoch(self, trainer, epoch, figures):
        trainer.average.sample(2)
        self.epochs.append((epoch, dict(figures)))

    def at_end(self, trainer, model):
        self.ends.append((model, trainer.folder is None or (trainer.folder / "model").is_dir()))


class StopsAfter:
    """Ends a run in a batch or at the end of an epoch."""

    def __init__(self, moment, number):
        setattr(self, moment, lambda trainer, at, values: trainer.stop() if at == number else None)


@pytest.fixture
def trainer(build, data):
    def make(*callbacks, folder=None, **options):
        return Trainer(build(), CONFIG, data(), data(), folder, quiet=True, callbacks=callbacks, **options)

    return make


def test_they_are_told_of_every_batch_every_epoch_and_the_end(tmp_path, trainer):
    told = Told()
    model = trainer(told, folder=tmp_path).fit()
    assert [batch for batch, _ in told.batches] == [*range(1, 16)]
    assert {"loss", "reconstruction", "kl_w", "kl_z", "negative_entropy", "adversary"} <= told.batches[0][1].keys()
    assert all(value.shape == () and not value.requires_grad for _, terms in told.batches for value in terms.values())
    assert [epoch for epoch, _ in told.epochs] == [1, 2, 3]
    assert all(figures["valid_mse"] > 0 and figures["seconds"] >= 0 for _, figures in told.epochs)
    assert told.ends == [(model, True)]


def test_they_leave_the_bits_of_the_run_alone(trainer):
    plain, told = trainer(), trainer(Told(), Told())
    a, b = plain.fit().state_dict(), told.fit().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("moment", "number", "batch"), [("after_batch", 1, 1), ("after_batch", 7, 7), ("after_epoch", 2, 10)]
)
def test_a_run_that_is_stopped_has_a_checkpoint_and_a_model_and_goes_on_to_the_same_bits(
    tmp_path, trainer, moment, number, batch
):
    told = Told()
    stopped = trainer(StopsAfter(moment, number), told, folder=tmp_path)
    stopped.fit()
    assert len(told.batches) == batch
    assert len(told.ends) == 1
    assert load_latest(tmp_path / "checkpoints")[1].batches == batch
    assert (tmp_path / "model").is_dir()
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["batch"] for entry in entries if entry["kind"] == "batch"][-1] == batch
    a, b = trainer(folder=tmp_path).fit().state_dict(), trainer().fit().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_stopped_run_can_be_followed_by_another_fit(trainer):
    run = trainer(StopsAfter("after_batch", 2))
    run.fit()
    told = Told()
    run.callbacks = Callbacks([told])
    run.fit()
    assert len(told.batches) == 15


@pytest.mark.parametrize("callback", [print, object(), None])
def test_an_object_that_no_run_would_call_is_refused(trainer, callback):
    with pytest.raises(
        ConfigError, match="^callbacks: expected objects with a method after_batch, after_epoch or at_end, got "
    ):
        trainer(callback)


def test_an_error_in_a_callback_is_the_caller_s_and_the_checkpoints_stay(tmp_path, trainer):
    def fails(trainer, batch, terms):
        if batch == 9:
            raise ZeroDivisionError

    callback = Told()
    callback.after_batch = fails
    with pytest.raises(ZeroDivisionError):
        trainer(callback, folder=tmp_path, checkpoint_minutes=0.0).fit()
    assert callback.ends == []
    assert load_latest(tmp_path / "checkpoints")[1].batches == 8
