"""The abstract methods that each model of the family defines, and the result of a forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from csvae_hub.config import ModelConfig
from csvae_hub.models.latents import Latents


@dataclass(frozen=True)
class Output:
    """One forward pass with a sample of the posteriors; q_w, p_w and w are None without subspaces.

    `features` are the backbone's; `q_y` is q(y | x). `y` has no NaN: q(y | x) filled the gaps.
    """

    features: Tensor
    q_z: Independent
    p_x: Independent
    q_y: Independent
    z: Tensor
    y: Tensor
    q_w: Independent | None = None
    p_w: Independent | None = None
    w: Tensor | None = None
    also: Tensor | None = None
    """The means of what else was decoded in the same batch."""


Also: TypeAlias = Callable[[Latents], Latents] | None
"""Makes of the sampled latents of a batch others that are decoded with them."""


class Model(nn.Module, ABC):
    """The part of a model that differs between the members of the family."""

    name: str
    """The value of `ModelConfig.model` that stands for this class; an abstract class has none."""

    adversary_net: nn.Module | None
    """q_δ(y | z), in the models that have one."""

    @staticmethod
    @abstractmethod
    def condition_dim(config: ModelConfig) -> int:
        """The number of values that the decoder reads beside z."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None, also: Also = None) -> Output:
        """Encodes x (B, *shape) in [0, 1] with y (B, k), 0, 1 or NaN; samples; decodes, with what `also` makes."""

    @abstractmethod
    def bound(self, out: Output, x: Tensor) -> dict[str, Tensor]:
        """The terms of the negative bound by name: each (B,), in nats."""

    @abstractmethod
    def penalty_on_z(self, q_y: Independent, y: Tensor, base_rate: Tensor | None) -> dict[str, Tensor]:
        """The term that keeps y out of z, by name: (B,), in nats; empty for a model without an adversary.

        Args:
            q_y: the adversary's answer q_δ(y | z).
            y: (B, k), NaN where missing.
            base_rate: (k,), the share that has each attribute, where both classes count alike.
        """

    @abstractmethod
    def posterior_latents(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, …): means, or a sample. q(y | x) fills gaps in y (B, k), which may be None."""

    @abstractmethod
    def prior_latents(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Latents:
        """N latents from the prior, given attributes y (n, k) where there are any."""

    @abstractmethod
    def latents_of_parts(self, z: Tensor, w: Tensor | None, y: Tensor | None) -> Latents:
        """Latents of z (B, z_dim) and the other input of the decoder.

        Raises:
            ValueError: that input is missing.
        """

    @abstractmethod
    def p_x_given(self, latents: Latents) -> Independent:
        """The distribution p(x | …) of latents: event *shape."""

    @abstractmethod
    def edit_latents(self, latents: Latents, name: str, value: Any, generator: torch.Generator | None) -> Latents:
        """The latents with one attribute changed."""

    @abstractmethod
    def class_points(self, latents: Latents) -> Tensor | None:
        """Points (B, k, d) or (B, 1, d) of which `class_means` are the means; None for a model without them."""
