from __future__ import annotations

import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from csvae_hub.backbones import create_backbone, registry
from csvae_hub.config import BackboneConfig

ROOT = Path(__file__).resolve().parents[1]
EQUATIONS = (ROOT / "docs/equations.md").read_text(encoding="utf-8")


def test_docs_build_without_warnings(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
    assert (tmp_path / "site/equations/index.html").is_file()
    assert "negative_entropy" in (tmp_path / "site/api/losses/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(csvae_hub(?:\.\w+)+)`", EQUATIONS))))
def test_functions_named_beside_the_equations_exist(name):
    module, _, function = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:  # a method: the class is one step up
        module, _, cls = module.rpartition(".")
        found = getattr(importlib.import_module(module), cls)
    assert callable(getattr(found, function))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", EQUATIONS))))
def test_tests_named_beside_the_equations_exist(name):
    path, _, function = name.partition("::")
    assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")


def test_contributing_shows_a_backbone_that_works(monkeypatch):
    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(textwrap.dedent(example), "CONTRIBUTING.md", "exec"), {"__name__": "example"})
    config = BackboneConfig(name="patches", width=4, features=8)
    backbone = create_backbone(config, (3, 16, 16), z_dim=5, condition_dim=4)
    x = torch.rand(2, 3, 16, 16)
    assert backbone.encode(x).shape == (2, 8)
    assert backbone.decode(torch.zeros(2, 5), torch.zeros(2, 4)).shape == x.shape


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 150
