"""Models that edit halved pictures faultlessly, and untrained ones."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import SyntheticFaces
from csvae_hub.data.base import AttributeData
from csvae_hub.models import Latents, create_model

NAMES = ("Left", "Right")


def member(name: str, attributes=NAMES, seed: int = 0):
    """An untrained model of the family for 16×16 pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = ModelConfig(
            tuple(attributes), name, shape=(3, 16, 16), z_dim=4, backbone=BackboneConfig(width=4, features=8)
        )
        return create_model(config).eval()


class Faultless(nn.Module):
    """Keeps the picture as z and edits the half that is meant; `spill` edits the other half too, `deaf` neither."""

    def __init__(self, attributes=NAMES, spill=False, deaf=False):
        super().__init__()
        self.attributes, self.spill, self.deaf = tuple(attributes), spill, deaf
        self.config = SimpleNamespace(
            is_image=True, shape=(3, 16, 16), model="csvae", attributes=self.attributes, groups=()
        )
        self.device = torch.device("cpu")

    def encode(self, x, y=None):
        w = torch.stack([x[..., :8].mean((1, 2, 3)), x[..., 8:].mean((1, 2, 3))], 1)
        w = w[:, torch.arange(len(self.attributes)) % 2, None]
        return Latents(x, w, (w[..., 0] > 0.5).float(), self.attributes)

    def decode(self, latents):
        return latents.z

    def edit(self, latents, values, *, generator=None):
        z = latents.z.clone()
        for name, value in values.items():
            columns = slice(0, 8) if name == "Left" else slice(8, 16)
            if not self.deaf:
                z[..., slice(0, 16) if self.spill else columns] = 190 / 255 if value else 60 / 255
        return replace(latents, z=z)


class Oracle(Faultless):
    """Looks the truth up in drawn data: z is the row, the edited attribute, its value and the row of its kind.

    Without `kinds` it knows one kind only, as a model without subspaces does.
    """

    def __init__(self, data: AttributeData, kinds=True):
        super().__init__(data.attributes)
        self.data, self.kinds, self.config.shape = data, kinds, data.shape
        self.rows = {x.numpy().tobytes(): row for row, (x, _) in enumerate(data)}

    def encode(self, x, y=None):
        rows = torch.tensor([self.rows[picture.numpy().tobytes()] for picture in x])
        z = torch.stack([rows, torch.full_like(rows, -1), torch.zeros_like(rows), rows], 1)
        return Latents(z, torch.zeros(len(x), len(self.attributes), 2), self.data.batch(rows)[1], self.attributes)

    def edit(self, latents, values, *, generator=None):
        ((name, value),) = values.items()
        z = latents.z.clone()
        z[:, 1], z[:, 2] = self.attributes.index(name), 1 if value == "sample" or isinstance(value, Latents) else value
        if isinstance(value, Latents):
            z[:, 3] = value.z[:, 0]
        if value == "sample":
            z[:, 3] = torch.randint(len(self.data), (len(z),), generator=generator)
        if not self.kinds:
            z[:, 3] = 0
        return replace(latents, z=z)

    def decode(self, latents):
        rows, attribute, value, kinds = latents.z.T
        if attribute[0] < 0:
            return self.data.batch(rows)[0]
        return self.data.counterfactual(rows, self.attributes[attribute[0]], bool(value[0]), kinds=kinds)


@pytest.fixture(scope="session")
def make_member():
    return member


@pytest.fixture(scope="session")
def faultless():
    return Faultless


@pytest.fixture(scope="session")
def oracle():
    return Oracle


@pytest.fixture(scope="session")
def faces():
    """Drawn faces, whose counterfactuals are known."""
    return SyntheticFaces(60, seed=1, image_size=16)
