"""An adversary that takes more steps, on past batches too, and reads the mean of z as a fresh probe does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from csvae_hub.config import check
from csvae_hub.sharing import gathered, mine
from csvae_hub.training.steps import Objective, Part, Step


@dataclass(frozen=True)
class Options:
    """steps: of the adversary on every batch. memory: batches of latents, the newest included, that they draw from."""

    steps: int = 1
    memory: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check(1 <= value <= 1000, f"parts.stronger_adversary.{name}", "1 to 1000", value)


class StrongerAdversary(Part):
    """Each step takes half a batch of the newest latents and 1.5 batches of any."""

    Options = Options
    memory_z: Tensor
    memory_y: Tensor

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__(options, objective)
        config = objective.model.config
        self.register_buffer("memory_z", torch.zeros(0, config.z_dim))
        self.register_buffer("memory_y", torch.zeros(0, len(config.attributes)))
        objective.adversary_input = lambda out: out.q_z.mean
        objective.adversary_batches = self.batches

    def terms(self, step: Step) -> dict[str, Tensor]:
        """None."""
        return {}

    def batches(self, z: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Takes latents z (B, z_dim) and attributes y (B, k) into the memory; gives what each step learns from."""
        z, y = gathered(z), gathered(y)
        size, kept = len(z), (self.options.memory - 1) * len(z)
        self.memory_z = torch.cat([z, self.memory_z[:kept]])
        self.memory_y = torch.cat([y, self.memory_y[:kept]])
        for _ in range(self.options.steps):
            if len(self.memory_z) == size:
                yield mine(z), mine(y)
                continue
            fresh = torch.randperm(size, device=z.device)[: size // 2]
            any_time = torch.randint(len(self.memory_z), (size + size // 2,), device=z.device)
            chosen = mine(torch.cat([fresh, any_time]))
            yield self.memory_z[chosen], self.memory_y[chosen]
