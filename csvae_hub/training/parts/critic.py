r"""A critic in x that learns beside the model, as the adversary does in z: edits are to look like photos.

$D(x, y)$ scores a picture with its attributes (a projection, Miyato and Koyama 2018). It learns to tell real pictures
with their attributes from decoded ones, edited ones with the wished attributes, and real ones with wrong attributes,
by the non-saturating logistic loss with a lazy R1 penalty (Mescheder et al. 2018). The model learns to be taken for
real, decoded (VAE/GAN, Larsen et al. 2016) and edited (AttGAN, He et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csvae_hub.config import check
from csvae_hub.training.parts._common import Edited, switch_one_attribute
from csvae_hub.training.steps import Minimisation, Objective, Part, Step, asked

WIDTH, LEARNING_RATE, BETAS = 48, 4e-4, (0.0, 0.99)
R1, R1_EVERY = 0.2, 16
DECODED, EDITED, WRONG = 0.3, 0.5, 0.2
"""Shares of the three kinds of fakes in the critic's loss: decoded, edited, real with wrong attributes."""


@dataclass(frozen=True)
class Options:
    """Weights of the terms of these names; the reconstruction of a picture is thousands of nats."""

    realism: float = 6000.0
    matching: float = 30000.0
    locality: float = 6000.0


class Network(nn.Module):
    """D: strided convolutions down to 4×4, one hidden layer; a score of reality and one for each attribute."""

    def __init__(self, channels: int, size: int, attributes: int) -> None:
        super().__init__()
        widths = [channels]
        while size > 4:
            widths.append(WIDTH * min(8, 2 ** (len(widths) - 1)))
            size //= 2
        self.convolutions = nn.ModuleList([nn.Conv2d(i, o, 4, 2, 1) for i, o in zip(widths, widths[1:], strict=False)])
        self.hidden, self.out = nn.Linear(widths[-1] * size**2, 256), nn.Linear(256, 1 + attributes)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """D(x, y) (B,) of pictures x (B, C, H, W) in [0, 1] and y (B, k), and the features on the way."""
        h, features = 2 * x - 1, []
        for convolution in self.convolutions:
            h = F.leaky_relu(convolution(h), 0.2)
            features.append(h)
        u, v = self.out(F.leaky_relu(self.hidden(h.flatten(1)), 0.2)).float().split([1, y.shape[1]], 1)
        return u[:, 0] + ((2 * y - 1) * v).sum(1) / y.shape[1] ** 0.5, features


class Critic(Part):
    r"""D with its own optimiser, and three terms of the model.

    realism: $½ softplus(-D(\hat x, y)) + softplus(-D(x', y'))$. matching: the mean distance between the critic's
    features of $\hat x$ and x. locality: what an edit changes, $|x' - \hat x|$ by mean and a tenth of the squared
    distance between z and the code of x'.
    """

    Options = Options
    steps: Tensor

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__(options, objective)
        config = objective.model.config
        check(config.is_image, "parts.critic", "a model of pictures", config.shape)
        self.net = Network(config.shape[0], config.shape[-1], len(config.attributes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.edited: tuple[Edited, Tensor] | None = None
        parameters = list(self.net.parameters())
        objective.minimisations.append(
            Minimisation("critic", parameters, self.losses, betas=BETAS, learning_rate=LEARNING_RATE)
        )
        objective.betas = (0.5, 0.99)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The model's terms, on the decoded pictures and on the same with one attribute switched."""
        model, decoded = step.objective.model, step.out.p_x.mean
        edit = switch_one_attribute(step, donors=0.5)
        edited = model.decode(edit.latents)
        self.edited = edit, edited.detach()
        y, rows, batch = step.out.y, edit.rows, len(decoded)
        score, features = asked(self.net, torch.cat([decoded, edited]), torch.cat([y, edit.wished]))
        with torch.no_grad():
            _, of_real = self.net(step.x, y)
        distances = [_per_example(f[:batch] - r) for f, r in zip(features, of_real, strict=True)]
        again = model.q_z(model.backbone.encode(edited), edit.wished).mean
        return {
            "realism": 0.5 * F.softplus(-score[:batch]) + F.softplus(-score[batch:]),
            "matching": torch.stack(distances).mean(0),
            "locality": _per_example(edited - decoded[rows]) + 0.1 * (again - edit.latents.z.detach()).square().mean(1),
        }

    def losses(self, step: Step) -> Iterator[Tensor]:
        """The critic's loss on the pictures of a generative step."""
        assert self.edited is not None
        (edit, edited), x, y = self.edited, step.x, step.out.y
        half = len(x) // 2
        decoded = step.out.p_x.mean.detach()[:half]
        wrong = x[edit.rows[half:]]
        seen = torch.cat([x, decoded, edited, wrong])
        score, _ = self.net(seen, torch.cat([y, y[:half], edit.wished, edit.wished[half:]]))
        real, of_decoded, of_edited, of_wrong = score.split([len(x), half, len(x), len(wrong)])
        loss = F.softplus(-real).mean() + DECODED * F.softplus(of_decoded).mean()
        loss = loss + EDITED * F.softplus(of_edited).mean() + WRONG * F.softplus(of_wrong).mean()
        if self.steps % R1_EVERY == 0:
            some = x[:half].detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.net(some, y[:half])[0].sum(), some, create_graph=True)
            loss = loss + R1_EVERY * 0.5 * R1 * gradient.square().flatten(1).sum(1).mean()
        self.steps += 1
        yield loss


def _per_example(difference: Tensor) -> Tensor:
    """Mean absolute value of each example: (B, …) to (B,)."""
    return difference.float().abs().flatten(1).mean(1)
