"""Pictures whose attributes are their halves' brightness, classifiers of them, and the scripts of benchmarks/."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from csvae_hub.classifier import ARCHITECTURES, train_classifier
from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation import Judges

NAMES = ("Left", "Right")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def pytest_collection_modifyitems(items):
    """Leaves out the tests of exports where torch is too old for them."""
    for item in items if torch.__version__ < "2.10" else ():
        if "export" in item.nodeid or "browser_page" in item.nodeid:
            item.add_marker(pytest.mark.skip(reason="an export needs torch 2.10"))


@pytest.fixture
def script(monkeypatch):
    """Imports a script of benchmarks/ by its name, where it finds its neighbours."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module


def halves(n: int, seed: int) -> AttributeData:
    """16×16 pictures whose left and right half are dark (absent) or light (present), with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, 2)).astype(np.float32)
    x = np.repeat(60 + 130 * labels[:, None, None, :], 8, axis=3) + rng.normal(0, 8, (n, 3, 16, 16))
    return AttributeData(x.clip(0, 255).astype(np.uint8), labels, NAMES)


@pytest.fixture(scope="session")
def make_halves():
    return halves


@pytest.fixture(scope="session", params=ARCHITECTURES)
def classifier(request):
    return trained(request.param)


@pytest.fixture(scope="session")
def judges():
    return Judges(trained(architecture) for architecture in ARCHITECTURES)


@cache
def trained(architecture):
    return train_classifier(
        halves(512, 0),
        epochs=4,
        architecture=architecture,
        width=4,
        batch_size=32,
        learning_rate=1e-2,
        augment=False,
    )
