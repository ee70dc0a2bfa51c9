"""Grey models and colour photos: the luminance changes, the colours stay those of the photo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub import FaceEditor
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.editing.alignment import fit
from csvae_hub.editing.blending import TINT, layer
from csvae_hub.images import CELEBA_LANDMARKS, Preprocessor, with_channels
from csvae_hub.models import create_model
from csvae_hub.transforms import RandomSetAttribute

FRAME = np.array(CELEBA_LANDMARKS)
S = 48
CLOSE = ((62.5, 92.0), (115.5, 92.0), (89.0, 122.5), (67.4, 148.3), (110.6, 148.3))
"""The landmarks of a set whose pictures show less around the face than CelebA's."""


@pytest.fixture(scope="module")
def model():
    """A tiny grey model whose edits are strong enough to see, and whose pictures show the face alone."""
    torch.manual_seed(0)
    config = ModelConfig(("Happy", "Sad"), shape=(1, S, S), z_dim=8, backbone=BackboneConfig(width=4, features=16))
    model = create_model(config)
    with torch.no_grad():
        for parameter in (*model.parameters(), model.class_means):
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.backbone.pixels.weight.mul_(0.01)  # neither black nor white
        model.backbone.pixels.bias.zero_()
    model.preprocessor = Preprocessor(size=S, landmarks=CLOSE)
    return model.eval()


def photo(mode="RGB"):
    """Smooth colours of middle brightness, in which nothing is cut off."""
    small = np.random.default_rng(3).integers(90, 166, (5, 5, len(mode)), dtype=np.uint8)
    bands = small[..., 0] if len(mode) == 1 else small
    return Image.fromarray(bands).resize((200, 220), Image.Resampling.BICUBIC)


def luminance(picture):
    return with_channels(torch.from_numpy(np.array(picture)).movedim(-1, 0)[None, :3].double(), 1)[0, 0].numpy()


def tints(picture):
    return np.asarray(picture, dtype=float)[..., :3] - luminance(picture)[..., None]


def smooth(channels, seed, low=0.3, high=0.7):
    values = torch.rand(1, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * torch.nn.functional.interpolate(values, (S, S), mode="bilinear")[0]


def edited_in(own, by=0.2):
    edited = own.clone()
    edited[:, 16:26, 18:30] += by
    return edited


def test_a_grey_difference_is_alike_in_all_colours():
    own, crop = smooth(1, 0), smooth(3, 1)
    found = layer(edited_in(own), own, crop, "difference")
    assert found[:3].numpy() == pytest.approx((edited_in(own) - own).expand(3, -1, -1).numpy(), abs=1e-6)
    assert not found[3].any()


@pytest.mark.parametrize("paste", ["whole", "changed"])
def test_a_grey_face_takes_its_colours_from_the_photo(paste):
    own, cast = smooth(1, 0), torch.tensor([0.1, -0.05, 0.02])[:, None, None]
    edited, crop = edited_in(own), own + cast
    colour, opacity = layer(edited, own, crop, paste).split([3, 1])
    after = (crop * (1 - opacity) + colour)[:, 19:23, 22:27]
    assert opacity[:, 19:23, 22:27].min() > 0.99
    tint = cast - with_channels(cast[None], 1)[0]
    expected = edited + (tint if paste == "whole" else cast)  # "changed" matches the brightness as well
    assert after.numpy() == pytest.approx(expected[:, 19:23, 22:27].numpy(), abs=5e-3)


def test_fine_detail_of_the_colours_fades_where_the_face_is_drawn():
    own = smooth(1, 0)
    stripes = torch.where(torch.arange(S) % 2 == 0, 0.1, -0.1) * torch.tensor([1.0, 0, 0])[:, None, None]
    colour, opacity = layer(edited_in(own), own, own + stripes, "changed").split([3, 1])
    after = (own + stripes) * (1 - opacity) + colour
    red = after[0] - after[1]
    assert red[19:23, 22:27].diff(dim=1).abs().max() < 0.01
    assert red[:8].diff(dim=1).abs().min() > 0.15
    assert TINT * S == 3


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_grey_photo_and_the_same_in_rgb_come_out_alike(model, mode):
    found = []
    for one in (photo("L"), photo("L").convert("RGB")):
        edited = FaceEditor(model).edit(one, {"Happy": 1.5}, landmarks=FRAME, paste="changed")
        assert edited.mode == one.mode
        found.append(np.asarray(edited.convert("RGB"), dtype=int))
    assert np.abs(found[0] - found[1]).max() <= 1
    assert np.abs(found[0][..., 0] - found[0][..., 2]).max() == 0


@pytest.mark.parametrize("paste", ["difference", "changed", "whole"])
def test_a_colour_photo_keeps_its_colours(model, paste):
    before = photo()
    edited = FaceEditor(model).edit(before, {"Happy": 0.6}, landmarks=FRAME, paste=paste)
    apart = np.abs(luminance(edited) - luminance(before)).max()
    assert apart > 10
    kept = (np.asarray(edited) > 0).all(-1) & (np.asarray(edited) < 255).all(-1)
    assert kept.mean() > 0.9
    change = np.abs(tints(edited) - tints(before))[kept]
    assert change.max() <= (1.01 if paste == "difference" else 0.4 * apart)
    assert change.mean() < 3


@pytest.mark.parametrize("paste", ["difference", "changed", "whole"])
def test_a_transform_keeps_the_colours_of_what_it_edits(model, paste):
    before = smooth(3, 2)
    edited = RandomSetAttribute(model, "Happy", 0.6, p=1.0, paste=paste)(before)
    inside = ((edited > 0) & (edited < 1)).all(0)
    tint, expected = (one - with_channels(one[None], 1)[0] for one in (edited, before))
    assert (edited - before).abs().max() > 0.05
    assert inside.float().mean() > 0.9
    assert (tint - expected).abs()[:, inside].max() < 1e-5
    wide = torch.nn.functional.pad(before, (10, 10, 0, 0), value=0.3)
    assert torch.equal(RandomSetAttribute(model, "Happy", 0.6, p=1.0, paste=paste)(wide)[..., :10], wide[..., :10])


def test_a_model_sees_a_colour_photo_by_its_luminance(model):
    colours = torch.rand(2, 3, S, S)
    assert torch.equal(model.encode(colours).z, model.encode(with_channels(colours, 1)).z)
    saturated = torch.zeros(1, 3, S, S)
    saturated[:, 1] = 1
    green = model.encode(torch.full((1, 1, S, S), 1 - 0.299 - 0.114)).z
    torch.testing.assert_close(model.encode(saturated).z, green)


def test_faces_are_aligned_to_the_model_s_own_frame(model):
    turned = fit(FRAME, FRAME @ np.array([[0.9, 0.2], [-0.2, 0.9]]) + (20, 40))(np.array(CLOSE))
    opened = FaceEditor(model).open(photo(), landmarks=turned)
    expected = (np.array(CLOSE) - (15, 35)) * S / 148
    assert opened.aligned.transforms[0](turned) == pytest.approx(expected, abs=1e-9)
    assert opened.crops.shape == (1, 3, S, S)
