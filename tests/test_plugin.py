"""The example plug-in: installed in an environment of its own, trained, saved, loaded, and missed where it isn't."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from csvae_hub.errors import ConfigError
from csvae_hub.models import CSVAE

ROOT = Path(__file__).resolve().parents[1]

RECIPE = """
[model]
attributes = ["Hat"]
shape = [3, 16, 16]
z_dim = 4
adversary = [8, 8]
backbone = { name = "mixer", width = 8, features = 16 }

[trainer]
epochs = 3
batch_size = 4
grid_every_epochs = 0
"""

USE = """
import torch
from safetensors.torch import save_file
from csvae_hub.backbones import list_backbones
from csvae_hub.cli import main
from csvae_hub.models import CSVAE

assert "mixer" in list_backbones()
main(["train", "--recipe", "recipe.toml", "--data", "data", "-o", "run"], standalone_mode=False)
model = CSVAE.from_pretrained("run/model", device="cpu")
x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
save_file({"x": x, "edited": model.set_attribute(x, "Hat", True).contiguous()}, "edited.safetensors")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh environment with the plug-in, which sees this one's packages: nothing is fetched."""
    folder = tmp_path_factory.mktemp("plugin")
    venv.create(folder / "env", symlinks=os.name != "nt")
    python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    running = {ROOT, *(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))}
    (packages / "running.pth").write_text("".join(f"{path}\n" for path in sorted(running)), encoding="utf-8")
    shutil.copytree(ROOT / "examples/plugin", folder / "source", ignore=shutil.ignore_patterns("__pycache__", "*-info"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    run([python, "-m", "pip", "install", *options, folder / "source"], folder)
    return python


@pytest.fixture(scope="module")
def work(python, tmp_path_factory):
    """A folder where the plug-in has trained a model by the command line and edited pictures with it."""
    work = tmp_path_factory.mktemp("work")
    (work / "recipe.toml").write_text(RECIPE)
    (work / "data/images").mkdir(parents=True)
    rows = ["file,Hat"]
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    for i in range(8):
        Image.fromarray(pixels[i]).save(work / f"data/images/{i}.png")
        rows.append(f"{i}.png,{i % 2}")
    (work / "data/attributes.csv").write_text("\n".join(rows) + "\n")
    run([python, "-c", USE], work)
    return work


def run(command, folder):
    environment = {**os.environ, "CSVAE_HUB_CACHE": str(folder / "cache"), "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("page", "quoted"),
    [("CONTRIBUTING.md", {"csvae_mixer.py"}), ("docs/backbones.md", {"pyproject.toml"})],
)
def test_what_the_docs_quote_of_it_is_what_it_says(page, quoted):
    sources = {
        path.name: path.read_text(encoding="utf-8") for path in (ROOT / "examples/plugin").iterdir() if path.is_file()
    }
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", text.partition("## As a package")[2] or text, re.DOTALL)
    found = {name for block in blocks for name, source in sources.items() if block in source}
    assert found == quoted
    if "csvae_mixer.py" in quoted:
        assert sources["csvae_mixer.py"] in blocks


def test_its_own_test_passes(python, tmp_path):
    shutil.copy(ROOT / "examples/plugin/test_csvae_mixer.py", tmp_path)
    run([python, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_csvae_mixer.py"], tmp_path)


def test_it_is_trained_saved_and_loaded_by_the_name_of_its_package(work):
    tensors = load_file(work / "edited.safetensors")
    assert tensors["edited"].shape == tensors["x"].shape
    assert '"package": "csvae-mixer"' in (work / "run/model/config.json").read_text()


def test_without_it_the_error_says_what_to_install(work):
    with pytest.raises(ConfigError) as caught:
        CSVAE.from_pretrained(work / "run/model")
    assert str(caught.value) == (
        "backbone 'mixer' comes with the package 'csvae-mixer', which is not installed here."
        " If you trust it: pip install csvae-mixer"
    )


def test_its_weights_edit_the_same_in_a_process_that_has_its_class(work, monkeypatch):
    from csvae_hub.backbones import register_backbone, registry

    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))
    monkeypatch.syspath_prepend(str(ROOT / "examples/plugin"))
    from csvae_mixer import MixerBackbone

    register_backbone("mixer")(MixerBackbone)
    tensors = load_file(work / "edited.safetensors")
    edited = CSVAE.from_pretrained(work / "run/model", device="cpu").set_attribute(tensors["x"], "Hat", True)
    torch.testing.assert_close(edited, tensors["edited"])
