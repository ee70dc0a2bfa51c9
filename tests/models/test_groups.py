"""Attributes that exclude one another: the edits that follow from an edit, and what they touch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.config import BackboneConfig, ModelConfig, from_dict, to_dict
from csvae_hub.distributions import attributes, log_odds, most_likely
from csvae_hub.errors import ConfigError
from csvae_hub.models import AttributeModel, create_model, list_models
from csvae_hub.models.groups import with_groups

NAMES = ("Happy", "Neutral", "Hat", "Sad")
GROUP = ("Happy", "Neutral", "Sad")
PLAIN = ("Happy", "Sad", "Angry")


def build(kind="csvae", exclusive=(GROUP,), **fields):
    torch.manual_seed(0)
    backbone = BackboneConfig(width=4, features=16)
    config = ModelConfig(
        attributes=NAMES, model=kind, shape=(1, 48, 48), z_dim=8, backbone=backbone, exclusive=exclusive, **fields
    )
    model = create_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if "class_means" in dict(model.named_buffers()):
            model.get_buffer("class_means").normal_()
    return model.eval()


# -- the distribution -----------------------------------------------------------------------------------------------


def test_a_group_is_a_categorical_and_the_rest_are_bernoullis():
    logits = torch.randn(6, 4)
    q_y, columns = attributes(logits, [[0, 1, 3]]), [0, 1, 3]
    categorical = torch.distributions.Categorical(logits=logits[:, columns])
    bernoulli = torch.distributions.Bernoulli(logits=logits[:, 2])
    torch.testing.assert_close(q_y.mean[:, columns], categorical.probs)
    torch.testing.assert_close(q_y.mean[:, columns].sum(1), torch.ones(6))
    torch.testing.assert_close(q_y.mean[:, 2], bernoulli.probs)
    torch.testing.assert_close(q_y.entropy(), categorical.entropy() + bernoulli.entropy())
    member, hat = torch.randint(3, (6,)), torch.randint(2, (6,)).float()
    y = torch.zeros(6, 4)
    y[torch.arange(6), torch.tensor(columns)[member]] = 1
    y[:, 2] = hat
    torch.testing.assert_close(q_y.log_prob(y), categorical.log_prob(member) + bernoulli.log_prob(hat))
    assert torch.equal(most_likely(q_y)[:, columns].argmax(1), logits[:, columns].argmax(1))
    assert (most_likely(q_y)[:, columns].sum(1) == 1).all()
    assert torch.equal(most_likely(q_y)[:, 2], (logits[:, 2] > 0).float())


def test_the_log_odds_are_those_of_each_attribute_s_probability():
    logits = torch.randn(6, 4)
    for groups in ([], [[0, 1, 3]]):
        q_y = attributes(logits, groups)
        torch.testing.assert_close(log_odds(q_y), q_y.mean.logit(), rtol=1e-4, atol=1e-5)
    assert log_odds(attributes(torch.tensor([[1e4, -1e4]]), [[0, 1]])).isfinite().all()


def test_the_entropy_of_a_group_is_at_most_the_logarithm_of_its_size():
    seven = [list(range(7))]
    assert attributes(torch.zeros(1, 7), seven).entropy().item() == pytest.approx(math.log(7))
    assert (attributes(3 * torch.randn(100, 7), seven).entropy() < math.log(7)).all()


def test_saturated_logits_give_finite_values_and_gradients():
    logits = torch.tensor([[1e4, -1e4, 0.0, -1e4]], requires_grad=True)
    q_y = attributes(logits, [[0, 1, 3]])
    assert q_y.entropy().item() == pytest.approx(math.log(2), abs=1e-6)  # of the attribute in no group
    assert q_y.log_prob(torch.tensor([[0.0, 1.0, 0.0, 0.0]])).item() == pytest.approx(-2e4, rel=1e-3)
    (q_y.entropy() + q_y.log_prob(torch.tensor([[0.0, 1.0, 0.0, 0.0]]))).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# -- the values of an edit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"Happy": True}, {"Happy": True, "Neutral": False, "Sad": False}),
        ({"Happy": np.True_}, {"Happy": np.True_, "Neutral": False, "Sad": False}),
        ({"Happy": "true"}, {"Happy": "true", "Neutral": False, "Sad": False}),
        ({"Happy": "False"}, {"Happy": "False", "Neutral": True, "Sad": False}),
        ({"Happy": "0.5"}, {"Happy": "0.5"}),
        ({"Happy": "sample"}, {"Happy": "sample", "Neutral": False, "Sad": False}),
        ({"Happy": False}, {"Happy": False, "Neutral": True, "Sad": False}),
        ({"Happy": False, "Sad": True}, {"Happy": False, "Sad": True, "Neutral": False}),
        ({"Happy": True, "Sad": 0.3}, {"Happy": True, "Sad": 0.3, "Neutral": False}),
        ({"Happy": 1}, {"Happy": 1}),
        ({"Happy": 0.5, "Sad": (1.0, 2.0)}, {"Happy": 0.5, "Sad": (1.0, 2.0)}),
        ({"Happy": torch.zeros(2)}, None),
        ({"Hat": True}, {"Hat": True}),
        ({"Hat": False, "Sad": True}, {"Hat": False, "Sad": True, "Happy": False, "Neutral": False}),
    ],
)
def test_one_that_becomes_present_makes_the_others_absent(values, expected):
    assert with_groups(values, [GROUP]) == (values if expected is None else expected)
    assert with_groups(values, []) == values


@pytest.mark.parametrize(
    "picture", [Image.new("L", (48, 48)), np.zeros((48, 48), np.uint8), torch.zeros(1, 1, 48, 48)], ids=type
)
def test_a_picture_lends_all_members_of_its_group(picture):
    assert with_groups({"Happy": picture}, [GROUP]) == {"Happy": picture, "Neutral": picture, "Sad": picture}


@pytest.mark.parametrize(
    ("values", "group", "words"),
    [
        (
            {"Happy": True, "Sad": True},
            GROUP,
            r"one of Happy, Neutral, Sad to be present, got Happy and Sad: choose one",
        ),
        ({"Happy": True, "Sad": "sample"}, GROUP, r"got Happy and Sad"),
        ({"Happy": False}, PLAIN, r"Happy=False: .* set one of Sad, Angry to True"),
        ({"Neutral": False}, GROUP, r"Neutral=False: .* set one of Happy, Sad to True"),
        ({"Happy": "no such thing"}, GROUP, r"value for 'Happy': expected True, False, a number"),
        (dict.fromkeys(GROUP, False), GROUP, r"every member of a group is set to False"),
    ],
)
def test_edits_that_contradict_themselves_are_refused(values, group, words):
    with pytest.raises(ValueError, match=words):
        with_groups(values, [group])


# -- models ---------------------------------------------------------------------------------------------------------


def test_an_edit_of_a_group_touches_the_group_s_subspaces_alone():
    model = build()
    latents = model.encode(torch.rand(3, 1, 48, 48))
    edited = model.edit(latents, {"Sad": True})
    assert torch.equal(edited.z, latents.z)
    assert torch.equal(edited.w[:, 2], latents.w[:, 2])
    means = model.class_means
    for i, value in ((0, 0), (1, 0), (3, 1)):
        assert torch.equal(edited.w[:, i], means[i, value].expand(3, -1))
    moved = model.edit(latents, {"Sad": 0.4})
    assert torch.equal(moved.w[:, :3], latents.w[:, :3])
    assert not torch.equal(moved.w[:, 3], latents.w[:, 3])


@pytest.mark.parametrize("kind", list_models())
def test_every_model_edits_predicts_and_samples_by_groups(kind, tmp_path):
    model, x = build(kind), torch.rand(5, 1, 48, 48)
    found = model.predict_attributes(x)
    torch.testing.assert_close(sum(found[name] for name in GROUP), torch.ones(5))
    assert (model.encode(x).y[:, [0, 1, 3]].sum(1) == 1).all()
    assert model.set_attribute(x, "Happy", True).shape == x.shape
    assert not torch.equal(model.set_attribute(x, "Happy", True), model.set_attribute(x, "Sad", True))
    with pytest.raises(ValueError, match="choose one"):
        model.edit(x, {"Happy": True, "Sad": True})
    assert (model.prior_latents(20, None, None).y[:, [0, 1, 3]].nan_to_num(1 / 3).sum(1) - 1).abs().max() < 1e-6
    model.save_pretrained(tmp_path)
    again = AttributeModel.from_pretrained(tmp_path)
    assert again.config.exclusive == (GROUP,)
    assert torch.equal(again.set_attribute(x, "Sad", True), model.set_attribute(x, "Sad", True))


def test_a_model_without_groups_answers_as_before():
    plain = build(exclusive=())
    state, x = plain.state_dict(), torch.rand(2, 1, 48, 48)
    grouped = build()
    grouped.load_state_dict(state)
    q, grouped_q = plain.posterior_y(x), grouped.posterior_y(x)
    assert isinstance(q.base_dist, torch.distributions.Bernoulli)
    torch.testing.assert_close(q.mean[:, 2], grouped_q.mean[:, 2])
    assert "exclusive" in to_dict(plain.config)
    assert from_dict(ModelConfig, {"attributes": list(NAMES)}).exclusive == ()


@pytest.mark.parametrize(
    ("exclusive", "words"),
    [
        ((("Happy",),), r"exclusive: expected two names or more"),
        ((GROUP, ("Hat", "Sad")), r"exclusive: expected each name in one group, once"),
        ((("Happy", "Happy"),), r"exclusive: expected each name in one group, once"),
        (
            (("Happy", "Cap"),),
            r"exclusive: expected attributes of this model \(Happy, Neutral, Hat, Sad\), got \['Cap'\]",
        ),
    ],
)
def test_groups_that_make_no_sense_are_refused(exclusive, words):
    with pytest.raises(ConfigError, match=words):
        build(exclusive=exclusive)
