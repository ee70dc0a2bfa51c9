from __future__ import annotations

import pytest
import torch
from torch import nn

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.evaluation import reconstruction
from csvae_hub.evaluation.encoding import encode_data
from csvae_hub.models import CSVAE


class Offset(nn.Module):
    """A model that gives back the picture, each value off by `by`."""

    def __init__(self, inner, by):
        super().__init__()
        self.config, self.device, self.encode, self.by = inner.config, inner.device, inner.encode, by

    def decode(self, latents):
        signs = torch.where(latents.z < 0.5, 1.0, -1.0)
        return latents.z + self.by * signs


def test_mse_and_psnr_of_a_known_error(faultless, make_halves):
    result = reconstruction(Offset(faultless(), 0.1), make_halves(300, 0))
    assert result["mse"] == pytest.approx(0.01, rel=1e-4)
    assert result["psnr"] == pytest.approx(20, abs=1e-3)
    assert 0 < result["ssim"] < 1


def test_ssim_is_one_for_equal_pictures(faultless, make_halves):
    result = reconstruction(Offset(faultless(), 1e-6), make_halves(10, 0))
    assert result["ssim"] == pytest.approx(1, abs=1e-4)


def test_agrees_with_the_model_and_keeps_its_mode(make_halves):
    torch.manual_seed(0)
    model = CSVAE(
        ModelConfig(("Left", "Right"), shape=(3, 16, 16), z_dim=4, backbone=BackboneConfig(width=4, features=8))
    )
    data = make_halves(6, 0)
    model.train()
    latents = encode_data(model, data)
    result = reconstruction(model, data)
    assert model.training
    model.eval()
    images = data.batch(range(6))[0]
    assert torch.allclose(latents.z, model.encode(images).z, atol=1e-5)
    assert result["mse"] == pytest.approx((model.reconstruct(images) - images).square().mean().item(), rel=1e-4)
    assert reconstruction(model, data, latents) == pytest.approx(result)
    labelled = encode_data(model, data, labelled=True)
    assert torch.equal(labelled.y, torch.from_numpy(data.labels))
    assert torch.allclose(labelled.w, model.encode(images, labelled.y).w, atol=1e-5)


def test_latents_that_are_not_finite_are_refused(faultless, make_halves):
    model = faultless()
    encode = model.encode
    model.encode = lambda x, y=None: encode(x * torch.nan)
    with pytest.raises(ValueError, match="z: expected finite latents, got NaN or infinity"):
        reconstruction(model, make_halves(4, 0))
