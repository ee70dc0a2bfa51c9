"""What models have in common whose decoder is told the attributes themselves."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from torch import Tensor

from csvae_hub.config import ModelConfig
from csvae_hub.distributions import draw
from csvae_hub.models.base import AttributeModel, Output, Value
from csvae_hub.models.latents import Latents
from csvae_hub.models.values import level


class ConditionalModel(AttributeModel, ABC):
    """p(x | z, y): an attribute is changed by another y_i, and there is one picture for each class of it."""

    needs = "y"
    trains_edits = True

    @staticmethod
    def condition_dim(config: ModelConfig) -> int:
        """All attributes: k."""
        return len(config.attributes)

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Output:
        """Encodes x (B, *shape) in [0, 1], samples z and decodes it with y (B, k), 0, 1 or NaN."""
        features = self.features(x)
        logits = self.q_y(features)
        y = self._filled(y, logits)
        q_z = self.q_z_given(features, y)
        z = draw(q_z, generator)
        return Output(q_z, self.likelihood(self._decoded(z, y)), z, y, logits)

    def bound(self, out: Output, x: Tensor) -> dict[str, Tensor]:
        """Reconstruction and kl_z: minus their sum bounds log p(x | y)."""
        return self._plain_bound(out, x)

    def edited_in_training(
        self, out: Any, which: Tensor, wished: Tensor, transferred: float, sampled: float
    ) -> Latents:
        """The same z with the wished attributes: there are no kinds to take over or to draw."""
        return self._without_subspaces(out.z[: len(which)], wished)

    def shuffled(self, out: Output, batch: int) -> Latents:
        """Every y_i of the first examples taken over from some picture of the pass."""
        rows = torch.randint(len(out.z), (batch, out.y.shape[1]), device=out.z.device)
        columns = torch.arange(out.y.shape[1], device=out.z.device)
        return self._without_subspaces(out.z[:batch], out.y[rows, columns])

    def latents_of(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, features), with q(y | x)'s answer where y is None or NaN."""
        y = self._filled(y, self.q_y(features))
        q_z = self.q_z_given(features, y)
        return self._without_subspaces(draw(q_z, generator) if sample else q_z.mean, y)

    def decode_tensor(self, latents: Latents) -> Tensor:
        """E p(x | z, y): (B, *shape)."""
        return self._decoded(latents.z, latents.y)

    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """The latents with another y_i; a number between or beyond is told to the decoder as it is."""
        return latents.with_attribute(name, level(value, name, latents, self.encode))

    def sample_latents(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Latents:
        """Z from N(0, I), for y (n, k)."""
        y = self._random_attributes(n, y, generator)
        z = torch.randn(n, self.config.z_dim, generator=generator).to(self.device)
        return self._without_subspaces(z, y)
