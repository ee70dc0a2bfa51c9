"""The training loop, on a tiny stand-in and on the real model; run as a script, this file is a run that gets killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from csvae_hub.training.objective import Objective, ObjectiveConfig
from csvae_hub.training.options import TrainerConfig, learning_rate_factor
from torch import nn

from csvae_hub.classifier import AttributeClassifier
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import ConfigError, MissingExtraError
from csvae_hub.hub import save_weights
from csvae_hub.models import create_model
from csvae_hub.models.latents import Latents
from csvae_hub.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("Above", "Left")
CONFIG = TrainerConfig(epochs=3, batch_size=8, num_threads=1, log_every_steps=2, warmup_steps=3, gradient_clip=100.0)


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")


class TinyModel(nn.Module):
    """Linear encoder and decoder with batch norm, so that there are buffers to average and to restore."""

    def __init__(self, shape, adversary=True):
        super().__init__()
        self.shape, self.attributes = shape, NAMES
        size = int(np.prod(shape))
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, 6), nn.BatchNorm1d(6))
        self.decoder = nn.Sequential(nn.Linear(6 + 2, size), nn.Sigmoid(), nn.Unflatten(1, shape))
        self.adversary_net = nn.Linear(6, 2) if adversary else None

    @property
    def device(self):
        return self.decoder[0].weight.device

    def encode(self, x):
        y = (x.flatten(1)[:, :2] > 0.5).float()
        return Latents(self.encoder(x), y[:, :, None], y, NAMES)

    def decode(self, latents):
        return self.decoder(torch.cat([latents.z, latents.w.flatten(1)], 1))

    def edit(self, latents, values):
        for name, value in values.items():
            latents = latents.replace(name, torch.tensor([float(value)]))
        return latents

    def settle(self, batches, clear): ...

    def save_pretrained(self, folder, *, extra):
        save_weights(folder, {"model": "tiny"}, self.state_dict(), extra)


class TinyObjective(nn.Module):
    """Draws noise, keeps a queue that grows, and detaches nothing: what keeps the two sides apart is the trainer."""

    adversary_steps = 2

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.register_buffer("queue", torch.zeros(0, 6))
        self.calls = []
        self.break_at = None

    def adversary_parameters(self):
        return [] if self.model.adversary_net is None else list(self.model.adversary_net.parameters())

    def generative_parameters(self):
        return [*self.model.encoder.parameters(), *self.model.decoder.parameters()]

    def generative_step(self, images, attributes):
        self.calls.append("generative")
        y = attributes.nan_to_num()
        z = self.model.encoder(images)
        noisy = z + 0.1 * torch.randn_like(z)
        error = (self.model.decoder(torch.cat([noisy, y], 1)) - images).square().flatten(1).sum(1).mean()
        self.images, self.y = images, y
        loss = error if self.model.adversary_net is None else error + self.model.adversary_net(z).square().mean()
        if len(self.calls) == self.break_at:
            loss = loss * torch.nan
        return loss, {"reconstruction": error.detach()}

    def adversary_step(self):
        self.calls.append("adversary")
        z = self.model.encoder(self.images)
        self.queue = torch.cat([z.detach().float(), self.queue])[:20]
        pick = self.queue[torch.randint(len(self.queue), (8,))]
        logits = self.model.adversary_net(torch.cat([z, pick.to(z)]))[: len(z)]
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), self.y)
        return loss, {"adversary": loss.detach()}


class SlowData(AttributeData):
    """Gives its batches slowly, so that there is time to be killed."""

    def batch(self, indices):
        time.sleep(0.05)
        return super().batch(indices)


def pictures(cls=AttributeData):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (68, 2)).astype(np.float32)
    images = (random.random((68, 3, 16, 16)) * 100 + 100 * labels[:, :1, None, None]).astype(np.uint8)
    labels[3, 1] = np.nan
    return cls(images, labels, NAMES)


def vectors():
    data = pictures()
    return AttributeData(data.images[:, :, 0, 0].astype(np.float32) / 255, data.labels, NAMES)


def tiny(data=None, adversary=True):
    torch.manual_seed(0)
    return TinyObjective(TinyModel((pictures() if data is None else data).shape, adversary))


def real():
    """The model and the objective with every option, as the packaged weights were made."""
    torch.manual_seed(0)
    sizes = {"shape": (3, 16, 16), "z_dim": 4, "backbone": BackboneConfig(width=8, features=16, film=True)}
    model = create_model(ModelConfig(NAMES, **sizes, adversary_width=8, residual=True, erase=True))
    options = {"adversary_steps": 2, "adversary_memory": 3, "adversary_mean": True, "balanced": True}
    guide = AttributeClassifier(NAMES, width=4)
    return Objective(model, ObjectiveConfig(**options, consistency=1.0), guide, torch.tensor([0.3, 0.6]))


OBJECTIVES = {"tiny": tiny, "real": real}


def fit(folder=None, config=CONFIG, objective=None, data=None, resume=True, **options):
    data = pictures() if data is None else data
    trainer = Trainer(objective or tiny(data), config, data, data, folder, quiet=True, **options)
    return trainer, trainer.fit(resume)


def assert_equal_to_the_bit(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.shape == b[name].shape
        assert value.numpy().tobytes() == b[name].numpy().tobytes(), (
            name
        )  # NaN, a label that is missing, counts as equal


def entries(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# -- the law of the trainer: a killed run and one that was left alone end in the same weights ---------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_killed_in_mid_epoch_and_resumed_gives_the_same_weights_to_the_bit(tmp_path, name):
    whole, expected = fit(tmp_path / "whole", objective=OBJECTIVES[name]())
    killed = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, __file__, name, str(killed)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not any(9 < int(path.name[6:]) < 16 for path in killed.glob("checkpoints/batch-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.07)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "model").exists()

    resumed, model = fit(killed, objective=OBJECTIVES[name]())
    assert_equal_to_the_bit(model.state_dict(), expected.state_dict())
    assert_equal_to_the_bit(resumed.objective.state_dict(), whole.objective.state_dict())
    assert [e["batch"] for e in entries(killed) if e["kind"] == "epoch"] == [8, 16, 24]
    batches = [e["batch"] for e in entries(killed) if e["kind"] == "batch"]
    assert batches == sorted(set(batches))


def test_resuming_a_finished_run_trains_no_further(tmp_path):
    _, expected = fit(tmp_path)
    trainer, model = fit(tmp_path)
    assert trainer.objective.calls == []
    assert_equal_to_the_bit(model.state_dict(), expected.state_dict())


def test_without_resume_the_run_starts_anew(tmp_path):
    _, expected = fit(tmp_path)
    trainer, model = fit(tmp_path, resume=False)
    assert len(trainer.objective.calls) == 24 * 3
    assert_equal_to_the_bit(model.state_dict(), expected.state_dict())
    assert [e["batch"] for e in entries(tmp_path) if e["kind"] == "epoch"] == [8, 16, 24]


def test_resume_refuses_another_configuration_data_or_recipe_and_names_the_field(tmp_path):
    fit(tmp_path, record={"objective": {"kl_z": 1.0}})
    with pytest.raises(
        ConfigError, match=r"trainer\.learning_rate: .* made with 0\.001, this run has 0\.5: keep the value"
    ):
        fit(tmp_path, replace(CONFIG, learning_rate=0.5), record={"objective": {"kl_z": 1.0}})
    with pytest.raises(ConfigError, match=r"objective\.kl_z: .* made with 1\.0, this run has 2\.0"):
        fit(tmp_path, record={"objective": {"kl_z": 2.0}})
    with pytest.raises(ConfigError, match="data_fingerprint"):
        fit(tmp_path, data=pictures().subset(range(64)), record={"objective": {"kl_z": 1.0}})
    fit(tmp_path, replace(CONFIG, keep_checkpoints=5, log_every_steps=7), record={"objective": {"kl_z": 1.0}})


# -- the two optimisers -------------------------------------------------------------------------------------------


def test_each_batch_is_one_generative_step_and_then_the_adversarys():
    trainer, _ = fit()
    assert trainer.objective.calls == ["generative", "adversary", "adversary"] * 24
    trainer, _ = fit(objective=tiny(adversary=False))
    assert trainer.objective.calls == ["generative"] * 24


@pytest.mark.parametrize("make", [tiny, real])
def test_either_step_leaves_the_others_gradients_none_and_weights_untouched(make, monkeypatch):
    data = pictures()
    trainer = Trainer(make(), CONFIG, data, quiet=True)
    sides = {"generative": trainer.generative, "adversary": trainer.adversary}
    seen = []

    def backward(loss):
        loss.backward()
        seen.append({side: [p.grad is not None for p in parameters] for side, parameters in sides.items()})

    monkeypatch.setattr(trainer.accelerator, "backward", backward)
    images, attributes = trainer._examples(torch.arange(8))
    for own, step in (
        ("generative", lambda: trainer._generative_step(images, attributes)),
        ("adversary", trainer._adversary_step),
    ):
        before = {side: [p.detach().clone() for p in parameters] for side, parameters in sides.items()}
        step()
        other = "adversary" if own == "generative" else "generative"
        assert any(seen[-1][own])
        assert not any(seen[-1][other])
        assert all(torch.equal(p, q) for p, q in zip(sides[other], before[other], strict=True))
        assert any(not torch.equal(p, q) for p, q in zip(sides[own], before[own], strict=True))
        assert all(p.requires_grad and p.grad is None for parameters in sides.values() for p in parameters)


def test_every_parameter_of_the_real_model_is_trained():
    objective = real()
    trainable = {name: p for name, p in objective.model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trainable.items()}
    fit(objective=objective)
    assert [name for name, p in trainable.items() if torch.equal(p, before[name])] == []


# -- schedule and average -------------------------------------------------------------------------------------


@pytest.mark.parametrize("adversary_schedule", ["constant", "cosine"])
def test_each_optimiser_follows_its_schedule(adversary_schedule):
    rates = {"learning_rate": 0.01, "adversary_learning_rate": 0.02, "adversary_schedule": adversary_schedule}
    trainer, _ = fit(config=replace(CONFIG, **rates))
    factors = [learning_rate_factor(schedule, CONFIG, 23, 8) for schedule in ("cosine", adversary_schedule)]
    assert trainer.optimizer.param_groups[0]["lr"] == 0.01 * factors[0]
    assert trainer.adversary_optimizer.param_groups[0]["lr"] == 0.02 * factors[1]


def test_without_decay_the_average_is_the_model():
    trainer, result = fit(config=replace(CONFIG, ema_decay=0.0))
    assert_equal_to_the_bit(result.state_dict(), trainer.objective.model.state_dict())


# -- what a run is and leaves -------------------------------------------------------------------------------------


def test_the_seed_decides_and_the_callers_random_state_and_threads_stay():
    torch.manual_seed(5)
    objectives = [tiny() for _ in range(3)]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    _, a = fit(objective=objectives[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    _, b = fit(objective=objectives[1])
    _, c = fit(objective=objectives[2], config=replace(CONFIG, seed=1))
    assert_equal_to_the_bit(a.state_dict(), b.state_dict())
    assert not torch.equal(a.decoder[0].weight, c.decoder[0].weight)


def test_training_lowers_the_loss(tmp_path):
    fit(tmp_path, replace(CONFIG, epochs=10, learning_rate=0.01))
    losses = [e["reconstruction"] for e in entries(tmp_path) if e["kind"] == "batch"]
    assert losses[-1] < 0.8 * losses[0]


def test_the_folder_gets_log_grids_checkpoint_and_model(tmp_path):
    from PIL import Image

    fit(tmp_path, record={"data": {"source": "here"}})
    last = [e for e in entries(tmp_path) if e["kind"] == "batch"][-1]
    assert {"loss", "reconstruction", "adversary", "learning_rate", "images_per_second", "gradient_norm"} <= last.keys()
    assert list(tmp_path.glob("logs/events*"))
    assert all(e["valid_mse"] > 0 for e in entries(tmp_path) if e["kind"] == "epoch")
    assert sorted(p.name for p in (tmp_path / "grids").iterdir()) == [f"epoch-00{i}.png" for i in (1, 2, 3)]
    with Image.open(tmp_path / "grids" / "epoch-003.png") as grid:
        assert grid.width >= 4 * 16
        assert grid.height >= 8 * 16
    assert [p.name for p in tmp_path.glob("checkpoints/*")] == ["batch-000000024"]
    training = json.loads((tmp_path / "model" / "training.json").read_text())
    assert training["data"] == {"source": "here"}
    assert training["trainer"]["epochs"] == 3
    assert training["data_fingerprint"] == pictures().fingerprint
    assert {"python", "torch", "csvae-hub"} <= training["versions"].keys()


def test_the_result_is_in_eval_mode_and_saved_to_the_bit(tmp_path):
    _, model = fit(tmp_path, objective=real())
    loaded = type(model).from_pretrained(tmp_path / "model", device=model.device)
    assert not model.training
    images = pictures().batch([0, 1, 2])[0]
    assert torch.equal(model.reconstruct(images), loaded.reconstruct(images))


def test_vectors_are_trained_without_grids(tmp_path):
    fit(tmp_path, data=vectors())
    assert not (tmp_path / "grids").exists()
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit()
    assert list(tmp_path.iterdir()) == []


def test_a_batch_larger_than_the_data_is_all_the_data():
    assert len(fit(config=replace(CONFIG, batch_size=500))[0].objective.calls) == 3 * 3


def test_flip_mirrors_some_pictures_and_nothing_else():
    data = pictures()
    images = Trainer(tiny(), CONFIG, data, quiet=True)._examples(torch.arange(32))[0]
    pairs = list(zip(images, data.batch(range(32))[0], strict=True))
    assert 0 < sum(torch.equal(a, b.flip(-1)) for a, b in pairs) < 32
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in pairs)


@pytest.mark.parametrize("make", [tiny, real])
def test_bfloat16_gives_finite_float32_weights(make):
    _, model = fit(config=replace(CONFIG, epochs=1, precision="bfloat16"), objective=make())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint_before(tmp_path):
    objective = tiny()
    objective.break_at = 3 * 12 + 1
    with pytest.raises(
        FloatingPointError, match=r"loss = nan, .* by batch 13: expected finite losses; lower the learning rate"
    ):
        fit(tmp_path, replace(CONFIG, checkpoint_minutes=0.0), objective)
    assert max(p.name for p in (tmp_path / "checkpoints").iterdir()) == "batch-000000012"
    assert not (tmp_path / "model").exists()


# -- errors -------------------------------------------------------------------------------------------------------


def test_no_data_is_an_error():
    with pytest.raises(ConfigError, match="train_data: expected at least one example, got 0"):
        Trainer(tiny(), CONFIG, pictures().subset([]))


def test_missing_packages_are_named_with_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"tensorboard is missing: pip install 'csvae-hub\[train\]'"):
        fit(tmp_path)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"accelerate is missing: pip install 'csvae-hub\[train\]'"):
        fit()


if __name__ == "__main__":
    often = replace(CONFIG, checkpoint_minutes=0.12 / 60)
    fit(Path(sys.argv[2]), often, OBJECTIVES[sys.argv[1]](), pictures(SlowData))
