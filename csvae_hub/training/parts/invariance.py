"""The encoder of z learns to overlook what the decoder draws from w."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from csvae_hub.models.modes import evaluating
from csvae_hub.sharing import gathered, mine, whole
from csvae_hub.training.parts._common import sampled_latents
from csvae_hub.training.steps import Part, Step, Weighted


def invariance(q_z: Distribution, q_z_edited: Distribution) -> Tensor:
    r"""$KL(q(z \mid \hat x) \,\|\, q(z \mid x'))$ of a decoded picture and an edited one: (B,)."""
    return kl_divergence(q_z, q_z_edited)


class Invariance(Part):
    """Compares the posteriors of z on decoded pictures and on the same with other pictures' attributes."""

    Options = Weighted

    def terms(self, step: Step) -> dict[str, Tensor]:
        """`invariance`; its gradient reaches the encoder alone. Nothing while the encoder rests."""
        objective, model = step.objective, step.objective.model
        if objective.at_rest:
            return {}
        latents = sampled_latents(step)
        batch, k = latents.y.shape
        rows = mine(torch.randint(whole(batch), (whole(batch), k), device=latents.y.device))
        columns = torch.arange(k, device=latents.y.device)
        others = replace(latents, w=gathered(latents.w)[rows, columns], y=gathered(latents.y)[rows, columns])
        with evaluating(model.backbone):  # batch norm's moments are those of real pictures
            with torch.no_grad():
                pictures = torch.cat([step.out.p_x.mean, model.decode(others)])
            features = model.backbone.encode(pictures)
        own, other = features.chunk(2)
        return {"invariance": invariance(model.q_z(own, latents.y), model.q_z(other, others.y))}
