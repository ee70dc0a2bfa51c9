r"""The two minimisations of METHOD, and the place where parts of ours join them.

min over θ, φ, γ :  β1·reconstruction + β2·kl_w + β3·kl_z + β4·negative_entropy
min over δ       :  β5·adversary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.func import functional_call

from csvae_hub import losses
from csvae_hub.config import check, check_weights
from csvae_hub.data.base import AttributeData
from csvae_hub.models.base import Also, Output
from csvae_hub.models.editable import AttributeModel

Examples = Iterable[tuple[Tensor, Tensor]]
"""Batches of x (B, *shape) and y (B, k)."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The weights β1 … β5 (toy setting: 20, 1, 0.2, 1000, 100) and that of q(y | x), which is not part of the bound.

    In CondVAE-info `negative_entropy` is the weight of minus the adversary's cross entropy. A weight of a term that the
    model doesn't have is not used.
    """

    reconstruction: float = 1.0
    kl_w: float = 1.0
    kl_z: float = 1.0
    negative_entropy: float = 1.0
    adversary: float = 1.0
    classifier: float = 1.0

    def __post_init__(self) -> None:
        check_weights(self, "objective")


@dataclass
class Step:
    """One generative step, for parts and for the other minimisations: x and y (NaN where missing) and what came out."""

    objective: Objective
    x: Tensor
    y: Tensor
    out: Output
    q_y: Independent | None
    """The adversary's answer q_δ(y | z); None without an adversary, and in a rest."""
    terms: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """The unweighted terms, (B,) or (), in nats per example."""
    kept: dict[str, Any] = field(default_factory=dict[str, Any])
    """Values that a part keeps, by its name, from its terms to its own minimisation."""


@dataclass(frozen=True)
class Minimisation:
    """A minimisation beside the generative one; its optimiser is Adam with these betas.

    `losses` gives unweighted losses, one after the other; a step of the optimiser follows each.
    """

    name: str
    parameters: list[nn.Parameter]
    losses: Callable[[Step], Iterator[Tensor]]
    weight: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    with_model: bool = False
    """True: its learning rate is always the model's; else `TrainerConfig.adversary_learning_rate`, a constant."""
    chance: float | None = None
    """The loss of an answer that reads nothing, where it is known; the adversary's is counted from the labels."""


@dataclass(frozen=True)
class NoOptions:
    """The options of a part that has none."""


@dataclass(frozen=True)
class Weighted:
    """weight: of the part's term."""

    weight: float = 1.0


class Part(nn.Module, ABC):
    """A part of the objective that is ours: its options, its terms and its hooks, in one file of `training/parts`.

    A recipe's table `[parts.NAME]` switches on the part in `NAME.py`. A constructor may change the hooks of `Objective`
    that are made for that; buffers and parameters of a part are kept in checkpoints.
    """

    Options: ClassVar[type]
    """A frozen dataclass. A term's weight is the field of its name, or else the field `weight`."""

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def terms(self, step: Step) -> dict[str, Tensor]:
        """Unweighted terms of the generative minimisation by name, (B,) or (), in nats per example."""


class Objective(nn.Module):
    """The minimisations over a model of the family, for a trainer that alternates them on every batch.

    Args:
        model: the model to train.
        config: the weights.
        parts: options of parts by their class; none is the paper.
        data: the training data, for parts that need it.
    """

    def __init__(
        self,
        model: AttributeModel,
        config: ObjectiveConfig | None = None,
        parts: Iterable[tuple[type[Part], Any]] = (),
        data: AttributeData | None = None,
    ) -> None:
        super().__init__()
        self.model, self.config, self.data = model, config or ObjectiveConfig(), data
        self.minimisations: list[Minimisation] = []
        if model.adversary_net is not None:
            delta = list(model.adversary_net.parameters())
            self.minimisations.append(Minimisation("adversary", delta, self._adversary_losses, self.config.adversary))
        self.weights = {**vars(self.config), "negative_cross_entropy": self.config.negative_entropy}
        self.known = 1.0 if data is None else data.known  # the share of known labels
        # hooks; these defaults are the paper
        self.instead: Callable[[Step], dict[str, Tensor]] = lambda step: {}  # of terms, in the loss
        self.also: Also = None
        self.adversary_input: Callable[[Output], Tensor] = lambda out: out.z
        self.adversary_batches: Callable[[Tensor, Tensor], Examples] = lambda z, y: [(z, y)]
        self.base_rate: Callable[[], Tensor | None] = lambda: None
        self.betas, self.batch, self.rest_epochs = (0.9, 0.999), 0, 0  # the number of the batch, from 0
        self.say: Callable[[str], None] = lambda line: None  # of what takes long between two batches
        self.begin_rest: Callable[[Examples | None], None] | None = None
        self.at_rest: list[nn.Module] = []
        self.fit_at_rest: list[Callable[[Examples], None]] = []
        self.seconds_at_rest: list[Callable[[], float]] = []  # about how long those take
        self.at_end: list[Callable[[AttributeModel, Examples], None]] = []
        self.parts = nn.ModuleList()
        for cls, options in parts:
            self.parts.append(cls(options, self))

    def generative_parameters(self) -> list[nn.Parameter]:
        """θ, φ, γ and the attribute classifier's."""
        others = {id(p) for m in self.minimisations for p in m.parameters}
        return [p for p in self.model.parameters() if p.requires_grad and id(p) not in others]

    def generative_step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Step]:
        """The loss of θ, φ, γ on x (B, *shape) and y (B, k); its gradient reaches no other network."""
        model, net = self.model, None if self.at_rest else self.model.adversary_net
        self.train()
        for module in self.at_rest:
            module.eval()
        out = model(x, y, also=self.also)
        terms = model.bound(out, x) | {"classifier": losses.cross_entropy(out.q_y, y) / self.known}
        q_y = None
        if net is not None:
            q_y = asked(net.eval(), self.adversary_input(out))  # its running moments are the adversary's own business
            terms |= model.penalty_on_z(q_y, y, self.base_rate())
        step = Step(self, x, y, out, q_y, terms)
        weights = dict(self.weights)
        for part in self.parts:
            assert isinstance(part, Part)
            for name, term in part.terms(step).items():
                check(name not in terms, f"the term {name!r} of a part", "a name that no other term has", name)
                terms[name] = term
                weights[name] = getattr(part.options, name, getattr(part.options, "weight", 1.0))
        counted = (terms | self.instead(step)).items()
        return torch.stack([weights[name] * term.mean() for name, term in counted]).sum(), step

    def _adversary_losses(self, step: Step) -> Iterator[Tensor]:
        """-log q_δ(y | z) on the latents of a generative step, for δ."""
        if (net := self.model.adversary_net) is None or step.q_y is None:
            return
        for z, y in self.adversary_batches(self.adversary_input(step.out).detach(), step.y):
            yield losses.cross_entropy(net.train()(z), y, self.base_rate()).mean()


def asked(net: nn.Module, *inputs: Tensor) -> Any:
    """The answer of a network; the gradient reaches the inputs and not the network."""
    return functional_call(net, {name: p.detach() for name, p in net.named_parameters()}, inputs)
