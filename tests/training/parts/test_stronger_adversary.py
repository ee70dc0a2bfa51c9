"""The adversary that takes more steps: what it reads, and what its memory holds."""

from __future__ import annotations

import pytest
import torch

from csvae_hub import losses
from csvae_hub.errors import ConfigError


def make(build, kind="csvae", parts=None, **options):
    objective = build(kind, parts={"stronger_adversary": options, **(parts or {})})
    return objective, objective.parts[0], objective.minimisations[0]


def test_without_it_the_adversary_reads_a_sample_once(build, batch):
    objective = build()
    _, step = objective.generative_step(*batch(objective))
    seen = []
    objective.model.adversary_net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert len(list(objective.minimisations[0].losses(step))) == 1
    assert torch.equal(seen[0], step.out.z)
    assert not seen[0].requires_grad


def test_with_it_both_sides_read_the_mean(build, batch):
    objective, part, game = make(build)
    seen = []
    objective.model.adversary_net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _, step = objective.generative_step(*batch(objective))
    list(game.losses(step))
    assert [torch.equal(z, step.out.q_z.mean) for z in seen] == [True, True]
    assert [z.requires_grad for z in seen] == [True, False]
    assert torch.equal(part.memory_z, step.out.q_z.mean)
    torch.testing.assert_close(part.memory_y, step.y, equal_nan=True)


@pytest.mark.parametrize("balanced", [False, True])
def test_each_step_learns_from_the_batch_by_the_cross_entropy(build, batch, balanced):
    objective, part, game = make(build, parts={"balanced": {}} if balanced else {}, steps=3, memory=1)
    _, step = objective.generative_step(*batch(objective))
    found = list(game.losses(step))
    q_y = objective.model.adversary_net(part.memory_z)
    rate = torch.tensor(objective.data.labels).nanmean(0) if balanced else None
    assert len(found) == 3
    for loss in found:
        torch.testing.assert_close(loss, losses.cross_entropy(q_y, part.memory_y, rate).mean())


@pytest.mark.parametrize("memory", [1, 3])
def test_the_memory_holds_the_newest_batches_and_no_more(build, batch, memory):
    objective, part, game = make(build, memory=memory)
    seen = []
    for _ in range(5):
        _, step = objective.generative_step(*batch(objective, 6))
        list(game.losses(step))
        seen.insert(0, step.out.q_z.mean.detach())
        kept = seen[:memory]
        assert torch.equal(part.memory_z, torch.cat(kept))
        assert len(part.memory_y) == len(part.memory_z) == 6 * len(kept)
        assert not part.memory_z.requires_grad


def test_with_a_memory_the_adversary_draws_two_batches_a_quarter_of_them_new(build, batch):
    objective, part, game = make(build, steps=2, memory=4)
    for full in (False, True, True):
        _, step = objective.generative_step(*batch(objective, 6))
        seen = []
        hook = objective.model.adversary_net.register_forward_pre_hook(lambda _, inputs, s=seen: s.append(inputs[0]))
        list(game.losses(step))
        hook.remove()
        assert [len(z) for z in seen] == [12 if full else 6] * 2
        if full:
            newest = step.out.q_z.mean
            assert all((z[:3, None] == newest).all(-1).any(1).all() for z in seen)
            assert all((z[:, None] == part.memory_z).all(-1).any(1).all() for z in seen)
            assert not torch.equal(*seen)


@pytest.mark.parametrize("name", ["steps", "memory"])
@pytest.mark.parametrize("value", [0, 1001])
def test_counts_are_1_to_1000(build, name, value):
    words = rf"^parts\.stronger_adversary\.{name}: expected 1 to 1000, got {value}$"
    with pytest.raises(ConfigError, match=words):
        make(build, **{name: value})


def test_a_model_without_an_adversary_has_no_steps(build, batch):
    objective = build("vae", parts={"stronger_adversary": {}})
    objective.generative_step(*batch(objective))
    assert objective.minimisations == []
    assert len(objective.parts[0].memory_z) == 0
