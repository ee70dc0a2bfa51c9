"""What a type checker in strict mode sees of a user's script, and what the things call themselves."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from csvae_hub import CSVAE, FaceEditor, to_images
from csvae_hub.errors import ImageError

SCRIPT = """\
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from csvae_hub import CSVAE, AttributeModel, FaceEditor, Latents, to_images

model = CSVAE.from_pretrained("celeba-64")
model.set_attribute("photo.jpg", "Eyeglasses", True).save("edited.png")
picture: Image.Image = model.edit(Image.new("RGB", (64, 64)), {"Smiling": 0.5, "Male": "sample"})
several: list[Image.Image] = model.edit(["a.jpg", "b.jpg"], {"Smiling": Path("smile.jpg")})
tensor: torch.Tensor = model.set_attribute(torch.rand(2, 3, 64, 64), "Smiling", value=False)
array = model.reconstruct(np.zeros((64, 64, 3), np.uint8))
latents: Latents = model.edit(model.encode("photo.jpg"), {"Smiling": picture})
to_images(model.decode(latents))[0].save("decoded.png")
editor = FaceEditor(model)
editor.set_attribute("photo.jpg", "Smiling", True, face="all").save("photo-edited.jpg")
either: AttributeModel = AttributeModel.from_pretrained("celeba-64")
print(array.shape, tensor.mean(), several, either.attributes)
"""
WRONG = {
    "a number is no picture": 'model.set_attribute(3, "Smiling")',
    "a tensor gives a tensor": 'model.set_attribute(torch.rand(3, 64, 64), "Smiling").save("x.png")',
    "an object is no value": 'model.set_attribute("photo.jpg", "Smiling", object())',
}


def errors_of(script, folder):
    (folder / "script.py").write_text(script, encoding="utf-8")
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "-p", str(folder), "--pythonpath", sys.executable, "--outputjson"]
    run = subprocess.run(command, capture_output=True, text=True)
    return [found["message"] for found in json.loads(run.stdout)["generalDiagnostics"]]


def test_a_user_s_script_passes_in_strict_mode(tmp_path):
    assert errors_of(SCRIPT, tmp_path) == []


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_seen(tmp_path, line):
    assert errors_of(f"{SCRIPT}{line}\n", tmp_path)


def test_things_say_in_a_line_what_they_are():
    model = CSVAE.from_pretrained("celeba-64", device="cpu")
    said = repr(model)
    assert said.startswith("CSVAE(3×64×64, z 128, 10 attributes: Bangs, ")
    assert said.endswith(" M parameters, cpu)")
    assert repr(FaceEditor(model)) == f"FaceEditor({said})"
    latents = repr(model.encode(torch.rand(2, 3, 64, 64)))
    assert latents.startswith("Latents(2: z (2, 128), w (2, 10, 2), Bangs, ")
    assert "\n" not in said + latents


def test_tensors_become_pictures():
    first, second = to_images(torch.stack([torch.zeros(3, 4, 5), torch.full((3, 4, 5), 2.0)]))
    assert isinstance(first, Image.Image)
    assert (first.size, first.mode, first.getextrema()) == ((5, 4), "RGB", ((0, 0),) * 3)
    assert second.getextrema() == ((255, 255),) * 3
    with pytest.raises(ImageError, match=r"expected pictures \(B, C, H, W\), got shape \(3, 4, 5\)"):
        to_images(torch.zeros(3, 4, 5))
