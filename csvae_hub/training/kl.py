"""KL warm-up and free bits: a gentle start for the two divergences. The paper has neither; both are off by default."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Independent, kl_divergence

from csvae_hub.config import check
from csvae_hub.sharing import gathered
from csvae_hub.training.steps import Step


def free_nats(q: Independent, p: Independent, nats: float) -> Tensor:
    r"""$\sum_j \max(\lambda, KL_j)$, with $KL_j$ the mean over the batch of one number's divergence: (B,), by mean.

    Free bits (Kingma et al. 2016, section C.8 of arXiv 1606.04934): below λ nats a number of the latents has no
    gradient. The mean is that of all processes' batches. q and p are diagonal.
    """
    each = kl_divergence(q.base_dist, p.base_dist).flatten(1)
    return each.where(gathered(each).mean(0) > nats, each.new_full((), nats)).sum(1)


@dataclass(frozen=True)
class GentleKL:
    """Puts softer terms in the place of kl_z and kl_w in the loss. The log keeps the terms themselves.

    warm_up: batches over which the weights of both rise from 0, in a line (Bowman et al. 2016). 0 for none.
    free_nats: nats of each number of z and w that cost nothing, see `free_nats`. 0 for none.

    Set it as `Objective.instead`. A loop of your own counts `Objective.batch` up.

    Raises:
        ConfigError: a number below 0.
    """

    warm_up: int = 0
    free_nats: float = 0.0

    def __post_init__(self) -> None:
        check(self.warm_up >= 0, "warm_up", "0 batches or more", self.warm_up)
        check(0 <= self.free_nats < float("inf"), "free_nats", "a number of 0 or more", self.free_nats)

    def __call__(self, step: Step) -> dict[str, Tensor]:
        """The terms kl_z and, in models with subspaces, kl_w, as they count in the loss: (B,)."""
        rise = min(1.0, (step.objective.batch + 1) / self.warm_up) if self.warm_up else 1.0
        pairs = {"kl_z": (step.out.q_z, step.objective.model.prior_z()), "kl_w": (step.out.q_w, step.out.p_w)}
        terms: dict[str, Tensor] = {}
        for name, (q, p) in pairs.items():
            if q is not None and p is not None:
                terms[name] = rise * (free_nats(q, p, self.free_nats) if self.free_nats else step.terms[name])
        return terms
