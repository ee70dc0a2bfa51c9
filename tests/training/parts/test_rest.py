"""The last part of a training, in which the encoder rests and a flow takes out of z what it says of the attributes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from csvae_hub.training.objective import Objective, ObjectiveConfig
from csvae_hub.training.options import TrainerConfig, learning_rate_factor

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import ConfigError
from csvae_hub.models import CSVAE, create_model
from csvae_hub.training.trainer import Trainer

NAMES = ("Above", "Left")
CONFIG = TrainerConfig(epochs=3, rest_epochs=1, batch_size=8, num_threads=1, log_every_steps=1, warmup_steps=2)
KINDS = ("csvae", "cond-vae-info", "cond-vae", "vae")


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setattr("csvae_hub.flows.STEPS", 20)


def pictures():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (40, 2)).astype(np.float32)
    images = (random.random((40, 3, 16, 16)) * 100 + 100 * labels[:, :1, None, None]).astype(np.uint8)
    labels[3, 1] = np.nan
    return AttributeData(images, labels, NAMES)


def build(kind="csvae", **options):
    torch.manual_seed(0)
    sizes = {"shape": (3, 16, 16), "z_dim": 4, "backbone": BackboneConfig(width=8, features=16)}
    flow = 8 if kind in ("csvae", "cond-vae-info") else 0
    model = create_model(ModelConfig(NAMES, kind, **sizes, adversary_width=8, flow=flow))
    invariance = 0.0 if kind == "vae" else 1.0
    return Objective(
        model, ObjectiveConfig(**{"adversary_steps": 2, "adversary_memory": 2, "invariance": invariance, **options})
    )


def trainer(kind="csvae", config=CONFIG, folder=None):
    return Trainer(build(kind), config, pictures(), None, folder, quiet=True)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, after):
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("kind", KINDS)
def test_while_the_encoder_rests_only_what_reads_it_learns(kind):
    run = trainer(kind)
    run.fit()
    assert run.objective.model.resting
    before = state(run.objective.model)
    x, y = pictures().batch(torch.arange(8))
    features = run.objective.model.eval().backbone.encode(x)
    run.objective.train()
    for _ in range(3):
        run._generative_step(x, y)
    moved = changed(before, run.objective.model.state_dict())
    assert not {name for name in moved if name.startswith(("q_z", "q_y", "adversary_net"))}
    assert {name for name in moved if name.startswith("backbone")}
    assert ("q_w.out" in moved) == (kind == "csvae")
    assert torch.equal(run.objective.model.eval().backbone.encode(x), features)


def test_the_flow_is_fitted_where_the_rest_begins_and_the_averaged_weights_go_on(monkeypatch):
    seen = []
    rest = CSVAE.rest

    def spied(model, batches=None):
        before = state(model)
        rest(model, batches)
        seen.append((before, changed(before, model.state_dict())))

    monkeypatch.setattr(CSVAE, "rest", spied)
    run = trainer()
    averages = []
    begin = run._rest
    monkeypatch.setattr(run, "_rest", lambda: (averages.append(state(run.average)), begin()))
    model = run.fit()
    assert len(seen) == 1
    assert changed(averages[0], seen[0][0]) == set()
    assert seen[0][1]
    assert all(name.startswith("q_z.flow.") for name in seen[0][1])
    x, y = pictures().batch(torch.arange(8))
    told = model.posterior_z(x, y).mean
    assert not torch.equal(told, model.posterior_z(x, 1 - y.nan_to_num()).mean)


@pytest.mark.parametrize("stop", [7, 10, 12])
def test_a_run_that_was_stopped_before_at_or_in_the_rest_goes_on_to_the_same_bits(tmp_path, stop, monkeypatch):
    whole = trainer(folder=tmp_path / "whole").fit()
    run = trainer(folder=tmp_path / "cut")
    step, done = run._generative_step, []

    def breaks(images, attributes):
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append(1)
        return step(images, attributes)

    monkeypatch.setattr(run, "_generative_step", breaks)
    run.config = replace(run.config, checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    resumed = trainer(folder=tmp_path / "cut").fit()
    expected = whole.state_dict()
    assert not changed(expected, resumed.state_dict())


def test_the_rest_has_the_terms_of_the_bound_alone_and_no_adversary():
    objective = build()
    x, y = pictures().batch(torch.arange(8))
    assert {"negative_entropy", "invariance"} < objective.generative_step(x, y)[1].keys()
    assert objective.adversary_steps == 2
    objective.model.rest()
    objective.train()
    assert objective.generative_step(x, y)[1].keys() == {"reconstruction", "kl_z", "kl_w", "classifier"}
    assert objective.adversary_steps == 0


def test_edits_are_shown_to_the_models_own_classifier_while_the_encoder_rests():
    objective = build(rest_consistency=3.0, others=2.0)
    x, y = pictures().batch(torch.arange(8))
    objective.train()
    assert "rest_consistency" not in objective.generative_step(x, y)[1]
    objective.model.rest()
    before = state(objective.model)
    loss, terms = objective.generative_step(x, y)
    weighted = terms["reconstruction"] + terms["kl_z"] + terms["kl_w"] + terms["classifier"]
    expected = weighted + 3 * (terms["rest_consistency"] + 2 * terms["rest_others"])
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    trained = {name for name, p in objective.model.named_parameters() if p.grad is not None}
    assert not {name for name in trained if name.startswith(("backbone.down", "backbone.features", "q_y", "q_z"))}
    assert "backbone.pixels.weight" in trained
    moved = changed(before, objective.model.state_dict())
    assert not {name for name in moved if name.startswith(("backbone.down", "backbone.features", "q_y", "q_z"))}


def test_the_decoder_learns_edits_that_the_resting_classifier_reads():
    objective = build(rest_consistency=100.0, classifier=100.0)
    x, y = pictures().batch(torch.arange(40))
    y[:, 1] = y[:, 0]

    def train(steps):
        objective.train()
        optimizer = torch.optim.Adam(objective.generative_parameters(), 1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            objective.generative_step(x, y)[0].backward()
            optimizer.step()

    def error():
        torch.manual_seed(0)
        with torch.no_grad():
            return objective._edited(objective._own, x, objective.model(x, y))[0].mean()

    train(40)
    objective.model.rest()
    before = error()
    train(60)
    assert error() < 0.5 * before


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("vae", (3, 16, 16), "objective.rest_consistency: expected 0 for vae, which has no edits to train, got 1.0"),
        ("csvae", (5,), "objective.rest_consistency: expected 0 for a model of vectors, got 1.0"),
    ],
)
def test_rest_consistency_needs_pictures_and_edits(kind, shape, message):
    name = "conv" if len(shape) == 3 else "mlp"
    model = create_model(ModelConfig(NAMES, kind, shape=shape, z_dim=4, backbone=BackboneConfig(name, 8, features=16)))
    with pytest.raises(ConfigError, match=message):
        Objective(model, ObjectiveConfig(rest_consistency=1.0))


def test_the_schedule_begins_anew():
    config = replace(CONFIG, epochs=10, rest_epochs=4, warmup_steps=0)
    factors = [learning_rate_factor("cosine", config, batch, 5) for batch in range(50)]
    assert factors[0] == factors[30] == 1
    assert factors[15] == pytest.approx(0.5)
    assert factors[40] == pytest.approx(0.5)
    assert max(factors[29], factors[49]) < 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flow": 8, "erase": True}, "flow: expected 0 where erase is on: one of the two, got 8"),
        ({"flow": 8, "z_dim": 1}, "flow: expected 0 where z_dim is 1, got 8"),
        ({"flow": -1}, "flow: expected 0 to 4096, got -1"),
    ],
)
def test_a_flow_that_can_not_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        create_model(ModelConfig(NAMES, **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_models_whose_z_need_not_be_silent_have_no_flow(kind):
    model = create_model(ModelConfig(NAMES, kind, z_dim=4, flow=8))
    assert (model.q_z.flow is not None) == (kind in ("csvae", "cond-vae-info"))


@pytest.mark.parametrize("epochs", [-1, 3])
def test_not_all_epochs_can_be_rest(epochs):
    with pytest.raises(ConfigError, match=f"rest_epochs: expected 0, or fewer than epochs, got {epochs}"):
        replace(CONFIG, rest_epochs=epochs)


def test_an_eraser_rests_with_the_encoder():
    torch.manual_seed(0)
    model = create_model(ModelConfig(NAMES, shape=(3, 16, 16), z_dim=4, erase=True))
    model.rest()
    before = state(model.train())
    model(*pictures().batch(torch.tensor([0, 1, 2, 4])))
    assert not {name for name in changed(before, model.state_dict()) if name.startswith("q_z")}


def test_the_class_means_at_the_end_are_of_all_pictures_or_of_the_clear_ones():
    every, clear = (trainer(config=replace(CONFIG, clear_means=clear)).fit() for clear in (False, True))
    assert torch.equal(every.q_w.out, clear.q_w.out)
    assert not torch.equal(every.class_means, clear.class_means)
