"""Pictures whose attributes are their halves' brightness, a model that edits them faultlessly, and a judge."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation.classifier import train_classifier
from csvae_hub.models import Latents

NAMES = ("Left", "Right")


def halves(n: int, seed: int) -> AttributeData:
    """16×16 pictures whose left and right half are dark (absent) or light (present), with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, 2)).astype(np.float32)
    x = np.repeat(60 + 130 * labels[:, None, None, :], 8, axis=3) + rng.normal(0, 8, (n, 3, 16, 16))
    return AttributeData(x.clip(0, 255).astype(np.uint8), labels, NAMES)


class Faultless(nn.Module):
    """Keeps the picture as z and edits the half that is meant; `spill` edits the other half too, `deaf` neither."""

    def __init__(self, attributes=NAMES, spill=False, deaf=False):
        super().__init__()
        self.attributes, self.spill, self.deaf = tuple(attributes), spill, deaf
        self.config = SimpleNamespace(is_image=True, shape=(3, 16, 16), model="csvae", attributes=self.attributes)
        self.device = torch.device("cpu")

    def encode(self, x, y=None):
        w = torch.stack([x[..., :8].mean((1, 2, 3)), x[..., 8:].mean((1, 2, 3))], 1)[:, : len(self.attributes), None]
        return Latents(x, w, (w[..., 0] > 0.5).float(), self.attributes)

    def decode(self, latents):
        return latents.z

    def edit(self, latents, values):
        z = latents.z.clone()
        for name, value in values.items():
            columns = slice(0, 8) if name == "Left" else slice(8, 16)
            if not self.deaf:
                z[..., slice(0, 16) if self.spill else columns] = 190 / 255 if value else 60 / 255
        return replace(latents, z=z)


@pytest.fixture(scope="session")
def make_halves():
    return halves


@pytest.fixture(scope="session")
def faultless():
    return Faultless


@pytest.fixture(scope="session")
def judge():
    return train_classifier(halves(512, 0), epochs=4, width=4, batch_size=32, learning_rate=1e-2, augment=False)
