r"""A critic in x that learns beside the model, as the adversary does in z: edits are to look like photos.

$D(x, y)$ scores a picture with its attributes (a projection, Miyato and Koyama 2018). It learns to tell real pictures
with their attributes from decoded ones, edited ones with the wished attributes, and real ones with wrong attributes, by
the non-saturating logistic loss with a lazy R1 penalty (Mescheder et al. 2018), and to read the attributes: those of
real and decoded pictures, and of an edited one the attribute as it was before. The model learns to be taken for real,
decoded (VAE/GAN, Larsen et al. 2016) and edited, and that of edited pictures the switched attribute is read as was
wished (AttGAN, He et al. 2019) and the others as in the decoded picture. Because the critic looks for traces of what
was there before, no pattern of the decoder's own satisfies it for long. All that it is shown is disturbed at random
(`disturbance`): else it learns the training pictures by heart. Before all that it learns to read the attributes of real
pictures, and nothing is asked of the model: an edit towards what the critic can't read yet is a pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csvae_hub.config import check
from csvae_hub.distributions import attributes
from csvae_hub.losses import cross_entropy
from csvae_hub.models import AttributeModel, Latents
from csvae_hub.sharing import gathered
from csvae_hub.training.guards import constant_answer
from csvae_hub.training.parts._common import Edited, disturbance, follow_class_means, switch_one_attribute
from csvae_hub.training.steps import Minimisation, Objective, Part, Step, asked

WIDTH, BETAS = 48, (0.0, 0.99)
R1, R1_EVERY = 0.2, 16
DECODED, EDITED, WRONG = 0.3, 0.5, 0.2
"""Shares of the three kinds of fakes in the critic's loss: decoded, edited, real with wrong attributes."""
READ_DECODED, TRACES = 0.5, 0.03
"""Weights in the critic's loss of reading decoded pictures, and the switched attribute of edited ones as it was."""
MATCHING, LOCALITY, SWITCHED, OTHERS = 5.0, 10.0, 8.0, 4.0
"""Weights beside the other terms of the model; the last two are those of attributes in recognition."""
READS, NEWEST, LESSONS = 0.7, 0.02, 5000
"""The critic can read where it loses less than this share of what a constant answer loses; of a running mean, in which
the newest batch has this share. After so many batches it goes to work as it is: some labels nobody can read."""
RISE = 2000
"""Batches over which the weight of the model's terms rises from 0, once it can: it learns what is real meanwhile."""
NEVER = 0.02
"""Attributes that fewer than this share of the pictures of a class have do not go with the class."""


@dataclass(frozen=True)
class Options:
    """weight: of the terms together; the reconstruction of a picture is thousands of nats."""

    weight: float = 6000.0


class Network(nn.Module):
    """D: strided convolutions down to 4×4, one hidden layer; a score of reality, and two numbers for each attribute."""

    def __init__(self, channels: int, size: int, attributes: int) -> None:
        super().__init__()
        widths = [channels]
        while size > 4:
            widths.append(WIDTH * min(8, 2 ** (len(widths) - 1)))
            size //= 2
        self.convolutions = nn.ModuleList([nn.Conv2d(i, o, 4, 2, 1) for i, o in zip(widths, widths[1:], strict=False)])
        self.hidden, self.out = nn.Linear(widths[-1] * size**2, 256), nn.Linear(256, 1 + 2 * attributes)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """D(x, y) (B,) of pictures x (B, C, H, W) in [0, 1] and y (B, k), logits of y (B, k), features on the way."""
        h, features = 2 * x - 1, []
        for convolution in self.convolutions:
            h = F.leaky_relu(convolution(h), 0.2)
            features.append(h)
        k = y.shape[1]
        u, v, logits = self.out(F.leaky_relu(self.hidden(h.flatten(1)), 0.2)).float().split([1, k, k], 1)
        return u[:, 0] + ((2 * y - 1) * v).sum(1) / k**0.5, logits, features


def exclusions(labels: Tensor) -> Tensor:
    """The values of attributes that do not go together: bool (k, 2, k, 2) of labels (N, k), NaN where missing.

    [i, a, j, b] is true where fewer than 2 % of the pictures with y_i = a have y_j = b.
    """
    classes = torch.stack([labels == 0, labels == 1], 2).flatten(1).float()
    together = (classes.T @ classes).unflatten(1, (-1, 2))
    shares = together / together.sum(2, keepdim=True).clamp(min=1)
    return ((shares < NEVER) & (together.sum(2, keepdim=True) > 0)).unflatten(0, (-1, 2))


class Critic(Part):
    r"""D with its own optimiser, and four terms of the model.

    realism: $½ softplus(-D(\hat x, y)) + softplus(-D(x', y'))$. recognition: the cross entropy of attributes by the
    logits at $x'$: 8 times the switched one as wished, 4 times the others as the critic reads them in $\hat x$,
    disturbed alike; their labels would make $x'$ a stronger case of each, and all of them would change. What is
    switched in a group of n counts in the unit of log n, as a plain attribute does in that of log 2. matching: five
    times the mean distance between the critic's features of $\hat x$ and x. locality: ten times the mean change
    $|x'-\hat{x}|$, with a gradient to $x'$ alone: else the classes of w_i would move towards one another, away from the
    prior.

    Where attributes of $y'$ do not go with the one that was switched (black hair where blond hair was wished), they
    count as ½, neither present nor absent: the critic has no word on them. Nor has it on missing labels, of y and of
    $y'$; and it is shown no real picture with a wrong attribute whose right one is missing.
    """

    Options = Options
    steps: Tensor
    lessons: Tensor
    reading: Tensor
    exclusions: Tensor
    decided: Tensor

    def __init__(self, options: Any, objective: Objective) -> None:
        super().__init__(options, objective)
        config = objective.model.config
        check(config.is_image, "parts.critic", "a model of pictures", config.shape)
        self.net = Network(config.shape[0], config.shape[-1], len(config.attributes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # since it can read
        self.register_buffer("lessons", torch.zeros((), dtype=torch.int64))
        self.register_buffer("reading", torch.ones(()))  # its loss as a share of what a constant answer loses
        data = objective.data
        check(data is not None, "parts.critic", "training data, to see which attributes go together", data)
        assert data is not None
        groups, labels = objective.model.config.groups, torch.from_numpy(data.drawn_labels)
        self.register_buffer("exclusions", exclusions(labels))
        decided = torch.eye(len(config.attributes), dtype=torch.bool)  # by a switch: the attribute, and its group
        for group in map(list, groups):
            decided[[[i] for i in group], group] = True
        self.register_buffer("decided", decided, persistent=False)
        self.questions = len(config.attributes) - sum(len(group) - 1 for group in groups)  # a group is one
        self.edit: Edited | None = None
        self.works = False  # in this batch; asked once, since a GPU has to be waited for
        objective.also = lambda latents: self._edits(objective.model, latents)
        parameters = list(self.net.parameters())
        self.sees_nothing = constant_answer(labels, groups)["loss"] or 1.0  # 0 where there is nothing to read
        reading = (1 + READ_DECODED + TRACES) * self.sees_nothing / self.questions
        self.chance = (1 + DECODED + EDITED + WRONG) * log(2) + reading
        objective.minimisations.append(Minimisation("critic", parameters, self.losses, 1.0, BETAS, True, self.chance))
        objective.betas = (0.5, 0.99)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The model's terms, on the decoded pictures and on the same with one attribute switched; none at first."""
        if not self.works:
            return {}
        model, decoded, edited, edit = step.objective.model, step.out.p_x.mean, step.out.also, self.edit
        assert edited is not None
        assert edit is not None
        follow_class_means(step)
        y, batch = step.y.nan_to_num(0.5), len(decoded)
        wished = self._plausible(edit).masked_fill(step.y.isnan() & ~self.decided[edit.which], 0.5)
        before = step.y.masked_fill(edit.wished == step.out.y, torch.nan)
        step.kept["critic"] = wished, before, edited.detach()
        alike = disturbance(decoded)
        shown = torch.cat([alike(decoded), alike(edited)])
        score, logits, features = asked(self.net, shown, torch.cat([y, wished]))
        with torch.no_grad():
            *_, of_real = self.net(alike(step.x), y)
        distances = [_per_example(f[:batch] - r) for f, r in zip(features, of_real, strict=True)]
        read = attributes(logits[batch:], model.config.groups)
        decided, unedited = self.decided[edit.which], attributes(logits[:batch].detach(), model.config.groups).mean
        asked_for = torch.where(decided, wished, unedited).masked_fill(wished == 0.5, torch.nan)
        switched = asked_for.masked_fill(~decided, torch.nan)
        unit = log(2) / decided.sum(1).clamp(min=2).log()
        terms = {
            "realism": 0.5 * F.softplus(-score[:batch]) + F.softplus(-score[batch:]),
            "recognition": OTHERS * cross_entropy(read, asked_for.masked_fill(decided, torch.nan))
            + SWITCHED * unit * cross_entropy(read, switched),
            "matching": MATCHING * torch.stack(distances).mean(0),
            "locality": LOCALITY * _per_example(edited - decoded.detach()),
        }
        rise = (self.steps / RISE).clamp(max=1)
        return {name: rise * term for name, term in terms.items()}

    def losses(self, step: Step) -> Iterator[Tensor]:
        """The critic's loss on the pictures of a generative step."""
        if not self.works:
            yield self._lesson(step)
            return
        (wished, before, edited), x, y = step.kept["critic"], step.x, step.y.nan_to_num(0.5)
        half, groups = len(x) // 2, step.objective.model.config.groups
        decoded = step.out.p_x.mean.detach()[:half]
        wrong = x[half:]
        seen = torch.cat([x, decoded, edited, wrong])
        seen = disturbance(seen)(seen)
        score, logits, _ = self.net(seen, torch.cat([y, y[:half], wished, wished[half:]]))
        real, of_decoded, of_edited, of_wrong = score.split([len(x), half, len(x), len(wrong)])
        loss = F.softplus(-real).mean() + DECODED * F.softplus(of_decoded).mean()
        known = ~before.isnan().all(1)  # the label that was switched
        loss = loss + EDITED * F.softplus(of_edited).mean() + WRONG * (F.softplus(of_wrong) * known[half:]).mean()
        read = [attributes(part, groups) for part in logits[: 2 * len(x) + half].split([len(x), half, len(x)])]
        seen_as = cross_entropy(read[0], step.y).mean() + READ_DECODED * cross_entropy(read[1], step.y[:half]).mean()
        loss = loss + seen_as / self.questions + TRACES * cross_entropy(read[2], before).mean()
        if self.steps % R1_EVERY == 0:
            some = seen[:half].detach().requires_grad_(True)
            with torch.autocast(seen.device.type, enabled=False):  # unscaled, too small for half precision
                (gradient,) = torch.autograd.grad(self.net(some, y[:half])[0].sum(), some, create_graph=True)
            loss = loss + R1_EVERY * 0.5 * R1 * gradient.square().flatten(1).sum(1).mean()
        self.steps += 1
        yield loss

    def reads(self) -> bool:
        """True once it has learned to read, or will not."""
        return bool((self.reading < READS) | (self.lessons >= LESSONS))

    def _lesson(self, step: Step) -> Tensor:
        """The loss of reading real pictures alone, in the unit of the whole loss."""
        logits = self.net(disturbance(step.x)(step.x), step.y.nan_to_num(0.5))[1]
        read = cross_entropy(attributes(logits, step.objective.model.config.groups), step.y) / self.sees_nothing
        self.reading.lerp_(gathered(read).mean(), NEWEST)
        self.lessons += 1
        return self.chance * read.mean()

    def _edits(self, model: AttributeModel, latents: Latents) -> Latents:
        self.works = self.reads()
        if not self.works:
            return latents[:0]
        self.edit = switch_one_attribute(model, latents, donors=0.5)
        return self.edit.latents

    def _plausible(self, edit: Edited) -> Tensor:
        """The wished attributes (B, k), with ½ for the attributes that do not go with the one that was switched."""
        rows, classes = torch.arange(len(edit.which), device=edit.which.device), edit.wished.round().long()
        of_switched = self.exclusions[edit.which, classes[rows, edit.which]]
        excluded = of_switched.gather(2, classes[:, :, None])[:, :, 0]
        excluded[rows, edit.which] = False
        return edit.wished.masked_fill(excluded, 0.5)


def _per_example(difference: Tensor) -> Tensor:
    """Mean absolute value of each example: (B, …) to (B,)."""
    return difference.float().abs().flatten(1).mean(1)
