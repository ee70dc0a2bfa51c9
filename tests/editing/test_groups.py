"""Photos and the page's sessions with attributes that exclude one another."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub import FaceEditor
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.demo import Session
from csvae_hub.editing import Face
from csvae_hub.images import CELEBA_LANDMARKS
from csvae_hub.models import create_model

POINTS = np.array(CELEBA_LANDMARKS) + (20, 0)


class Finder:
    """Finds one face at a fixed place."""

    def detect(self, image):
        return [Face((*POINTS.min(0), *POINTS.max(0)), POINTS, 0.9)]


def build():
    torch.manual_seed(0)
    backbone = BackboneConfig(width=4, features=16)
    names, group = ("Smiling", "Hat", "Young", "Old"), ("Smiling", "Young", "Old")
    model = create_model(ModelConfig(names, shape=(3, 16, 16), z_dim=8, backbone=backbone, exclusive=(group,)))
    with torch.no_grad():
        for parameter in (*model.parameters(), model.class_means):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def noise():
    values = np.random.default_rng(3).integers(0, 256, (240, 220, 3), dtype=np.uint8)
    return Image.fromarray(values)


def packed(image):
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_a_group_is_set_as_one_and_left_as_it_is_where_all_that_is_asked_is_so():
    model = build()
    editor = FaceEditor(model, Finder())
    y = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]]).repeat(2, 1)  # smiling, young, old
    latents = model.encode(torch.rand(6, 3, 16, 16), y)
    found = editor.edit_latents(latents, {"Smiling": True})
    expected = model.edit(latents, {"Smiling": True})
    assert torch.equal(found.w[::3], latents.w[::3])  # they smile already
    assert torch.equal(found.w[y[:, 0] == 0], expected.w[y[:, 0] == 0])
    swapped = editor.edit_latents(latents, {"Smiling": False, "Young": True})
    assert torch.equal(swapped.w[1::3], latents.w[1::3])
    changed = y[:, 2] == 0  # of the old, who don't smile, a part of the wish is so already
    assert torch.equal(swapped.w[changed], model.edit(latents, {"Smiling": False, "Young": True}).w[changed])
    assert not torch.equal(swapped.w[2], latents.w[2])
    with pytest.raises(ValueError, match="choose one"):
        editor.edit(noise(), {"Smiling": True, "Young": True})


def test_a_member_of_a_group_is_chosen_and_ends_the_others():
    model = build()
    here = Session(FaceEditor(model, Finder()), packed(noise()))
    (group,) = model.config.exclusive
    seen = here.member(group)
    other = next(name for name in group if name != seen)
    here.move("Hat", 1.3)
    here.become(other)
    assert here.member(group) == other
    assert here.shown == other
    expected = model.edit(here._own(), {"Hat": 1.3, other: True})
    assert torch.equal(here._present().w, expected.w)
    assert here.level(seen) == pytest.approx(0, abs=0.01)
    assert here.level(other) == pytest.approx(1, abs=0.01)
    here.become(seen)
    assert torch.equal(here._present().w, model.edit(here._own(), {"Hat": 1.3, seen: True}).w)
    here.plane()
    here.pick(10, 10)
    assert not torch.equal(here._present().w[0, 0], model.class_means[0, 1])
    here.reset()
    assert here.member(group) == seen
