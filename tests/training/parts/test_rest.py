"""The rest: the encoder is frozen, and what reads it keeps training."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli

from csvae_hub.errors import ConfigError
from csvae_hub.models import list_models
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.parts._common import sampled_latents, switch_one_attribute
from csvae_hub.training.parts.rest import Options, consistency, disturbed
from csvae_hub.training.trainer import Trainer

FROZEN = ("model.backbone.down", "model.backbone.features", "model.q_y", "model.q_z", "model.adversary_net")
OTHERS = {"balanced": {}, "stronger_adversary": {"steps": 2, "memory": 2}}


@pytest.fixture
def resting(build):
    def build_resting(kind="csvae", weight=0.0, **options):
        objective = build(kind, parts={"rest": {"weight": weight}, **options.pop("parts", OTHERS)}, **options)
        objective.begin_rest(None)
        return objective

    return build_resting


@pytest.mark.parametrize("kind", list_models())
@pytest.mark.parametrize("critic", [False, True])
@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_only_what_reads_the_encoder_is_trained(resting, batch, state, changed, trained, kind, critic, weight):
    objective = resting(kind, weight, parts={**OTHERS, **({"critic": {}} if critic else {})})
    model = objective.model
    before, (x, y) = state(objective), batch(objective)
    features = model.backbone.encode(x)
    assert not features.requires_grad
    loss, step = objective.generative_step(x, y)
    loss.backward()
    reached = trained(objective)
    assert not {name for name in reached if name.startswith(FROZEN)}
    assert {"model.backbone.pixels.weight", "model.backbone.start.weight"} <= reached
    assert ("model.q_w.out" in reached) == (kind == "csvae")
    for game in objective.minimisations:
        losses = list(game.losses(step))
        assert bool(losses) == (game.name == "critic")
    assert not {name for name in changed(before, objective) if name.startswith((*FROZEN, "parts.2"))}
    assert torch.equal(model.backbone.encode(x), features)
    assert {id(p) for p in model.q_z.parameters()}.isdisjoint(id(p) for p in objective.generative_parameters())


def test_it_has_the_terms_of_the_bound_alone_and_no_adversary(build, resting, batch):
    before = build(parts={"rest": {"weight": 3.0}, **OTHERS})
    _, step = before.generative_step(*batch(before))
    assert before.at_rest == []
    assert step.terms.keys() == {"reconstruction", "kl_z", "kl_w", "classifier", "negative_entropy"}
    objective = resting()
    _, step = objective.generative_step(*batch(objective))
    assert objective.at_rest != []
    assert step.q_y is None
    assert step.terms.keys() == {"reconstruction", "kl_z", "kl_w", "classifier"}
    assert list(objective.minimisations[0].losses(step)) == []


def test_what_rests_stays_in_eval_mode(resting, batch):
    objective = resting()
    objective.generative_step(*batch(objective))
    assert objective.training
    assert not any(module.training for frozen in objective.at_rest for module in frozen.modules())


def test_a_told_encoder_still_reads_y(resting, batch):
    model = resting("cond-vae").model
    x, y = batch(resting("cond-vae"), missing=0.0)
    assert not torch.equal(model.posterior_z(x, y).mean, model.posterior_z(x, 1 - y).mean)


# -- the consistency --------------------------------------------------------------------------------------------------


def test_consistency_asks_for_the_edited_attribute_and_holds_the_others():
    torch.manual_seed(0)
    logits, before = torch.randn(6, 4), torch.randn(6, 4)
    wished, which = torch.randint(2, (6, 4)).float(), torch.tensor([0, 1, 2, 3, 0, 1])
    own, others = consistency(logits, before, wished, which)
    for row, i in enumerate(which.tolist()):
        r = logits[row, i].sigmoid()
        torch.testing.assert_close(own[row], -(r if wished[row, i] else 1 - r).log())
        pairs = [(Bernoulli(logits=before[row, j]), Bernoulli(logits=logits[row, j])) for j in range(4) if j != i]
        torch.testing.assert_close(
            others[row], torch.stack([torch.distributions.kl_divergence(p, q) for p, q in pairs]).sum()
        )


def test_consistency_is_zero_where_the_wish_is_met_and_the_rest_is_kept():
    before = torch.randn(3, 2)
    after = before.clone()
    after[:, 0] = 100.0
    own, others = consistency(after, before, torch.ones(3, 2), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(own, torch.zeros(3))
    torch.testing.assert_close(others, torch.zeros(3))


@pytest.mark.parametrize("kind", list_models())
def test_edits_are_shown_to_the_model_s_own_classifier(resting, batch, kind):
    objective = resting(kind, weight=3.0)
    loss, step = objective.generative_step(*batch(objective))
    own, others = step.terms["consistency"], step.terms["consistency_of_others"]
    assert own.shape == others.shape == (12,)
    bound = sum(term.mean() for name, term in step.terms.items() if not name.startswith("consistency"))
    torch.testing.assert_close(loss, bound + 3 * (own.mean() + others.mean()))
    objective.zero_grad(set_to_none=True)
    own.sum().backward()
    assert objective.model.backbone.pixels.weight.grad.abs().sum() > 0


def test_the_decoder_learns_edits_that_the_resting_classifier_reads(build, data):
    objective = build(parts={"rest": {"weight": 100.0}}, weights={"classifier": 100.0})
    x, y = data().batch(range(40))
    y[:, 1:] = y[:, :1]

    def train(steps):
        optimizer = torch.optim.Adam(objective.generative_parameters(), 1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            loss, step = objective.generative_step(x, y)
            loss.backward()
            optimizer.step()
        return step

    @torch.no_grad()
    def error(step):
        model = objective.model.eval()
        edited = switch_one_attribute(model, sampled_latents(step), donors=0.0)
        logits = model.posterior_y(model.decode(edited.latents)).base_dist.logits
        return consistency(logits, logits, edited.wished, edited.which)[0].mean()

    step = train(40)
    objective.begin_rest(None)
    before = error(step)
    assert error(train(60)) < 0.5 * before


def test_disturbing_keeps_shape_and_range_and_lets_gradients_through():
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    for seed in range(4):
        torch.manual_seed(seed)
        moved = disturbed(images)
        assert moved.shape == images.shape
        assert 0 <= moved.min() < moved.max() <= 1
    moved.sum().backward()
    assert images.grad.abs().sum() > 0


# -- the rest of a run ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(build, data):
    def make(epochs=3, rest=1, schedule="cosine", **options):
        objective = build(parts={"rest": {"epochs": rest}, "flow": {}, **OTHERS}, flow=8)
        config = TrainerConfig(epochs=epochs, batch_size=8, schedule=schedule)
        return Trainer(objective, config, data(), None, **{"quiet": True, **options})

    return make


def test_the_averaged_weights_go_on_and_the_flow_is_fitted_to_all_data_and_its_mirror_images(run, monkeypatch, state):
    trainer, seen = run(), []
    begin, objective = trainer.objective.begin_rest, trainer.objective

    def spied(examples):
        examples = list(examples)
        seen.append((state(objective.model), state(trainer.average), examples))
        begin(examples)
        seen.append((state(objective.model), state(trainer.average), []))

    monkeypatch.setattr(objective, "begin_rest", spied)
    model = trainer.fit()
    (before, average, examples), (after, _, _) = seen
    assert all(torch.equal(average[name], value) for name, value in before.items())
    assert {
        name.rpartition(".couplings")[0] or name for name in after if not torch.equal(after[name], before[name])
    } >= {"q_z.flow"}
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("q_z.flow"))
    x, y = (torch.cat(tensors) for tensors in zip(*examples, strict=True))
    assert len(x) == len(y) == 80
    assert torch.equal(x[40:], x[:40].flip(-1))
    for name, value in model.state_dict().items():  # the averaged encoder stayed at rest
        if name.startswith(("q_z.", "q_y.", "backbone.down.", "backbone.features")):
            assert torch.equal(value, after[name]), name


def test_the_time_left_counts_what_is_fitted_until_then(run, monkeypatch, capsys):
    trainer = run(quiet=False)
    monkeypatch.setattr(trainer.objective, "seconds_at_rest", [lambda: 7200.0])
    trainer.fit()
    lines = [line for line in capsys.readouterr().err.splitlines() if " left, " in line]
    assert " batch 5 of 15, 2:00:0" in lines[0]
    assert " batch 15 of 15, 0:00:00 left" in lines[-1]


def test_the_optimiser_and_the_schedule_begin_anew(run, monkeypatch):
    trainer, rates = run(epochs=4, rest=2), []
    step = trainer.train_step

    def noted(x, y, batch):
        means = step(x, y, batch)
        group = trainer.optimizers["generative"]
        rates.append(group.param_groups[0]["lr"] / 1e-3)
        steps = {int(values["step"]) for values in group.state_dict()["state"].values()}
        assert steps == {batch % 10 + 1}
        return means

    monkeypatch.setattr(trainer, "train_step", noted)
    trainer.fit()
    assert rates[0] == rates[10] == 1
    assert rates[5] == rates[15] == pytest.approx(0.5)
    assert max(rates[9], rates[19]) < 0.03


def test_the_adversary_stops_learning(run, state, changed, monkeypatch):
    trainer, seen = run(), []
    begin = trainer.objective.begin_rest
    net = trainer.objective.model.adversary_net
    monkeypatch.setattr(trainer.objective, "begin_rest", lambda e: (begin(e), seen.append(state(net))))
    first = state(net)
    trainer.fit()
    assert changed(first, net)
    assert changed(seen[0], net) == set()


def test_a_rest_is_no_longer_than_the_run(run):
    words = r"^parts\.rest\.epochs: expected at most trainer\.epochs, 3 \(raise it, or set both\), got 4$"
    with pytest.raises(ConfigError, match=words):
        run(epochs=3, rest=4)


def test_a_run_that_is_all_rest_keeps_the_encoder(run, state):
    trainer = run(epochs=2, rest=2)
    before = state(trainer.objective.model)
    model = trainer.fit()
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    encoder = {name for name in before if name.startswith(("q_z.", "q_y.", "backbone.down.", "backbone.features"))}
    assert encoder - same == {name for name in before if name.startswith("q_z.flow")} - same != set()
    assert "backbone.pixels.weight" not in same


# -- the options ------------------------------------------------------------------------------------------------------


def test_a_weight_needs_pictures(build):
    with pytest.raises(ConfigError, match=r"^parts\.rest\.weight: expected 0 for a model of vectors, got 1.0$"):
        build(parts={"rest": {"weight": 1.0}}, data="vectors")
    build(parts={"rest": {}}, data="vectors")


def test_there_is_an_epoch_of_it():
    with pytest.raises(ConfigError, match=r"^parts\.rest\.epochs: expected 1 or more, got 0$"):
        Options(epochs=0)
