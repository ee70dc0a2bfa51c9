from __future__ import annotations

import numpy as np
import torch

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.data import SyntheticFaces
from csvae_hub.editing import FaceEditor
from csvae_hub.editing.aligned import put_back
from csvae_hub.models import create_model

FACES = SyntheticFaces(3, seed=1, image_size=32)


def model_of():
    """A tiny model whose edits are strong enough to see."""
    torch.manual_seed(0)
    backbone = BackboneConfig(width=4, features=8)
    model = create_model(ModelConfig(FACES.attributes, shape=(3, 32, 32), z_dim=4, backbone=backbone))
    with torch.no_grad():
        for parameter in (*model.parameters(), model.class_means):
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.q_y[-1].bias -= 20  # no face has an attribute already
    return model.eval()


def test_without_values_the_pictures_are_enlarged():
    images = FACES.batch(range(3))[0]
    photos = put_back(model_of(), 256)(images, {})
    assert photos.shape == (3, 3, 256, 256)
    back = torch.nn.functional.interpolate(photos, (32, 32), mode="bilinear", antialias=True)
    assert (back - images).abs().mean() < 0.03


def test_photos_are_edited_in_the_frame_of_training(monkeypatch):
    seen = []
    align = FaceEditor.align

    def watched(self, *arguments, **options):
        seen.append(align(self, *arguments, **options))
        return seen[-1]

    monkeypatch.setattr(FaceEditor, "align", watched)
    model, images = model_of(), FACES.batch(range(3))[0]
    edit = put_back(model)
    photos = edit(images, {"Smiling": True})
    crops = torch.cat([aligned.crops for aligned in seen])
    assert (crops - images).abs().mean() < 0.03
    expected = FaceEditor(model).edit(
        [np.array(aligned.picture) for aligned in seen],
        {"Smiling": True},
        landmarks=[aligned.faces[0].landmarks for aligned in seen],
    )
    assert torch.equal(photos, torch.from_numpy(np.stack(expected)).movedim(-1, 1).float() / 255)
    assert not torch.equal(photos, edit(images, {}))
