"""What the tests of this folder share: a Hub on this machine, a model, a repo that holds it.

A plugin of the pytest that tests/hub/test_client.py starts, in a process of its own: huggingface_hub reads HF_ENDPOINT
when it is imported.
"""

from __future__ import annotations

import os
import tempfile
import time

import pytest
from hub_server import HubServer, Repo

SERVER = HubServer()
HOME = tempfile.TemporaryDirectory()
os.environ.update(
    HF_ENDPOINT=SERVER.url,
    HF_HOME=HOME.name,
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_ETAG_TIMEOUT="60",
    HF_HUB_DOWNLOAD_TIMEOUT="60",
)
for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(name, None)

import torch  # noqa: E402

from csvae_hub.config import BackboneConfig, ModelConfig  # noqa: E402
from csvae_hub.models import CSVAE, AttributeModel, create_model  # noqa: E402

ALICE = "hf_alice"
REQUIRED = ("config.json", "model.safetensors", "preprocessor.json")
EVALUATION = {"reconstruction": {"mse": 0.5, "psnr": 3.0, "ssim": 0.1}, "data": {"test": {"count": 7}}}


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses between tries; none is made."""
    asked_for = []
    monkeypatch.setattr(time, "sleep", asked_for.append)
    return asked_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A weights folder as training and evaluation leave it."""
    torch.manual_seed(0)
    backbone = BackboneConfig(width=4, features=16)
    model = create_model(ModelConfig(attributes=("Hat", "Smiling"), shape=(3, 16, 16), z_dim=4, backbone=backbone))
    folder = tmp_path_factory.mktemp("weights") / "model"
    extra = {"training.json": {"trainer": {"epochs": 3}}, "evaluation.json": EVALUATION}
    model.save_pretrained(folder, dtype=torch.float16, extra=extra)
    (folder / "samples.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture
def model(folder):
    return CSVAE.from_pretrained(folder, device="cpu")


@pytest.fixture
def repo(folder, request):
    """The id of a public repo that holds the folder, new for each test."""
    name = f"alice/{request.node.name.partition('[')[0]}"[:80]
    SERVER.repos[name] = Repo("alice")
    files = {path.name: (path.read_bytes(), path.suffix == ".safetensors") for path in folder.iterdir()}
    SERVER.repos[name].commit("main", {**files, "modeling.py": (b"raise SystemExit", False)}, "by hand")
    return name


def files(name, branch="main"):
    repo = SERVER.repos[name]
    return {path: content for path, (content, _) in repo.commits[repo.branches[branch]].items()}


def load(name, **options):
    return AttributeModel.from_pretrained(name, device="cpu", **options)


def same(a, b):
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return torch.equal(a.set_attribute(x, "Hat"), b.set_attribute(x, "Hat"))
