"""The variational bound on examples that the model has not seen."""

from __future__ import annotations

import math

import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation.encoding import BATCH, evaluating
from csvae_hub.models import AttributeModel


def bound(model: AttributeModel, data: AttributeData, *, seed: int = 0) -> dict[str, float]:
    """The terms of the negative bound, mean nats per example, at one sample of the posteriors.

    Unweighted: the paper's bound, whatever the weights of the training were. Labels are given, gaps are filled in by
    q(y | x); log p(y) is left out. Models with the same likelihood can be compared, others can't. A VAE's bound
    is one on log p(x), the others' are on log p(x | y). The caller's random state is kept.

    Args:
        model: any of the family.
        data: N examples with the model's attributes.
        seed: of the samples.

    Returns:
        The terms that `model.bound` names (`reconstruction`, `kl_z` and, with subspaces, `kl_w`), and their sum,
        `total`: the smaller, the better.

    Raises:
        ValueError: a term is not finite.
        UnknownAttributeError: the data lacks an attribute of the model.
    """
    data = data.select(model.attributes)
    sums: dict[str, float] = {}
    devices = [model.device] if model.device.type == "cuda" else []
    with evaluating(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for part in torch.arange(len(data)).split(BATCH):
            x, y = (tensor.to(model.device, model.dtype) for tensor in data.batch(part))
            if model.config.is_image and model.config.shape[0] == 1:
                x = x.mean(1, keepdim=True)
            for name, term in model.bound(model(x, y), x).items():
                sums[name] = sums.get(name, 0.0) + term.double().sum().item()
    means = {name: value / len(data) for name, value in sums.items()}
    for name, value in means.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected finite nats, got {value}: use weights of a run that has not diverged")
    return {**means, "total": sum(means.values())}
