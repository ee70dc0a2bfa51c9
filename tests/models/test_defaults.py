"""torch's default type and device are the user's own: nothing here depends on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub import FaceEditor
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.demo.plane import Plane, decoded_faces
from csvae_hub.models import AttributeModel, create_model, list_models
from csvae_hub.transforms import RandomSetAttribute

PORTRAIT = Path(__file__).resolve().parents[2] / "examples/astronaut-512.png"


def everything(folder):
    """What a saved model gives, by name."""
    model = AttributeModel.from_pretrained(folder, device="cpu")
    x = torch.from_numpy(np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32))
    drawn = torch.Generator("cpu").manual_seed(1)
    latents = model.encode(x, sample=True, generator=drawn)
    has_subspaces = latents.w.shape[-1] == 2
    given = {
        "z": latents.z,
        "w": latents.w,
        "y": latents.y,
        "True": model.set_attribute(x, "Hat", True),
        "number": model.set_attribute(x, "Hat", np.float32(0.3)),
        "sample": model.set_attribute(x, "Hat", "sample", generator=drawn),
        "from z": model.decode(latents.z, **({"w": latents.w} if has_subspaces else {"y": latents.y})),
        "predicted": model.predict_attributes(x)["Hat"],
        "array": torch.from_numpy(model.reconstruct(np.full((20, 24, 3), 90, dtype=np.uint8))),
        "prior": model.prior_z().mean,
        "forward": model(x, latents.y, drawn).p_x.mean,
        "drawn": model.sample(3, generator=drawn),
    }
    torch.manual_seed(2)
    given["transform"] = RandomSetAttribute(model, "Hat", "random", p=0.7, paste="whole")(x)
    assert model.sample(2).dtype == torch.float32
    if has_subspaces:
        given["coordinates"] = model.set_attribute(x, "Hat", [0.5, -1.0])
        faces = decoded_faces(model, latents[0], "Hat", Plane((0.0, 0.0), 1.0))
        given["plane"] = torch.from_numpy(np.array(faces))
    return given


@pytest.fixture
def defaults():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.parametrize("name", list_models())
def test_loading_editing_and_sampling_do_not_depend_on_them(name, tmp_path, defaults):
    torch.manual_seed(0)
    fields = {"shape": (3, 16, 16), "z_dim": 8, "backbone": BackboneConfig(width=4, features=8)}
    options = {"residual": True, "erase": True} if name == "csvae" else {}
    create_model(ModelConfig(("Smiling", "Hat"), name, **fields, **options)).save_pretrained(tmp_path)
    expected = everything(tmp_path)
    for dtype, device in ((torch.float64, None), (torch.float32, "meta"), (torch.float16, "meta")):
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        for key, tensor in everything(tmp_path).items():
            assert (tensor.dtype, tensor.device.type) == (expected[key].dtype, "cpu"), key
            assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("paste", ["changed", "difference", "whole"])
def test_photos_do_not_depend_on_them(paste, defaults):
    with Image.open(PORTRAIT) as opened:
        photo = opened.convert("RGB")
    editor = FaceEditor("celeba-64")
    names = editor.model.attributes
    values = {names[0]: 0.2, names[1]: True}

    def edited():
        editor = FaceEditor("celeba-64")
        return [np.asarray(one) for one in editor.edit([photo, photo.convert("L")], values, paste=paste, face="all")]

    expected = edited()
    for dtype, device in ((torch.float64, None), (torch.float32, "meta")):
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        assert all(map(np.array_equal, edited(), expected))


@pytest.mark.parametrize(("dtype", "device"), [(torch.float64, "cpu"), (torch.float32, "meta")])
def test_groups_do_not_depend_on_them(defaults, dtype, device):
    names, x = ("Happy", "Hat", "Sad"), torch.rand(3, 3, 16, 16)
    backbone = BackboneConfig(width=4, features=8)
    torch.manual_seed(0)
    config = ModelConfig(names, shape=(3, 16, 16), z_dim=8, backbone=backbone, exclusive=(("Happy", "Sad"),))
    model = create_model(config).eval()

    def found():
        torch.manual_seed(1)
        edited = RandomSetAttribute(model, "Happy", "random", p=1.0, paste="whole")(x)
        return [model.set_attribute(x, "Sad", True), model.encode(x).y, model.prior_latents(4, None, None).y, edited]

    before = found()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    for one, other in zip(before, found(), strict=True):
        assert torch.equal(one, other)
