"""Data on the device that trains gives the batches that data on the host gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from csvae_hub.data import AttributeData, on_device
from csvae_hub.data.resident import SHARE, OnDevice
from csvae_hub.training.recipes import load_recipe, prepare

CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("kind", ["pictures", "vectors"])
def test_batches_are_equal_to_the_bit(kind, device, monkeypatch):
    monkeypatch.setattr("csvae_hub.data.resident.AT_ONCE", 30)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (70, 3, 16, 16), np.uint8) if kind == "pictures" else rng.random((70, 5), np.float32)
    labels = rng.integers(0, 2, (70, 2)).astype(np.float32)
    labels[3, 1] = np.nan
    data = AttributeData(x, labels, ("A", "B"))
    held = OnDevice(data, torch.device(device))
    for rows in (torch.randperm(70)[:9], [3, 3, 69], np.arange(70) % 2 == 0):
        for found, expected in zip(held.batch(rows), data.batch(rows), strict=True):
            assert found.device.type == device
            torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0, equal_nan=True)
    pairs = list(zip(held.batches(32, True), data.batches(32, True), strict=True))
    assert len(pairs) == 6
    assert all(torch.equal(found[0].cpu(), expected[0]) for found, expected in pairs)


@pytest.mark.parametrize("recipe", ["paper-faces", "swiss-roll"])
def test_a_run_on_such_data_is_the_same_to_the_bit(recipe, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    found, batches = [], []
    small = {"trainer.epochs": "2", "trainer.batch_size": "16", "data.examples": "40", "trainer.precision": "float32"}
    for held in (False, True):
        if held:
            monkeypatch.setattr("csvae_hub.training.trainer.on_device", OnDevice)
            batch = OnDevice.batch
            monkeypatch.setattr(OnDevice, "batch", lambda self, rows, f=batch: batches.append(1) or f(self, rows))
        trainer = prepare(load_recipe(recipe, small), None, None, quiet=True)
        found.append(trainer.fit().state_dict())
    assert len(batches) == trainer.last_batch + 1  # and all in one at the end
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_data_goes_to_a_gpu_where_it_fits(monkeypatch):
    data = AttributeData(np.zeros((30, 3, 16, 16), np.uint8), np.zeros((30, 1), np.float32), ("A",))
    assert on_device(data, torch.device("cpu")) is data
    monkeypatch.setattr("csvae_hub.data.resident.OnDevice", lambda data, device: "held")
    free = int(data.images.nbytes / SHARE)
    for least, found in ((free + 9, "held"), (free - 9, data)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, least=least: (least, 10 * free))
        assert on_device(data, torch.device("cuda")) is found
