"""Tiny models under an objective, with the parts that a test names; everything trains on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data.base import AttributeData
from csvae_hub.models import create_model
from csvae_hub.training.recipes import find_part
from csvae_hub.training.steps import Objective, ObjectiveConfig

NAMES = ("Smiling", "Hat", "Young")
EVERY_PART = {
    "balanced": {},
    "critic": {},
    "eraser": {},
    "stronger_adversary": {"steps": 2, "memory": 3},
}
"""The options of all parts that act from the first batch."""
KINDS = {
    "images": {"shape": (3, 16, 16), "backbone": BackboneConfig(width=4, features=16, film=True)},
    "vectors": {"shape": (5,), "backbone": BackboneConfig(name="mlp", width=8, features=16)},
}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setattr("csvae_hub.erasure.STEPS", 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # runs in subprocesses have one: the bits are to be the same
    yield
    torch.set_num_threads(threads)


def _data(n=40, shape=(3, 16, 16)):
    """Noise that the first attribute makes brighter, with one label missing."""
    random = np.random.default_rng(0)
    labels = (random.random((n, 3)) < (0.5, 0.2, 0.7)).astype(np.float32)
    images = random.random((n, *shape)) * 0.4 + 0.4 * labels[:, 0].reshape(-1, *[1] * len(shape))
    labels[3, 1] = np.nan
    return AttributeData(
        (255 * images).astype(np.uint8) if len(shape) == 3 else images.astype(np.float32), labels, NAMES
    )


def _build(kind="csvae", parts=None, data="images", weights=None, without=(), reads=True, **model):
    """An objective over a model whose zeros have been shaken; `parts` holds options by a part's name, or is "every".

    With `reads` a critic has learned to read already.
    """
    if parts == "every":
        parts = {name: options for name, options in EVERY_PART.items() if name not in without}
    torch.manual_seed(0)
    config = ModelConfig(**{"attributes": NAMES, "model": kind, "z_dim": 8, "adversary": (8,), **KINDS[data], **model})
    built = create_model(config)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    chosen = [(find_part(name), find_part(name).Options(**options)) for name, options in (parts or {}).items()]
    objective = Objective(built, ObjectiveConfig(**(weights or {})), chosen, _data(shape=config.shape))
    for name, buffer in objective.parts.named_buffers():
        if name.endswith(".reading") and reads:
            buffer.zero_()
    return objective


def _batch(objective, n=12, missing=0.2):
    x, y = torch.rand(n, *objective.model.config.shape), torch.randint(2, (n, 3)).float()
    return x, y.masked_fill(torch.rand(n, 3) < missing, torch.nan)


def _state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def _changed(before, module):
    """The names of the parameters and buffers that are no longer what they were."""
    after = module.state_dict()
    assert before.keys() == after.keys()
    return {
        name
        for name, value in after.items()
        if value.shape != before[name].shape
        or value.contiguous().numpy().tobytes() != before[name].contiguous().numpy().tobytes()
    }


def _trained(objective):
    """The names of the parameters of model and parts that a backward pass reached."""
    return {name for name, p in objective.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.fixture
def build():
    """Builds an objective."""
    return _build


@pytest.fixture
def batch():
    """Draws images and attributes, some of them missing, for an objective."""
    return _batch


@pytest.fixture
def data():
    """The training data."""
    return _data


@pytest.fixture
def state():
    """Copies a module's state."""
    return _state


@pytest.fixture
def changed():
    """Compares a module with a copy of its state, to the bit."""
    return _changed


@pytest.fixture
def trained():
    """Names the parameters that have a gradient."""
    return _trained
