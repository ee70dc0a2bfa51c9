"""Mixed precision, a batch in parts, and gradients that are clipped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from csvae_hub.errors import ConfigError
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.processes import Processes, join
from csvae_hub.training.trainer import Trainer

CONFIG = TrainerConfig(epochs=2, batch_size=8)


def tensors(run):
    return {**run.objective.state_dict(), **{f"average.{k}": v for k, v in run.average.state_dict().items()}}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "bernoulli"])
def test_all_terms_are_summed_in_float32(build, batch, dtype, likelihood):
    from csvae_hub.config import LikelihoodConfig

    objective = build(parts="every", erase=True, likelihood=LikelihoodConfig(likelihood))
    x, y = batch(objective)
    with torch.autocast("cpu", dtype):
        loss, step = objective.generative_step(x, y)
        losses = {game.name: next(game.losses(step)) for game in objective.minimisations}
    assert loss.dtype == torch.float32
    assert {name: term.dtype for name, term in {**step.terms, **losses}.items() if term.dtype != torch.float32} == {}
    out, model = step.out, objective.model
    exact = {
        "reconstruction": -doubled(out.p_x).log_prob(x.double()),
        "kl_z": torch.distributions.kl_divergence(doubled(out.q_z), doubled(model.prior_z())),
        "kl_w": torch.distributions.kl_divergence(doubled(out.q_w), doubled(out.p_w)),
        "negative_entropy": -doubled(step.q_y).entropy(),
        "classifier": -(doubled(out.q_y).base_dist.log_prob(y.nan_to_num().double()) * ~y.isnan()).sum(1)
        / objective.known,
    }
    for name, term in exact.items():  # a sum in half precision is off by a thousandth
        torch.testing.assert_close(step.terms[name].double(), term, rtol=2e-6, atol=2e-5, msg=lambda m, n=name: n + m)


def doubled(distribution):
    """The distribution with its parameters in float64; a Bernoulli by its probabilities or its logits, as it was."""
    base = distribution.base_dist
    names = [name for name in ("loc", "scale", "probs", "logits") if name in vars(base)]
    values = {name: getattr(base, name).double() for name in names[:2] if "loc" in names or name == names[0]}
    made = type(base)(**values, validate_args=False)
    return torch.distributions.Independent(made, distribution.reinterpreted_batch_ndims, validate_args=False)


def test_float16_trains_with_a_scaler_and_goes_on_to_the_same_bits(tmp_path, build, data, monkeypatch):
    config = replace(CONFIG, precision="float16")

    def trainer(folder, **options):
        return Trainer(build(parts="every", erase=True), config, data(), None, folder, quiet=True, **options)

    class Stops:
        def after_batch(self, trainer, batch, terms):
            if batch == 3:
                trainer.stop()

    whole = trainer(None)
    scale = whole.accelerator.scaler.get_scale()
    model = whole.fit()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert 1 < whole.accelerator.scaler.get_scale() < scale  # some steps overflowed, and the scale fell
    trainer(tmp_path, callbacks=[Stops()]).fit()
    resumed = trainer(tmp_path)
    resumed.fit()
    assert resumed.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    for name, value in tensors(whole).items():
        assert torch.equal(value.nan_to_num(), tensors(resumed)[name].nan_to_num()), name


def test_a_scaled_loss_gives_the_step_of_the_loss(build, data):
    runs = {}
    for precision in ("float32", "float16"):
        torch.manual_seed(0)
        run = Trainer(build(), replace(CONFIG, precision=precision), data(), quiet=True, clip_norm=1.0)
        if scaler := run.accelerator.scaler:
            scaler.load_state_dict({**scaler.state_dict(), "scale": 64.0})  # none of these gradients overflows
        torch.manual_seed(1)
        gradients = seen(run, "generative")
        run.train_step(*run._examples(torch.arange(8)), 0)
        runs[precision] = gradients
    for a, b in zip(runs["float32"], runs["float16"], strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=5e-3)


def seen(run, name):
    """The gradients with which an optimiser of a run takes its steps, as they will be."""
    optimizer = run.optimizers[name]
    found, optimizer = [], getattr(optimizer, "optimizer", optimizer)  # with a scaler it is in accelerate's wrapper
    parameters = optimizer.param_groups[0]["params"]
    optimizer.register_step_pre_hook(lambda *_: found.extend(p.grad.clone() for p in parameters))
    return found


@pytest.mark.parametrize(("precision", "mixed"), [("float32", "bf16"), ("bfloat16", "fp16"), ("float16", "bf16")])
def test_an_accelerator_of_another_precision_is_an_error(precision, mixed):
    class Other:
        mixed_precision, num_processes, process_index, gradient_accumulation_steps = mixed, 1, 0, 1

    with pytest.raises(ConfigError, match=f"^precision: expected {mixed!r}, accelerate's, or .* got '{precision}'$"):
        Processes(Other(), precision)


def test_gradients_of_the_parts_of_a_batch_are_added_up(build, data, monkeypatch):
    run = Trainer(build(parts={"critic": {}}), CONFIG, data(), quiet=True, accelerator=join(2))
    found, taken = {name: seen(run, name) for name in run.optimizers}, {name: [] for name in run.optimizers}
    backward = run.accelerator.backward

    def alone(loss):
        """Takes down each part's own gradients."""
        for name, optimizer in run.optimizers.items():
            parameters = optimizer.param_groups[0]["params"]
            own = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            if any(gradient is not None for gradient in own):
                taken[name].append(own)
        backward(loss)

    monkeypatch.setattr(run.accelerator, "backward", alone)
    with run.processes.sharing():
        means = run.train_step(*run._examples(torch.arange(8)), 0)
    for name, gradients in found.items():
        assert len(taken[name]) == 2
        for gradient, *parts in zip(gradients, *taken[name], strict=True):
            torch.testing.assert_close(gradient, (parts[0] + parts[1]) / 2)
    assert means["reconstruction"].isfinite()
    assert all(p.grad is None for p in run.objective.parameters())


def test_each_minimisation_s_gradient_is_clipped(build, data):
    run = Trainer(build(parts={"critic": {}}), CONFIG, data(), quiet=True, clip_norm=0.01)
    found = {name: seen(run, name) for name in run.optimizers}
    run.train_step(*run._examples(torch.arange(8)), 0)
    for gradients in found.values():
        assert torch.cat([g.flatten() for g in gradients]).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_greatest_norm_belongs_to_a_run_and_has_to_be_positive(tmp_path, build, data):
    def trainer(**options):
        return Trainer(build(), CONFIG, data(), None, tmp_path, quiet=True, **options)

    trainer(clip_norm=1.0).fit()
    with pytest.raises(ConfigError, match=r"^clip_norm: .* made with 1\.0, this run has None: keep the value"):
        trainer().fit()
    with pytest.raises(ConfigError, match=r"^clip_norm: expected a positive number or none, got 0$"):
        trainer(clip_norm=0)
