"""An encoder that comes to rest while what reads it learns on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from csvae_hub.backbones.base import Backbone
from csvae_hub.networks import PosteriorZ

R = TypeVar("R", bound="Resting")


class Resting(nn.Module):
    """What a model of the family needs for the last part of a training, in which its encoder rests."""

    backbone: Backbone
    q_z: PosteriorZ
    q_y: nn.Module
    """q(y | x): features to logits (B, k)."""

    resting = False
    """Whether the encoder is at rest: see `rest`."""

    def features(self, x: Tensor) -> Tensor:
        """The encoder's features (B, features) of x (B, *shape) for training; constants where it is at rest."""
        if not self.resting:
            return self.backbone.encode(x)
        training = self.backbone.training
        self.backbone.eval()
        with torch.no_grad():
            features = self.backbone.encode(x)
        self.backbone.train(training)
        return features

    def rest(self, batches: Iterable[tuple[Tensor, Tensor]] | None = None) -> None:
        """Brings the encoder to rest: features, q(z | x) and q(y | x) learn no more, what reads them may.

        Args:
            batches: of x (B, *shape) and y (B, k), by which the flow of q(z | x), if there is one, is fitted before.
                Gaps in y are filled in by q(y | x).
        """
        self.resting = True
        self.q_z.requires_grad_(False)
        self.q_y.requires_grad_(False)
        self.train(self.training)
        if batches is None or self.q_z.flow is None:
            return
        codes: list[Tensor] = []
        attributes: list[Tensor] = []
        with torch.no_grad():
            for x, y in batches:
                features = self.features(x)
                codes.append(self.q_z.code(features))
                attributes.append(self._filled(y, self.q_y(features)))
        self.q_z.flow.fit(torch.cat(codes), torch.cat(attributes))

    def train(self: R, mode: bool = True) -> R:
        """As for any module, but what rests stays in eval mode."""
        super().train(mode)
        if self.resting:
            self.q_z.eval()
            self.q_y.eval()
        return self

    def _filled(self, y: Tensor | None, logits: Tensor) -> Tensor:
        """Attributes (B, k) with q(y | x)'s answer where y is None or NaN."""
        inferred = (logits > 0).float()
        return inferred if y is None else torch.where(y.isnan(), inferred.to(y), y)
