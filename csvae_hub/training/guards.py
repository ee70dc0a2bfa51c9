"""Guards of a training run: they warn once, in words, of failures that raise no error, and say what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from csvae_hub.distributions import Groups, attributes
from csvae_hub.losses import cross_entropy
from csvae_hub.sharing import gathered

if TYPE_CHECKING:
    from csvae_hub.training.steps import Step
    from csvae_hub.training.trainer import Trainer

COLLAPSED = 0.01
"""Nats of a subspace's KL below which it says no more than present or absent."""
TELLS = 0.1
"""The `leakage` above which an adversary that learns at all must beat a constant answer."""
AT_CHANCE, SURE, WON = 0.98, 0.05, 0.02
"""Shares: of the loss of a constant answer (an adversary that knows nothing), of the greatest entropy (one that is sure
of everything), and of the loss of a constant answer (a critic that always wins)."""
RISE = 0.1
"""The share of those by which loss and entropy of the adversary fall where leakage rises."""
SUBSPACE, LEAKAGE = "kl_w.", "leakage"
"""The names of what `watched` gives: one for each attribute, and one for all."""


def scalars(loss: Tensor, step: Step) -> dict[str, Tensor]:
    """The scalars of a generative step for the log: its loss, the means of its terms, and those of `watched`."""
    means = {name: term.detach().mean() for name, term in step.terms.items()}
    return {"loss": loss.detach(), **means, **watched(step)}


@torch.no_grad()
def watched(step: Step) -> dict[str, Tensor]:
    r"""Scalars of a generative step that no minimisation lowers, by name.

    `kl_w.NAME` is the mean of $KL(q(w_i \mid x, y) \,\|\, p(w_i \mid y_i))$ in nats, in models with subspaces;
    `leakage`, where an adversary was asked, is `linear_leakage` of its input.
    """
    out, found = step.out, dict[str, Tensor]()
    if out.q_w is not None and out.p_w is not None:
        each = kl_divergence(out.q_w.base_dist, out.p_w.base_dist).sum(-1).mean(0)
        names = [f"{SUBSPACE}{name}" for name in step.objective.model.attributes]
        found = dict(zip(names, each.unbind(), strict=True))
    if step.q_y is not None:
        found[LEAKAGE] = linear_leakage(gathered(step.objective.adversary_input(out)), gathered(step.y))
    return found


def is_watched(name: str) -> bool:
    """True for the name of a scalar of `watched`, false for that of a term."""
    return name == LEAKAGE or name.startswith(SUBSPACE)


def linear_leakage(z: Tensor, y: Tensor) -> Tensor:
    r"""$\frac1k \sum_{i,d} (r_{id}^2 - \frac1{n_i - 1})$ of the correlations r of z (B, z_dim) and y (B, k): ().

    Each attribute is compared on the $n_i$ examples whose label is not missing (NaN). By mean 0 where z says nothing of
    y; the share of y's variance that a linear probe explains where the numbers of z are uncorrelated.
    """
    known = (~y.isnan()).float()
    n = known.sum(0)
    z, y = z.float() - z.float().mean(0), y.float().nan_to_num()
    y = (y - y.sum(0) / n.clamp(min=1)) * known
    z_squares = known.T @ z.square() - (known.T @ z).square() / n.clamp(min=1)[:, None]
    y_squares = y.square().sum(0)
    r_squared = (y.T @ z).square() / (z_squares * y_squares[:, None]).clamp(min=1e-12)
    return ((r_squared - 1 / (n - 1).clamp(min=1)[:, None]).sum(1) * (y_squares > 0)).mean()


def constant_answer(labels: Tensor, groups: Groups = (), base_rate: Tensor | None = None) -> dict[str, float]:
    """The `loss` and the `entropy` of the best answer q(y) that reads nothing: labels (N, k), NaN where missing.

    With `base_rate` (k,) both classes count alike in the loss, as in `cross_entropy`.
    """
    rate = labels.nanmean(0).nan_to_num(0.5).clamp(1e-3, 1 - 1e-3)
    logits = rate.logit()
    for group in map(list, groups):
        logits[group] = rate[group].log()
    if base_rate is not None:
        logits = torch.zeros_like(logits)
    answer = attributes(logits.expand(len(labels), -1), groups)
    loss = cross_entropy(answer, labels, None if base_rate is None else base_rate.cpu()).mean()
    return {"loss": loss.item(), "entropy": attributes(logits[None], groups).entropy().item()}


@dataclass
class Guards:
    """Looks at the means of each interval of the log; gives a warning once a state has lasted `patience` batches.

    chances: the loss of a constant answer, by the name of a minimisation.
    greatest_entropy: of the adversary's answer, if it knows nothing.
    said: names of the warnings that were given, also by a run that this one goes on from.
    """

    chances: dict[str, float]
    greatest_entropy: float
    patience: int
    said: set[str] = field(default_factory=set[str])
    since: dict[str, int] = field(default_factory=dict[str, int])
    history: list[tuple[int, float, float, float]] = field(default_factory=list[tuple[int, float, float, float]])
    last: int | None = None

    @classmethod
    def of(cls, run: Trainer) -> Guards:
        """The guards of a run; they wait for a tenth of it, within 100 and 1000 batches."""
        objective, labels = run.objective, torch.from_numpy(run.train_data.drawn_labels)
        answer = constant_answer(labels, objective.model.config.groups, objective.base_rate())
        chances = {game.name: game.chance for game in objective.minimisations if game.chance is not None}
        patience = min(1000, max(100, run.last_batch // 10))
        return cls({**chances, "adversary": answer["loss"]}, answer["entropy"], patience)

    def look(self, batch: int, means: Mapping[str, float]) -> dict[str, str]:
        """New warnings by name, after so many batches, from the means since the last look."""
        before, self.last = batch if self.last is None else self.last, batch
        found = self._rising_leakage(batch, means)
        for name, holds, text in [*self._subspaces(means), *self._adversary(means), *self._others(means)]:
            if not holds:
                self.since.pop(name, None)
            elif batch - self.since.setdefault(name, before) >= self.patience:
                found[name] = text
        found = {name: text for name, text in found.items() if name not in self.said}
        self.said |= found.keys()
        return found

    def _subspaces(self, means: Mapping[str, float]) -> Iterator[tuple[str, bool, str]]:
        for key, kl in means.items():
            if not key.startswith(SUBSPACE):
                continue
            name = key.removeprefix(SUBSPACE)
            text = (
                f"the subspace of {name} has collapsed: its KL stayed below {COLLAPSED} nats for {self.patience}"
                " batches, so that it says no more than present or absent, and the plane of the attribute shows one"
                " kind of it. Lower objective.kl_w, or raise objective.reconstruction"
            )
            yield f"{name} collapsed", kl < COLLAPSED, text

    def _adversary(self, means: Mapping[str, float]) -> Iterator[tuple[str, bool, str]]:
        if "adversary" not in means:
            return
        loss, chance = means["adversary"], self.chances["adversary"]
        text = (
            f"the adversary learns nothing: for {self.patience} batches its loss ({loss:.3g}) stayed at that of a"
            f" constant answer ({chance:.3g}), though even a linear probe reads attributes from its input. Raise"
            " trainer.adversary_learning_rate, or set parts.stronger_adversary.steps to 5"
        )
        yield "adversary knows nothing", loss > AT_CHANCE * chance and means.get(LEAKAGE, 0.0) > TELLS, text
        if "negative_entropy" not in means:
            return
        text = (
            f"the adversary always wins: for {self.patience} batches its entropy stayed below {SURE:.0%} of the"
            f" greatest ({self.greatest_entropy:.3g} nats), where the entropy has hardly a gradient, so that z keeps"
            " the attributes. Raise objective.negative_entropy, or fit a flow (model.flow, [parts.flow], [parts.rest])"
        )
        yield "adversary always wins", -means["negative_entropy"] < SURE * self.greatest_entropy, text

    def _others(self, means: Mapping[str, float]) -> Iterator[tuple[str, bool, str]]:
        """A critic, and whatever else learns beside the model and says what a constant answer costs."""
        for name in means.keys() & self.chances.keys() - {"adversary"}:
            loss, chance = means[name], self.chances[name]
            text = (
                f"the {name} always wins: for {self.patience} batches its loss stayed below {WON:.0%} of that of a"
                f" constant answer ({chance:.3g}), so that the model can learn little from it. Raise"
                f" parts.{name}.weight, or train on more pictures"
            )
            yield f"{name} always wins", loss < WON * chance, text
            text = (
                f"the {name} knows nothing: for {self.patience} batches its loss ({loss:.3g}) stayed above that of a"
                f" constant answer ({chance:.3g}), so that it leads the model astray. Lower trainer.learning_rate, or"
                f" leave out [parts.{name}]"
            )
            yield f"{name} knows nothing", loss > chance, text

    def _rising_leakage(self, batch: int, means: Mapping[str, float]) -> dict[str, str]:
        """Compares the last three spans of `patience` batches, once two more in which the adversary learns are over.

        An adversary that catches up with a model that slows down reads better, though z tells no more: the linear
        leakage must not have fallen meanwhile.
        """
        if "adversary" not in means or "negative_entropy" not in means:
            return {}
        self.history.append((batch, means["adversary"], -means["negative_entropy"], means.get(LEAKAGE, 0.0)))
        if batch - self.history[0][0] < 5 * self.patience:
            return {}
        self.history = [row for row in self.history if batch - row[0] < 6 * self.patience]
        spans = [[row for row in self.history if (batch - row[0]) // self.patience == ago] for ago in (2, 1, 0)]
        if not all(spans):
            return {}
        losses, entropies, leaks = ([fmean(row[column] for row in span) for span in spans] for column in (1, 2, 3))
        steady = losses[0] > losses[1] > losses[2] and entropies[0] > entropies[1] > entropies[2]
        falls = losses[0] - losses[2] > RISE * self.chances["adversary"] and leaks[2] >= leaks[0]
        if not (steady and falls and entropies[0] - entropies[2] > RISE * self.greatest_entropy):
            return {}
        text = (
            f"z tells more and more of the attributes: over {3 * self.patience} batches the adversary's loss fell from"
            f" {losses[0]:.3g} to {losses[2]:.3g} nats and its entropy from {entropies[0]:.3g} to {entropies[2]:.3g}."
            " Raise objective.negative_entropy, or fit a flow (model.flow, [parts.flow], [parts.rest])"
        )
        return {"leakage rises": text}
