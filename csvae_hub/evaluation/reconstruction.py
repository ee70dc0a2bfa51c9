"""The distance of decode(encode(x)) to x."""

from __future__ import annotations

import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import require
from csvae_hub.evaluation.encoding import decode_in_batches, encode_data
from csvae_hub.models import AttributeModel, Latents


def reconstruction(
    model: AttributeModel, data: AttributeData, latents: Latents | None = None
) -> dict[str, float | None]:
    """Mean squared error per value, and for images the mean PSNR in dB and SSIM over pictures.

    Args:
        model: encodes deterministically, with inferred attributes.
        data: N examples, images in [0, 1].
        latents: what `encode_data` gave for them, where it's at hand.

    Returns:
        `mse`, in squared units of x; `psnr` and `ssim`, None for vectors.

    Raises:
        MissingExtraError: torchmetrics is missing.
    """
    latents = encode_data(model, data) if latents is None else latents
    is_image = model.config.is_image
    metrics = require("torchmetrics.functional.image", "eval") if is_image else None
    squared, psnr, ssim, start = 0.0, 0.0, 0.0, 0
    for decoded in decode_in_batches(model, latents):
        images = data.batch(torch.arange(start, start + len(decoded)))[0]
        start += len(decoded)
        squared += (decoded - images).square().flatten(1).mean(1).sum().item()
        if metrics is not None:
            psnr += metrics.peak_signal_noise_ratio(
                decoded, images, data_range=1.0, dim=(1, 2, 3), reduction="sum"
            ).item()
            ssim += metrics.structural_similarity_index_measure(
                decoded.contiguous(), images.contiguous(), data_range=1.0, reduction="sum"
            ).item()
    n = len(data)
    return {
        "mse": squared / n,
        "psnr": psnr / n if is_image else None,
        "ssim": ssim / n if is_image else None,
    }
