"""In the last epochs the encoder rests, and the decoder and q(w | x, y) keep training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from csvae_hub.backbones import Backbone
from csvae_hub.config import check
from csvae_hub.distributions import log_odds
from csvae_hub.models.modes import evaluating
from csvae_hub.sharing import mine, whole
from csvae_hub.training.parts._common import follow_class_means, sampled_latents, switch_one_attribute
from csvae_hub.training.steps import Examples, Objective, Part, Step


def consistency(logits: Tensor, before: Tensor, wished: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    r"""$-\log r(y_i' \mid x')$ and $\sum_{j \ne i} KL(r(y_j \mid x) \,\|\, r(y_j \mid x'))$ of a classifier r.

    Args:
        logits: of r on the edited pictures x' (B, k).
        before: of r on the pictures themselves (B, k).
        wished: attributes after the edit (B, k).
        which: the edited attribute of each picture (B,).

    Returns:
        The edited attribute's term and the sum over the other attributes, (B,) each.
    """
    rows = torch.arange(len(logits), device=logits.device)
    own = F.binary_cross_entropy_with_logits(logits[rows, which], wished[rows, which], reduction="none")
    p = before.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, p, reduction="none")
    divergence = cross - F.binary_cross_entropy_with_logits(before, p, reduction="none")
    return own, divergence.index_put((rows, which), torch.zeros((), device=logits.device)).sum(-1)


@dataclass(frozen=True)
class Options:
    """epochs: how many of the trainer's epochs, the last ones, are the rest; all where a run starts from weights.

    weight: of `consistency`, by the model's own q(y | x), on edits made in the rest; 0 for none.
    """

    epochs: int = 1
    weight: float = 0.0

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "parts.rest.epochs", "1 or more", self.epochs)


class Rest(Part):
    """Freezes features, q(z | x) and q(y | x) for the last epochs; there is no adversary then."""

    Options = Options

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__(options, objective)
        weighted = options.weight and not objective.model.config.is_image
        check(not weighted, "parts.rest.weight", "0 for a model of vectors", options.weight)
        objective.rest_epochs = options.epochs
        objective.begin_rest = lambda examples: begin(objective, examples)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """In the rest, `consistency` by the model's own q(y | x); its gradient reaches the pictures alone."""
        model = step.objective.model
        if not step.objective.at_rest or not self.options.weight:
            return {}
        follow_class_means(step)
        edited = switch_one_attribute(model, sampled_latents(step), donors=0.4)
        reader = _Reader(model.backbone, model.q_y)
        fixed = {name: p.detach() for name, p in reader.named_parameters()}
        with evaluating(model.backbone):
            with torch.no_grad():
                before = reader(step.x)
            logits = functional_call(reader, fixed, (disturbed(model.decode(edited.latents)),))
        own, others = consistency(logits, before, edited.wished, edited.which)
        return {"consistency": own, "consistency_of_others": others}


class _Reader(nn.Module):
    """Pictures (B, C, H, W) to logits (B, k), with the backbone's own encoder."""

    def __init__(self, backbone: Backbone, q_y: nn.Module) -> None:
        super().__init__()
        self.backbone, self.q_y = backbone, q_y

    def forward(self, pictures: Tensor) -> Tensor:
        return log_odds(self.q_y(type(self.backbone).encode(self.backbone, pictures)))


def disturbed(images: Tensor) -> Tensor:
    """Images (B, C, H, W) moved by up to 2 pixels, half of the batches at half resolution, with noise of 0.02.

    It keeps the decoder from learning adversarial patterns.
    """
    moves = torch.randint(-2, 3, (2,)).tolist()
    if torch.rand(()) < 0.5:
        images = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    images = images.roll(moves, (2, 3))
    noise = mine(torch.randn(whole(len(images)), *images.shape[1:], device=images.device, dtype=images.dtype))
    return (images + 0.02 * noise).clamp(0, 1)


def begin(objective: Objective, examples: Examples | None) -> None:
    """Freezes features, q(z | x) and q(y | x); fits to the examples, if any, what is fitted in a rest."""
    model = objective.model
    objective.at_rest = [model.q_z.requires_grad_(False), model.q_y.requires_grad_(False)]
    setattr(model.backbone, "encode", _frozen(model.backbone))  # noqa: B010  of this copy of the model; the averaged one has its own
    if examples is not None:
        for fit in objective.fit_at_rest:
            fit(examples)


def _frozen(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """The encoder in eval mode, its features constants; a backbone's modules don't say which half they belong to."""
    encode = backbone.encode

    def features(x: Tensor) -> Tensor:
        """Features of x as constants."""
        with evaluating(backbone), torch.no_grad():
            return encode(x)

    return features
