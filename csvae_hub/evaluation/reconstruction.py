"""The distance of decode(encode(x)) to x."""

from __future__ import annotations

import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import require
from csvae_hub.evaluation.encoding import BATCH, decode_in_batches, encode_data
from csvae_hub.models import AttributeModel, Latents


def reconstruction(
    model: AttributeModel, data: AttributeData, latents: Latents | None = None
) -> dict[str, float | None]:
    """`mse` per value, in squared units of x, and the means of `psnr` in dB and `ssim` over images (None for vectors).

    Pass `latents`, which `encode_data` gave for the data, to spare the encoding.

    Raises:
        MissingExtraError: torchmetrics is missing.
    """
    latents = encode_data(model, data) if latents is None else latents
    metrics = require("torchmetrics.functional.image", "eval") if model.config.is_image else None
    sums = torch.zeros(3, dtype=torch.float64)
    for rows, decoded in zip(torch.arange(len(data)).split(BATCH), decode_in_batches(model, latents), strict=True):
        x, found = data.batch(rows)[0], decoded.contiguous()
        sums[0] += (found - x).square().flatten(1).mean(1).sum()
        if metrics is not None:
            options = {"data_range": 1.0, "reduction": "sum"}
            sums[1] += metrics.peak_signal_noise_ratio(found, x, dim=(1, 2, 3), **options)
            sums[2] += metrics.structural_similarity_index_measure(found, x.contiguous(), **options)
    mse, psnr, ssim = (sums / len(data)).tolist()
    return {"mse": mse, "psnr": psnr if metrics else None, "ssim": ssim if metrics else None}
