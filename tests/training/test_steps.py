"""The two steps of training: whose gradients each leaves alone, what their terms are, and what they remember."""

from __future__ import annotations

import math

import pytest
import torch
from csvae_hub.training.objective import WEIGHTS, Objective, ObjectiveConfig
from torch import nn

from csvae_hub import losses
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.errors import ConfigError
from csvae_hub.models import create_model, list_models

OPTIONS = {
    "paper": {},
    "every option": {
        "adversary_steps": 2,
        "adversary_memory": 3,
        "adversary_mean": True,
        "balanced": True,
        "consistency": 2.0,
        "others": 3.0,
        "confusion": 2.0,
        "invariance": 2.0,
    },
}


class Guide(nn.Module):
    """A classifier with a batch norm and a dropout, so that training mode would show."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))

    def forward(self, images):
        return self.net(images)


def build(options="paper", model=(), **changes):
    """An objective over a tiny model whose zeros have been shaken."""
    torch.manual_seed(0)
    image = {"shape": (3, 16, 16), "backbone": BackboneConfig(width=4, features=16, film=True)}
    config = ModelConfig(
        **{"attributes": ("Smiling", "Hat", "Young"), "z_dim": 8, "adversary_width": 8, **image, **dict(model)}
    )
    built = create_model(config)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    options = ObjectiveConfig(**{**OPTIONS[options], **changes})
    return Objective(built, options, Guide() if options.consistency else None, torch.tensor([0.5, 0.1, 0.9])).train()


def batch(objective, n=12, missing=0.2):
    x, y = torch.rand(n, *objective.model.config.shape), torch.randint(2, (n, 3)).float()
    return x, y.masked_fill(torch.rand(n, 3) < missing, torch.nan)


@pytest.fixture(params=[*OPTIONS, "vectors", "vae", "cond-vae", "cond-vae-info"])
def objective(request):
    if request.param in list_models():
        options = {} if request.param == "vae" else OPTIONS["every option"]
        return build(model={"model": request.param}, **options)
    if request.param == "vectors":
        return build(model={"shape": (5,), "backbone": BackboneConfig(name="mlp", width=8, features=16)})
    return build(
        request.param, model={"residual": True, "erase": True, "learn_priors": True} if "every" in request.param else {}
    )


def buffers(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


# -- the two sides ----------------------------------------------------------------------------------------------------


def test_each_trained_parameter_is_on_one_side(objective):
    one, other = (
        {id(p) for p in side} for side in (objective.generative_parameters(), objective.adversary_parameters())
    )
    assert one.isdisjoint(other)
    assert one | other == {id(p) for p in objective.model.parameters() if p.requires_grad}


def test_the_generative_step_leaves_the_adversary_alone(objective):
    net = objective.model.adversary_net
    before = {} if net is None else buffers(net)
    objective.generative_step(*batch(objective))[0].backward()
    assert [p.grad for p in objective.adversary_parameters()] == [None] * len(objective.adversary_parameters())
    assert all(p.requires_grad for p in objective.adversary_parameters())
    assert_same(before, {} if net is None else buffers(net))


def test_the_generative_step_trains_everything_else(objective):
    objective.generative_step(*batch(objective, missing=0.0))[0].backward()
    names = {id(p): name for name, p in objective.model.named_parameters()}
    untrained = [
        names[id(p)] for p in objective.generative_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert untrained == []


def test_the_adversary_step_leaves_everything_else_alone(objective):
    if not objective.adversary_parameters():
        pytest.skip("this model has no adversary")
    objective.generative_step(*batch(objective))
    model = objective.model
    before = {k: v for k, v in buffers(model).items() if not k.startswith("adversary_net.")}
    objective.adversary_step()[0].backward()
    assert [p.grad for p in objective.generative_parameters()] == [None] * len(objective.generative_parameters())
    assert all(p.grad.abs().sum() > 0 for p in objective.adversary_parameters())
    assert_same(before, {k: v for k, v in buffers(model).items() if not k.startswith("adversary_net.")})


def test_the_entropy_s_gradient_reaches_the_encoder_of_z():
    objective = build()
    out = objective.model(*batch(objective, missing=0.0))
    only = build(**{name: 0.0 for name in WEIGHTS if name not in ("negative_entropy", "others")})
    only.generative_step(*batch(only))[0].backward()
    assert only.model.q_z.head.weight.grad.abs().sum() > 0
    assert only.model.q_w.out.grad.abs().sum() == 0
    assert out.z.requires_grad


def test_cond_vae_info_raises_the_cross_entropy_that_its_adversary_lowers():
    objective = build(model={"model": "cond-vae-info"}, balanced=True, adversary_mean=True)
    x, y = batch(objective, missing=0.0)
    _, terms = objective.generative_step(x, y)
    net = objective.model.adversary_net.eval()
    expected = losses.adversary(net(objective.model.posterior_z(x).mean), y, objective.share).mean()
    torch.testing.assert_close(terms["negative_cross_entropy"], -expected.detach())
    assert "negative_entropy" not in terms


@pytest.mark.parametrize(("name", "terms"), [("vae", 2), ("cond-vae", 2), ("cond-vae-info", 3), ("csvae", 4)])
def test_each_model_has_the_terms_of_its_own_bound_and_adversary(name, terms):
    found = build(model={"model": name}).generative_step(*batch(build()))[1]
    assert len(found) == terms + 1  # and the classifier's
    assert ("kl_w" in found) == (name == "csvae")


# -- terms and weights ------------------------------------------------------------------------------------------------


def test_terms_are_unweighted_means_in_nats():
    first, second = build(), build(reconstruction=7.0, kl_w=7.0, kl_z=7.0, negative_entropy=7.0, classifier=7.0)
    x, y = batch(first)
    found = []
    for objective in (first, second):
        torch.manual_seed(3)
        found.append(objective.generative_step(x, y)[1])
    assert_same(*found)
    torch.manual_seed(3)
    model = first.model
    model.adversary_net.eval()
    out = model(x, y)
    expected = {
        "reconstruction": -out.p_x.log_prob(x),
        "kl_w": torch.distributions.kl_divergence(out.q_w, out.p_w),
        "kl_z": torch.distributions.kl_divergence(out.q_z, model.prior_z()),
        "negative_entropy": losses.negative_entropy(model.adversary_net(out.z)),
        "classifier": losses.classification(out.attribute_logits, y),
    }
    assert found[0].keys() == expected.keys()
    for name, term in found[0].items():
        assert term.shape == ()
        assert not term.requires_grad
        torch.testing.assert_close(term, expected[name].mean())


def test_the_loss_is_the_weighted_sum(objective):
    config, (loss, terms) = objective.config, objective.generative_step(*batch(objective))
    expected = sum(getattr(config, name) * term for name, term in terms.items() if name != "others")
    expected += config.consistency * config.others * terms.get("others", torch.zeros(()))
    torch.testing.assert_close(loss.detach(), expected)


def test_the_adversary_s_loss_has_its_weight_and_its_term_has_none():
    objective = build(adversary=5.0)
    objective.generative_step(*batch(objective))
    loss, terms = objective.adversary_step()
    assert terms.keys() == {"adversary"}
    torch.testing.assert_close(loss.detach(), 5 * terms["adversary"])


@pytest.mark.parametrize("mean", [False, True])
def test_the_adversary_reads_a_sample_of_z_or_its_mean(mean):
    objective = build(adversary_mean=mean)
    x, y = batch(objective)
    torch.manual_seed(3)
    objective.generative_step(x, y)
    torch.manual_seed(3)
    out = objective.model(x, y)
    torch.testing.assert_close(objective.memory_z, (out.q_z.mean if mean else out.z).detach())
    torch.testing.assert_close(objective.memory_y, y, equal_nan=True)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_adversary_s_term(balanced):
    objective = build(balanced=balanced)
    objective.generative_step(*batch(objective))
    term = objective.adversary_step()[1]["adversary"]
    logits = objective.model.adversary_net(objective.memory_z)
    expected = losses.adversary(logits, objective.memory_y, objective.share if balanced else None).mean()
    torch.testing.assert_close(term, expected.detach())


def test_a_batch_without_any_attribute_is_no_obstacle():
    objective = build("every option")
    x, y = batch(objective, missing=1.1)
    assert y.isnan().all()
    loss, terms = objective.generative_step(x, y)
    assert loss.isfinite()
    assert terms["classifier"] == 0
    assert objective.adversary_step()[1]["adversary"] == 0


def test_the_adversary_learns_what_z_says():
    objective = build()
    x = torch.rand(64, 3, 16, 16)
    y = (x.mean((1, 2, 3), keepdim=True)[:, 0, 0] > x.mean()).float().expand(64, 3)
    objective.memory_z, objective.memory_y, objective._newest = y + 0.1 * torch.randn(64, 8)[:, :3], y, 64
    objective.memory_z = torch.cat([objective.memory_z, torch.randn(64, 5)], 1)
    parameters, first = objective.adversary_parameters(), objective.adversary_step()[0].item()
    for _ in range(100):
        loss = objective.adversary_step()[0]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 0.1 * gradient
    assert loss.item() < 0.1 * first
    assert first == pytest.approx(3 * math.log(2), abs=1.0)


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 3])
def test_the_memory_holds_the_newest_batches_and_no_more(memory):
    objective = build(adversary_memory=memory, adversary_mean=True)
    seen = []
    for _ in range(5):
        objective.generative_step(*batch(objective, 6))
        seen.insert(0, objective.memory_z[:6].clone())
        kept = seen[:memory]
        assert torch.equal(objective.memory_z, torch.cat(kept))
        assert len(objective.memory_y) == len(objective.memory_z) == 6 * len(kept)
        assert not objective.memory_z.requires_grad


def test_with_a_memory_the_adversary_draws_two_batches():
    objective = build(adversary_memory=4)
    sizes = []
    objective.model.adversary_net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for _ in range(3):
        objective.generative_step(*batch(objective, 6))
        objective.adversary_step()
    assert sizes == [6, 6, 6, 12, 6, 12]


# -- the guide --------------------------------------------------------------------------------------------------------


def test_consistency_needs_a_guide_and_images():
    model = build().model
    with pytest.raises(ConfigError, match="^objective.consistency: expected 0 where there is no guide, got 1.0$"):
        Objective(model, ObjectiveConfig(consistency=1.0))
    vectors = build(model={"shape": (5,), "backbone": BackboneConfig(name="mlp", width=8, features=16)}).model
    with pytest.raises(ConfigError, match="^objective.consistency: expected 0 for a model of vectors, got 1.0$"):
        Objective(vectors, ObjectiveConfig(consistency=1.0), nn.Linear(5, 3))


def test_a_told_decoder_is_told_the_wished_attributes_in_training(monkeypatch):
    objective = build("every option", model={"model": "cond-vae"}, edited_share=1.0)
    out, seen = objective.model(*batch(objective, missing=0.0)), []
    monkeypatch.setattr(objective.model, "decode_tensor", lambda latents: seen.append(latents) or out.p_x.mean)
    objective._edited(objective.guide, torch.rand(12, 3, 16, 16), out)
    assert torch.equal(seen[0].z, out.z)
    assert ((seen[0].y != out.y).sum(1) == 1).all()


@pytest.mark.parametrize("name", ["csvae", "cond-vae"])
def test_invariance_compares_pictures_that_differ_in_their_attributes_alone(name):
    objective = build(model={"model": name}, invariance=1.0, edited_share=0.5)
    model, (x, y) = objective.model, batch(objective, missing=0.0)
    out = model(x, y)
    shuffled = model.shuffled(out, 6)
    assert torch.equal(shuffled.z, out.z[:6])
    for i in range(3):  # each attribute is that of some picture, with that picture's own kind
        donors = torch.cat([out.w[:, i], out.y[:, i, None]], 1) if name == "csvae" else out.y[:, i, None]
        taken = torch.cat([shuffled.w[:, i], shuffled.y[:, i, None]], 1)
        assert (taken[:, None] == donors).all(-1).any(1).all()
    before = buffers(model.backbone)
    term = objective._invariance(out)
    assert term.shape == (6,)
    assert (term >= 0).all()
    assert_same(before, buffers(model.backbone))
    term.sum().backward()
    assert model.q_z.head.weight.grad.abs().sum() > 0
    assert model.backbone.pixels.weight.grad is None


@pytest.mark.parametrize("name", ["consistency", "invariance"])
def test_a_vae_has_no_edits(name):
    model = build(model={"model": "vae"}).model
    text = f"^objective.{name}: expected 0 for vae, which has no edits to train, got 1.0$"
    with pytest.raises(ConfigError, match=text):
        Objective(model, ObjectiveConfig(**{name: 1.0}), Guide())


def test_the_guide_is_frozen_and_stays_in_eval_mode():
    objective = build("every option")
    guide = objective.guide
    before = buffers(guide)
    loss, terms = objective.generative_step(*batch(objective))
    loss.backward()
    assert {"consistency", "others"} <= terms.keys()
    assert objective.training
    assert not any(module.training for module in guide.modules())
    assert [p.grad for p in guide.parameters()] == [None] * 4
    assert_same(before, buffers(guide))


def test_a_guide_that_no_term_asks_is_not_asked():
    objective = Objective(build().model, ObjectiveConfig(), nn.Identity())
    assert "consistency" not in objective.generative_step(*batch(objective))[1]


def test_what_is_frozen_stays_as_it_is_and_the_rest_learns():
    objective = build("every option", model={"erase": True}, frozen=("q_z", "backbone.down"))
    frozen = [*objective.model.q_z.parameters(), *objective.model.backbone.down.parameters()]
    trained = {id(p) for p in objective.generative_parameters()}
    assert not any(id(p) in trained for p in frozen)
    before = {name: buffer.clone() for name, buffer in objective.model.named_buffers()}
    loss, _ = objective.generative_step(*batch(objective))
    loss.backward()
    assert all(p.grad is None for p in frozen)
    assert objective.model.backbone.pixels.weight.grad is not None
    for name, buffer in objective.model.named_buffers():
        if name.startswith(("q_z", "backbone.down")):
            assert torch.equal(buffer, before[name])


def test_a_module_that_is_not_there_cannot_be_frozen():
    with pytest.raises(ConfigError, match=r"objective\.frozen: expected names of the model's modules.*got 'q_x'"):
        build(frozen=("q_x",))


@pytest.mark.parametrize("kind", ["mean", "transferred", "sampled"])
def test_edits_in_training_go_to_the_class_means_to_other_pictures_points_or_to_samples(kind, monkeypatch):
    shares = {"transferred_edits": float(kind == "transferred"), "sampled_edits": float(kind == "sampled")}
    objective = build("every option", edited_share=1.0, **shares)
    model, seen = objective.model, []
    out = model(*batch(objective, missing=0))
    monkeypatch.setattr(model, "decode_tensor", lambda latents: seen.append(latents) or out.p_x.mean)
    with torch.no_grad():
        objective._edited(objective.guide, torch.rand(12, 3, 16, 16), out)
    (edited,) = seen
    assert torch.equal(edited.z, out.z)
    assert ((edited.y != out.y).sum(1) == 1).all()
    for row, i in (edited.y != out.y).nonzero().tolist():
        others = [j for j in range(3) if j != i]
        assert torch.equal(edited.w[row, others], out.w[row, others])
        absent, present = model.class_means[i]
        value = (edited.w[row, i] - absent) / (present - absent)  # the same in both coordinates, on the line
        beyond = value[0] - edited.y[row, i] if edited.y[row, i] else -value[0]
        is_mean = bool((value[0] - value[1]).abs() < 1e-4 and -1e-4 <= beyond <= 0.5)
        donors = out.w[out.y[:, i] == edited.y[row, i], i]
        is_transferred = bool((donors == edited.w[row, i]).all(1).any())
        assert (is_mean, is_transferred) == (kind == "mean", kind == "transferred")


def test_the_class_means_follow_the_posteriors():
    objective = build("every option")
    before = objective.model.class_means.clone()
    objective.generative_step(*batch(objective))
    assert not torch.equal(objective.model.class_means, before)
