"""The training loop, on a tiny stand-in and on real models."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import ConfigError, MissingExtraError, TrainingError
from csvae_hub.hub import save_weights
from csvae_hub.models.latents import Latents
from csvae_hub.training.config import TrainerConfig, learning_rate_factor
from csvae_hub.training.steps import Minimisation, asked
from csvae_hub.training.trainer import Trainer

NAMES = ("Above", "Left")
CONFIG = TrainerConfig(epochs=3, batch_size=8)


@pytest.fixture(autouse=True)
def _log_often(monkeypatch):
    monkeypatch.setattr("csvae_hub.training.trainer.LOG_EVERY", 2)


class TinyModel(nn.Module):
    """Linear encoder and decoder with batch norm, so that there are buffers to average and to restore."""

    def __init__(self, shape, adversary=True):
        super().__init__()
        self.shape, self.attributes, self.config = shape, NAMES, SimpleNamespace(groups=())
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

    def finalize(self, batches): ...

    def save_pretrained(self, folder, *, extra):
        save_weights(folder, {"model": "tiny"}, self.state_dict(), extra)


class TinyObjective(nn.Module):
    """Draws noise, keeps a queue that grows, and takes two steps of its adversary."""

    betas, rest_epochs, begin_rest, seconds_at_rest, at_end = (0.9, 0.99), 0, None, (), ()

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.register_buffer("queue", torch.zeros(0, 6))
        self.calls = []
        self.break_at = None
        self.minimisations = []
        if model.adversary_net is not None:
            parameters = list(model.adversary_net.parameters())
            self.minimisations.append(Minimisation("adversary", parameters, self.losses, weight=3.0))

    def generative_parameters(self):
        return [*self.model.encoder.parameters(), *self.model.decoder.parameters()]

    def generative_step(self, x, y):
        self.train()
        self.calls.append("generative")
        z = self.model.encoder(x)
        noisy = z + 0.1 * torch.randn_like(z)
        error = (self.model.decoder(torch.cat([noisy, y.nan_to_num()], 1)) - x).square().flatten(1).sum(1)
        net = self.model.adversary_net
        loss = error.mean() if net is None else error.mean() + asked(net, z).square().mean()
        if len(self.calls) == self.break_at:
            loss = loss * torch.nan
        found = {"out": SimpleNamespace(q_w=None), "q_y": None, "z": z.detach(), "y": y.nan_to_num()}
        return loss, SimpleNamespace(terms={"reconstruction": error}, **found)

    def base_rate(self): ...

    def losses(self, step):
        self.queue = torch.cat([step.z.float(), self.queue])[:20]
        for _ in range(2):
            self.calls.append("adversary")
            pick = self.queue[torch.randint(len(self.queue), (8,))]
            logits = self.model.adversary_net(torch.cat([step.z, pick.to(step.z)]))[: len(step.z)]
            yield nn.functional.binary_cross_entropy_with_logits(logits.float(), step.y)


def pictures():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (68, 2)).astype(np.float32)
    images = (random.random((68, 3, 16, 16)) * 100 + 100 * labels[:, :1, None, None]).astype(np.uint8)
    labels[3, 1] = np.nan
    return AttributeData(images, labels, NAMES)


def vectors():
    data = pictures()
    return AttributeData(data.images[:, :, 0, 0].astype(np.float32) / 255, data.labels, NAMES)


def tiny(data=None, adversary=True):
    torch.manual_seed(0)
    return TinyObjective(TinyModel((pictures() if data is None else data).shape, adversary))


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


# -- runs that go on ------------------------------------------------------------------------------------------------


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
    fit(tmp_path, record={"objective": {"kl_z": 1.0}}, checkpoint_minutes=3.0)


# -- the minimisations --------------------------------------------------------------------------------------------


def test_each_batch_is_one_generative_step_and_then_the_adversarys():
    trainer, _ = fit()
    assert trainer.objective.calls == ["generative", "adversary", "adversary"] * 24
    trainer, _ = fit(objective=tiny(adversary=False))
    assert trainer.objective.calls == ["generative"] * 24


def test_either_step_leaves_the_others_gradients_none_and_weights_untouched(build, data, monkeypatch):
    objective = build(parts="every", erase=True)
    trainer = Trainer(objective, CONFIG, data(), quiet=True)
    sides = {"generative": objective.generative_parameters()}
    sides |= {game.name: game.parameters for game in objective.minimisations}
    turns = []

    def values():
        return {side: [p.detach().clone() for p in parameters] for side, parameters in sides.items()}

    def backward(loss):
        loss.backward()
        reached = {side for side, parameters in sides.items() if any(p.grad is not None for p in parameters)}
        turns.append((reached, values()))

    monkeypatch.setattr(trainer.accelerator, "backward", backward)
    trainer.train_step(*trainer._examples(torch.arange(8)), 0)
    assert [reached for reached, _ in turns] == [{"generative"}, {"adversary"}, {"adversary"}, {"critic"}]
    for (reached, before), (_, after) in zip(turns, [*turns[1:], (None, values())], strict=True):
        changed = {s for s in sides if not all(map(torch.equal, before[s], after[s]))}
        assert changed == reached
    assert all(p.grad is None for parameters in sides.values() for p in parameters)


def test_the_adversary_s_loss_is_weighted_and_its_logged_term_is_not(monkeypatch):
    trainer, seen = Trainer(tiny(), CONFIG, pictures(), quiet=True), []
    monkeypatch.setattr(trainer.accelerator, "backward", lambda loss: (seen.append(loss.item()), loss.backward()))
    means = trainer.train_step(*trainer._examples(torch.arange(8)), 0)
    assert seen[2] == pytest.approx(3 * means["adversary"].item())
    assert seen[0] == means["loss"].item()


@pytest.mark.parametrize("kind", ["csvae", "vae", "cond-vae", "cond-vae-info"])
@pytest.mark.parametrize("grid", [{}, {"z_grid": 4, "z_dim": 32}])
def test_every_parameter_of_a_real_model_is_trained(build, data, kind, grid):
    objective = build(kind, parts="every", without=["eraser"], learn_priors=True, **grid)
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trainable.items()}
    fit(objective=objective, data=data(), config=replace(CONFIG, epochs=1))
    assert [name for name, p in trainable.items() if torch.equal(p, before[name])] == []


# -- schedule and average -------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine", "multistep"])
def test_the_model_follows_the_schedule_and_its_adversary_does_not(schedule):
    rates = {"learning_rate": 0.01, "adversary_learning_rate": 0.02, "schedule": schedule}
    trainer, _ = fit(config=replace(CONFIG, **rates))
    factor = learning_rate_factor(schedule, 23, 24, 8)
    assert trainer.optimizers["generative"].param_groups[0]["lr"] == 0.01 * factor
    assert trainer.optimizers["adversary"].param_groups[0]["lr"] == 0.02


def test_each_optimiser_has_the_betas_of_its_minimisation(build, data):
    trainer = Trainer(build(parts={"critic": {}}), CONFIG, data(), quiet=True)
    found = {name: o.param_groups[0] for name, o in trainer.optimizers.items()}
    assert {name: group["betas"] for name, group in found.items()} == {
        "generative": (0.5, 0.99),
        "adversary": (0.9, 0.999),
        "critic": (0.0, 0.99),
    }


def test_without_decay_the_average_is_the_model():
    trainer, result = fit(config=replace(CONFIG, ema_decay=0.0))
    assert_equal_to_the_bit(result.state_dict(), trainer.objective.model.state_dict())


# -- what a run is and leaves -------------------------------------------------------------------------------------


def test_the_seed_decides_and_the_callers_random_state_stays():
    torch.manual_seed(5)
    objectives = [tiny() for _ in range(3)]
    state = torch.get_rng_state()
    _, a = fit(objective=objectives[0])
    assert torch.equal(torch.get_rng_state(), state)
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

    fit(tmp_path, record={"data": {"source": "here"}}, checkpoint_minutes=0.0)
    last = [e for e in entries(tmp_path) if e["kind"] == "batch"][-1]
    assert {"loss", "reconstruction", "adversary", "learning_rate", "images_per_second"} <= last.keys()
    assert list(tmp_path.glob("logs/events*"))
    assert all(e["valid_mse"] > 0 for e in entries(tmp_path) if e["kind"] == "epoch")
    assert sorted(p.name for p in (tmp_path / "grids").iterdir()) == [f"epoch-00{i}.png" for i in (1, 2, 3)]
    with Image.open(tmp_path / "grids" / "epoch-003.png") as grid:
        assert grid.width >= 4 * 16
        assert grid.height >= 8 * 16
    checkpoints = sorted(p.name for p in tmp_path.glob("checkpoints/*"))
    assert checkpoints == ["batch-000000023", "batch-000000024"]
    training = json.loads((tmp_path / "model" / "training.json").read_text())
    assert training["data"] == {"source": "here"}
    assert training["trainer"]["epochs"] == 3
    assert training["data_fingerprint"] == pictures().fingerprint
    assert {"python", "torch", "csvae-hub"} <= training["versions"].keys()


def test_grids_and_checkpoints_are_no_more_often_than_asked_for(tmp_path):
    fit(tmp_path)
    assert sorted(p.name for p in (tmp_path / "grids").iterdir()) == ["epoch-001.png", "epoch-003.png"]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["batch-000000024"]


def test_the_result_is_in_eval_mode_and_saved_to_the_bit(tmp_path, build, data):
    _, model = fit(tmp_path, objective=build(parts="every", erase=True), data=data())
    loaded = type(model).from_pretrained(tmp_path / "model", device=model.device)
    assert not model.training
    images = data().batch([0, 1, 2])[0]
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


def test_some_pictures_are_mirrored_and_nothing_else_is_done_to_them():
    data = pictures()
    images = Trainer(tiny(), CONFIG, data, quiet=True)._examples(torch.arange(32))[0]
    pairs = list(zip(images, data.batch(range(32))[0], strict=True))
    assert 0 < sum(torch.equal(a, b.flip(-1)) for a, b in pairs) < 32
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in pairs)


@pytest.mark.parametrize("model", [{"erase": True, "parts": "every"}, {"z_grid": 4, "z_dim": 32}])
def test_bfloat16_gives_finite_float32_weights(build, data, model):
    config = replace(CONFIG, epochs=1, precision="bfloat16")
    model = fit(config=config, objective=build(**model), data=data())[1]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint_before(tmp_path):
    objective = tiny()
    objective.break_at = 3 * 12 + 1
    with pytest.raises(
        TrainingError,
        match=r"^loss = nan in batch 13, made of (row \d+, ){4}row \d+ and 3 more: expected finite numbers;",
    ):
        fit(tmp_path, objective=objective, checkpoint_minutes=0.0)
    assert max(p.name for p in (tmp_path / "checkpoints").iterdir()) == "batch-000000012"
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("with_folder", [True, False])
def test_weights_that_are_not_finite_are_no_checkpoint_and_no_result(tmp_path, monkeypatch, with_folder):
    folder = tmp_path if with_folder else None
    run = Trainer(tiny(), CONFIG, pictures(), folder=folder, quiet=True, checkpoint_minutes=0.0)
    step = run.train_step

    def breaks(x, y, batch):
        terms = step(x, y, batch)
        if batch == run.last_batch - 1:
            next(run.objective.model.parameters()).data[0, 0] = torch.inf
        return terms

    monkeypatch.setattr(run, "train_step", breaks)
    with pytest.raises(TrainingError, match=r"^the weights model\.encoder.* after batch 24: expected finite numbers; "):
        run.fit()
    kept = sorted(path.name for path in tmp_path.glob("*/*") if path.parent.name in ("checkpoints", "model"))
    assert kept == (["batch-000000022", "batch-000000023"] if with_folder else [])


@pytest.mark.parametrize("examples", [0, 1])
def test_too_little_data_is_an_error(examples):
    with pytest.raises(ConfigError, match=f"train_data: expected two examples or more, for batch norm, got {examples}"):
        Trainer(tiny(), CONFIG, pictures().subset(range(examples)))


@pytest.mark.parametrize(("examples", "size"), [(2, 8), (3, 2), (9, 4), (257, 128)])
def test_no_batch_of_one_is_left_over(build, data, examples, size):
    config = replace(CONFIG, epochs=1, batch_size=size)
    fit(objective=build(parts="every", erase=True), data=data(257).subset(range(examples)), config=config)


def test_missing_packages_are_named_with_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"tensorboard is missing: pip install 'csvae-hub\[train\]'"):
        fit(tmp_path)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"accelerate is missing: pip install 'csvae-hub\[train\]'"):
        fit()
