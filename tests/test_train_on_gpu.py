"""The script that trains within minutes of a GPU, on the CPU and for a moment."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from csvae_hub import CSVAE
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.training.parts import critic

ATTRIBUTES = ("Bangs", "Male")
UNPACK = """
import numpy as np
def read_pack(path):
    z = np.load(path)
    return z["pictures"], z["number"], z["splits"], z["labels"], ["Male", "Bangs"]
"""


@pytest.fixture
def pack(tmp_path):
    """40 pictures of 16 pixels and the script that reads them."""
    rng = np.random.default_rng(0)
    (tmp_path / "unpack.py").write_text(UNPACK)
    splits = np.array(["train"] * 32 + ["valid"] * 8)
    pictures, labels = rng.integers(0, 256, (40, 16, 16, 3), np.uint8), rng.integers(0, 2, (40, 2))
    np.savez(tmp_path / "pack.npz", pictures=pictures, number=np.arange(40), splits=splits, labels=labels)
    return tmp_path / "pack.npz"


@pytest.fixture
def initial(tmp_path):
    """Weights to go on from."""
    torch.manual_seed(0)
    config = ModelConfig(ATTRIBUTES, shape=(3, 16, 16), z_dim=4, backbone=BackboneConfig(width=4, features=16))
    folder = tmp_path / "initial"
    CSVAE(config).save_pretrained(folder)
    return folder


@pytest.fixture
def run(script, pack, tmp_path, monkeypatch):
    """Runs the script with further arguments and gives the weights that it leaves."""
    for name in ("RISE", "READS"):
        monkeypatch.setattr(critic, name, getattr(critic, name))  # the script changes them
    precision, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark

    def start(*arguments):
        out = tmp_path / "out"
        sizes = [
            "model.z_dim=4",
            "model.shape=[3,16,16]",
            'model.attributes=["Bangs","Male"]',
            "model.correction=false",
        ]
        sizes += ['model.backbone={name="conv",width=4,features=16}', "model.residual=false", "trainer.batch_size=8"]
        sizes += ["trainer.epochs=5", "trainer.ema_decay=0.5", "parts.rest.epochs=1"]
        given = ["--pack", str(pack), "--out", str(out), "--recipe", "celeba-64", "--minutes", "1", "--no-compile"]
        monkeypatch.setattr(sys, "argv", ["train_on_gpu.py", *given, *arguments, "--set", *sizes])
        script("train_on_gpu").main()
        return out / "weights"

    yield start
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = benchmark


def test_the_decoder_alone_learns_with_a_critic_of_other_constants(run, initial, tmp_path):
    weights = run("--initial", str(initial), "--decoder", "--critic", "RISE=2", "READS=2.5", "--balance", "Male")
    before, after = (CSVAE.from_pretrained(folder, device="cpu").state_dict() for folder in (initial, weights))
    moved = {name for name, value in before.items() if not torch.allclose(value, after[name], rtol=1e-2, atol=1e-3)}
    assert any(name.startswith("backbone.up") for name in moved)
    assert not any(
        name.startswith(("q_z", "q_y", "q_w", "p_w", "backbone.down", "backbone.features")) for name in moved
    )
    record = json.loads((weights / "training.json").read_text())
    assert record["decoder"] is True
    assert record["critic_constants"] == {"RISE": 2, "READS": 2.5}
    assert record["balance"] == ["Male"]
    assert record["batches"] == 20
    assert (tmp_path / "out-parts.safetensors").is_file()


def test_a_decoder_alone_needs_weights(run, capsys):
    with pytest.raises(SystemExit):
        run("--decoder")
    assert "--initial" in capsys.readouterr().err
