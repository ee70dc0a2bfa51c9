"""The distance of decode(encode(x)) to x, and the variational bound, on examples that the model has not seen."""

from __future__ import annotations

import math
from collections import defaultdict

import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.errors import require
from csvae_hub.evaluation.encoding import BATCH, decode_in_batches, encode_data
from csvae_hub.images import with_channels
from csvae_hub.models import AttributeModel, Latents
from csvae_hub.models.modes import evaluating


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


def bound(model: AttributeModel, data: AttributeData, *, seed: int = 0) -> dict[str, float]:
    """The terms of `model.bound`, mean nats per example at one sample of the posteriors, and their sum, `total`.

    This is the paper's negative bound, without the weights of training and without log p(y); smaller is better.
    The likelier value by q(y | x) stands for a missing label. Only models with the same likelihood can be compared. A
    VAE bounds log p(x), the others log p(x | y). The caller's random state is kept.

    Raises:
        ValueError: a term is not finite.
        UnknownAttributeError: the data lacks an attribute of the model.
    """
    data = data.select(model.attributes)
    sums: defaultdict[str, float] = defaultdict(float)
    devices = [model.device] if model.device.type == "cuda" else []
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for part in torch.arange(len(data)).split(BATCH):
            x, y = (tensor.to(model.device, model.dtype) for tensor in data.batch(part))
            if model.config.is_image:
                x = with_channels(x, model.config.shape[0])
            if y.isnan().any():
                y = model.encode(x, y).y  # training takes the expectation instead, which bounds nothing
            for name, term in model.bound(model(x, y), x).items():
                sums[name] += term.double().sum().item()
    means = {name: value / len(data) for name, value in sums.items()}
    for name, value in means.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected finite nats, got {value}: use weights of a run that has not diverged")
    return {**means, "total": sum(means.values())}
