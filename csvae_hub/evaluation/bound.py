"""The variational bound on examples that the model has not seen."""

from __future__ import annotations

import math
from collections import defaultdict

import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation.encoding import BATCH, evaluating
from csvae_hub.models import AttributeModel


def bound(model: AttributeModel, data: AttributeData, *, seed: int = 0) -> dict[str, float]:
    """The terms of `model.bound`, mean nats per example at one sample of the posteriors, and their sum, `total`.

    This is the paper's negative bound, without the weights of training and without log p(y); smaller is better.
    Missing labels are inferred by q(y | x). Only models with the same likelihood can be compared. A VAE bounds
    log p(x), the others log p(x | y). The caller's random state is kept.

    Raises:
        ValueError: a term is not finite.
        UnknownAttributeError: the data lacks an attribute of the model.
    """
    data = data.select(model.attributes)
    sums: defaultdict[str, float] = defaultdict(float)
    devices = [model.device] if model.device.type == "cuda" else []
    with evaluating(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for part in torch.arange(len(data)).split(BATCH):
            x, y = (tensor.to(model.device, model.dtype) for tensor in data.batch(part))
            if model.config.is_image and model.config.shape[0] == 1:
                x = x.mean(1, keepdim=True)
            for name, term in model.bound(model(x, y), x).items():
                sums[name] += term.double().sum().item()
    means = {name: value / len(data) for name, value in sums.items()}
    for name, value in means.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected finite nats, got {value}: use weights of a run that has not diverged")
    return {**means, "total": sum(means.values())}
