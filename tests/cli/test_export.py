"""`csvae export`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import sys

import pytest

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.export import parity
from csvae_hub.models import create_model


@pytest.fixture
def vectors(tmp_path):
    """The weights folder of a model of vectors."""
    backbone = BackboneConfig("mlp", width=4, depth=1, features=8)
    create_model(ModelConfig(("Hat",), shape=(5,), z_dim=4, backbone=backbone)).save_pretrained(tmp_path / "vectors")
    return tmp_path / "vectors"


def test_the_files_and_the_largest_difference_are_told(run, weights, tmp_path):
    shown = run("export", weights, "-o", tmp_path / "new" / "deep").stdout.splitlines()
    names = [line.split("  ")[0].rpartition("/")[2] for line in shown[:-1]]
    assert names == ["encoder.onnx", "decoder.onnx", "edit.onnx", "onnx.json"]
    assert sorted(path.name for path in (tmp_path / "new" / "deep").iterdir()) == sorted(names)
    assert shown[-1].startswith(f"largest difference from {weights}: ")
    assert shown[-1].endswith("of at most 1/255 = 0.004")
    assert float(shown[-1].split(": ")[1].split(",")[0]) < 1e-4


def test_programs_of_torch_and_json(run, weights, tmp_path):
    done = json.loads(run("export", weights, "-o", tmp_path, "--format", "torch", "--json").stdout)
    assert [path.rpartition("/")[2] for path in done["files"]] == [
        "encoder.pt2",
        "decoder.pt2",
        "edit.pt2",
        "torch.json",
    ]
    assert set(done["differences"]) == {"encoder", "decoder", "edit"}


def test_wrong_use_is_answered_with_2(run, weights, vectors, tmp_path):
    assert "'onx' is not one of 'onnx', 'torch'" in run("export", weights, "-o", "x", "--format", "onx", code=2).output
    assert "unknown model 'celeba-65'" in run("export", "celeba-65", "-o", tmp_path / "x", code=2).output
    assert "models of vectors aren't exported" in run("export", vectors, "-o", tmp_path / "x", code=2).output
    (tmp_path / "file").touch()
    assert "is a file" in run("export", weights, "-o", tmp_path / "file", code=2).output
    assert not (tmp_path / "x").exists()


def test_a_failure_is_one_line_and_1_and_writes_nothing(run, weights, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "onnxscript", None)
        shown = run("export", weights, "-o", tmp_path / "x", code=1).output
        assert shown == "Error: onnxscript is missing: pip install 'csvae-hub[export]'\n"
    monkeypatch.setattr(parity, "LIMIT", -1.0)
    shown = run("export", weights, "-o", tmp_path / "x", "--format", "torch", code=1).output
    assert "Error: encoder: expected outputs within 1/255 of the model's own, got a difference of" in shown
    assert not (tmp_path / "x").exists()


def test_a_card_that_can_t_be_read_is_named(run, make_model, tmp_path):
    folder = make_model("cond-vae")
    (folder / "README.md").write_text("---\nlicense: [\n---\n", encoding="utf-8")
    assert "expected front matter of YAML" in run("export", folder, "-o", tmp_path / "x", code=1).output
