"""Latents: replacing touches one subspace, to the bit."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from csvae_hub.errors import UnknownAttributeError
from csvae_hub.models import Latents

NAMES = ("Smiling", "Hat", "Young")


@pytest.fixture
def latents():
    torch.manual_seed(0)
    return Latents(torch.randn(4, 8), torch.randn(4, 3, 2), torch.randint(2, (4, 3)).float(), NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2,), (4, 2)])
def test_replace_touches_one_subspace_and_nothing_else(latents, name, shape):
    value, before, i = torch.randn(shape), latents.w.clone(), NAMES.index(name)
    replaced = latents.replace(name, value)
    rest = [j for j in range(3) if j != i]
    assert torch.equal(replaced.w[:, i], value.expand(4, 2))
    assert torch.equal(replaced.w[:, rest], before[:, rest])
    assert torch.equal(replaced.z, latents.z)
    assert torch.equal(latents.w, before)


@pytest.mark.parametrize("shape", [(3,), (1, 2), (3, 2), (4, 3), ()])
def test_a_value_of_another_shape_is_refused(latents, shape):
    with pytest.raises(ValueError, match=r"^value for 'Hat': expected shape \(2,\) or \(4, 2\), got \("):
        latents.replace("Hat", torch.zeros(shape))


def test_an_unknown_attribute_is_answered_with_the_nearest(latents):
    text = r"^unknown attribute 'smilng': did you mean 'Smiling'\? This model knows: Smiling, Hat, Young$"
    with pytest.raises(UnknownAttributeError, match=text):
        latents.replace("smilng", torch.zeros(2))


@pytest.mark.parametrize(
    ("index", "rows"), [(0, [0]), (-1, [3]), (slice(1, 3), [1, 2]), (torch.tensor([3, 0]), [3, 0])]
)
def test_a_part_of_the_batch_is_a_batch(latents, index, rows):
    part = latents[index]
    assert len(part) == len(rows)
    for name in ("z", "w", "y"):
        assert torch.equal(getattr(part, name), getattr(latents, name)[rows])


def test_a_batch_is_gone_through_once_and_joined_again(latents):
    parts = list(latents)
    assert [len(part) for part in parts] == [1] * 4
    joined = Latents.cat(parts)
    assert torch.equal(joined.z, latents.z)
    assert torch.equal(joined.w, latents.w)
    assert joined.attributes == NAMES


@pytest.mark.parametrize("index", [4, -5])
def test_there_is_no_image_beyond_the_last(latents, index):
    with pytest.raises(IndexError, match=f"latents of 4 images have no index {index}"):
        latents[index]


def test_latents_are_frozen(latents):
    with pytest.raises(FrozenInstanceError):
        latents.z = torch.zeros(4, 8)
    assert latents.to("cpu").attributes == NAMES
