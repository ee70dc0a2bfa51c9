"""torch.hub finds the models in a folder of this repository, installed or not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from csvae_hub import CSVAE, hub

ROOT = Path(__file__).resolve().parents[1]

# Without the checkout on sys.path nothing but torch.hub can find csvae_hub.
LOAD = """
import json, sys
root = sys.argv[1]
sys.path = [path for path in sys.path if path and path != root]
import torch
model = torch.hub.load(root, "csvae", source="local", device="cpu")
print(json.dumps([sys.modules["csvae_hub"].__file__, model.attributes, model.training]))
"""


def test_the_pretrained_model_comes_from_the_folder_alone(tmp_path):
    command = [sys.executable, "-W", "error", "-c", LOAD, str(ROOT)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    file, attributes, training = json.loads(run.stdout)
    assert Path(file) == ROOT / "csvae_hub/__init__.py"
    assert attributes == hub.read_json(ROOT / "csvae_hub/weights/celeba-64/config.json")["attributes"]
    assert training is False


def test_a_folder_a_type_and_a_device_may_be_named():
    folder = ROOT / "tests/data/format-1/csvae"
    model = torch.hub.load(str(ROOT), "csvae", source="local", name=folder, device="cpu", dtype="float64")
    expected = CSVAE.from_pretrained(folder, device="cpu", dtype="float64").state_dict()
    assert model.dtype == torch.float64
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_its_names_and_dependencies_are_what_torch_hub_looks_for():
    spec = importlib.util.spec_from_file_location("csvae_hubconf", ROOT / "hubconf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [name for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")] == ["csvae"]
    assert module.csvae.__doc__
    requirements = importlib.metadata.requires("csvae-hub") or []
    declared = {re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line}
    names = {"PIL": "pillow", "typing_extensions": "typing-extensions"}
    assert {names.get(name, name) for name in module.dependencies} <= declared
