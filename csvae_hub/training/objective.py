r"""What training minimises: METHOD's two objectives, and the options beyond the paper, each off by default.

min over θ, φ, γ :  β1·reconstruction + β2·kl_w + β3·kl_z + β4·negative_entropy
min over δ       :  β5·adversary
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from csvae_hub import losses
from csvae_hub.config import check
from csvae_hub.models.base import AttributeModel, Output


@dataclass(frozen=True)
class ObjectiveConfig:
    """The weights β1 … β5 of the paper's terms (toy setting: 20, 1, 0.2, 1000, 100), and what is ours beside them.

    A weight of a term that the model doesn't have is not used.

    negative_cross_entropy: weight of minus the adversary's cross entropy, which stands for β4 in CondVAE-info.
    confusion: weight of `losses.confusion`, which pushes where the entropy no longer does (ours).
    classifier: weight of the cross entropy of q(y | x), which takes no part in the bound.
    adversary_steps: steps of the adversary on every batch; 1 is the paper's.
    adversary_memory: how many batches of latents, the newest included, these steps draw from; 1 is the paper's.
    adversary_mean: the adversary reads E[z | x], as a fresh probe does, instead of a sample of q(z | x).
    balanced: both classes of an attribute count alike in the adversary's loss.
    consistency: weight of the guide's cross entropy on pictures edited in training; 0 needs no guide. The guide is a
        frozen classifier that never saw the model.
    others: weight, relative to `consistency`, of the guide's divergence on the attributes that were not edited.
    rest_consistency: the same by the model's own q(y | x), which no longer learns, while the encoder rests; it needs no
        guide, and keeps the other attributes with the same relative weight.
    invariance: weight of `losses.invariance` between the posteriors of z on decoded pictures and on the same with other
        pictures' attributes (ours): it teaches the encoder of z to overlook what the decoder draws from w.
    edited_share: share of each batch that is edited, for the guide and for the invariance.
    transferred_edits: share of the edits in training that take w_i of another picture of the batch.
    sampled_edits: share that draws from p(w_i | y_i); the rest go to the mean of the wished class or beyond it, by up
        to half of the way between the two classes.
    frozen: names of the model's modules that rest, batch norm's moments included.
    """

    reconstruction: float = 1.0
    kl_w: float = 1.0
    kl_z: float = 1.0
    negative_entropy: float = 1.0
    negative_cross_entropy: float = 1.0
    confusion: float = 0.0
    adversary: float = 1.0
    classifier: float = 1.0
    adversary_steps: int = 1
    adversary_memory: int = 1
    adversary_mean: bool = False
    balanced: bool = False
    consistency: float = 0.0
    others: float = 1.0
    rest_consistency: float = 0.0
    invariance: float = 0.0
    edited_share: float = 1.0
    transferred_edits: float = 0.4
    sampled_edits: float = 0.1
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*WEIGHTS, "adversary"):
            value = getattr(self, name)
            check(0 <= value < float("inf"), f"objective.{name}", "a number of 0 or more", value)
        for name in ("adversary_steps", "adversary_memory"):
            check(1 <= getattr(self, name) <= 1000, f"objective.{name}", "1 to 1000", getattr(self, name))
        check(0 < self.edited_share <= 1, "objective.edited_share", "a share above 0, at most 1", self.edited_share)
        for name, most in (("transferred_edits", 1.0), ("sampled_edits", 1.0 - self.transferred_edits)):
            value = getattr(self, name)
            check(0 <= value <= most + 1e-9, f"objective.{name}", f"a share from 0 to {most:g}", value)

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the generative terms' means: the one place where weights are applied."""
        weights = {name: getattr(self, name) for name in WEIGHTS}
        weights["others"] *= self.consistency
        weights["rest_others"] = self.rest_consistency * self.others
        return torch.stack([weights[name] * term.mean() for name, term in terms.items()]).sum()


WEIGHTS = (
    "reconstruction",
    "kl_w",
    "kl_z",
    "negative_entropy",
    "negative_cross_entropy",
    "confusion",
    "classifier",
    "consistency",
    "others",
    "rest_consistency",
    "invariance",
)


class Objective(nn.Module):
    """The losses of a model of the family for a trainer that alternates its two steps on every batch.

    Args:
        model: what is trained.
        config: the weights and options.
        guide: images (B, C, H, W) to logits (B, k); frozen here; needed where `config.consistency` is not 0.
        share: (k,), the share of the training examples that have each attribute, for `config.balanced`.

    Raises:
        ConfigError: a consistency term without a guide, or for vectors.
    """

    share: Tensor
    memory_z: Tensor
    memory_y: Tensor

    def __init__(
        self,
        model: AttributeModel,
        config: ObjectiveConfig,
        guide: nn.Module | None = None,
        share: Tensor | None = None,
    ) -> None:
        super().__init__()
        check(
            guide is not None or not config.consistency,
            "objective.consistency",
            "0 where there is no guide",
            config.consistency,
        )
        for name in ("consistency", "rest_consistency", "invariance"):
            weight = getattr(config, name)
            pictures = not weight or model.config.is_image or name == "invariance"
            check(pictures, f"objective.{name}", "0 for a model of vectors", weight)
            edits = not weight or model.trains_edits
            check(edits, f"objective.{name}", f"0 for {model.name}, which has no edits to train", weight)
        self.model, self.config = model, config
        modules = dict(model.named_modules())
        for name in config.frozen:
            check(name in modules, "objective.frozen", "names of the model's modules, such as 'q_z'", name)
        self.frozen = [modules[name].requires_grad_(False) for name in config.frozen]
        self.guide = None if guide is None else guide.requires_grad_(False).eval()
        k = len(model.attributes)
        self.register_buffer("share", torch.full((k,), 0.5) if share is None else share.float().clamp(0.01, 0.99))
        self.register_buffer("memory_z", torch.zeros(0, model.config.z_dim))
        self.register_buffer("memory_y", torch.zeros(0, k))
        self._newest = 0

    @property
    def adversary_steps(self) -> int:
        """Adversary steps on every batch; none while the encoder rests."""
        return 0 if self.model.resting else self.config.adversary_steps

    def adversary_parameters(self) -> list[nn.Parameter]:
        """δ; none where the model has no adversary."""
        net = self.model.adversary_net
        return [] if net is None else list(net.parameters())

    def generative_parameters(self) -> list[nn.Parameter]:
        """θ, φ, γ and the attribute classifier's."""
        adversary = {id(p) for p in self.adversary_parameters()}
        return [p for p in self.model.parameters() if p.requires_grad and id(p) not in adversary]

    def train(self, mode: bool = True) -> Objective:
        """As for any module, but the guide and what is frozen stay in eval mode."""
        super().train(mode)
        for module in (*self.frozen, *([] if self.guide is None else [self.guide])):
            module.eval()
        return self

    def generative_step(self, images: Tensor, attributes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of θ, φ, γ on images (B, *shape) and attributes (B, k), and its terms' means in nats per example."""
        config, model = self.config, self.model
        net = None if model.resting else model.adversary_net
        if net is not None:
            net.eval()  # its running moments are the adversary's own business
        out = model(images, attributes)
        terms = {**model.bound(out, images), "classifier": losses.classification(out.attribute_logits, attributes)}
        if net is not None:
            seen = out.q_z.mean if config.adversary_mean else out.z
            logits = _untrained(net, seen)
            terms |= model.forgetting(logits, attributes, self.share if config.balanced else None)
            if config.confusion:
                terms["confusion"] = losses.confusion(logits)
            self._remember(seen.detach(), attributes)
        if self.guide is not None and config.consistency:
            terms["consistency"], terms["others"] = self._edited(self.guide, images, out)
        if model.resting and config.rest_consistency:
            terms["rest_consistency"], terms["rest_others"] = self._edited(self._own, images, out)
        if config.invariance and not model.resting:
            terms["invariance"] = self._invariance(out)
        model.observe(out)
        means = {name: term.detach().mean() for name, term in terms.items()}
        return config.total(terms), means

    def adversary_step(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of δ on the latents of the last generative step.

        With a memory: on half a batch of the newest latents and 1.5 batches of any.
        """
        net = self.model.adversary_net
        assert net is not None
        net.train()
        z, y, newest = self.memory_z, self.memory_y, self._newest
        if len(z) > newest:
            fresh = torch.randperm(newest, device=z.device)[: newest // 2]
            any_time = torch.randint(len(z), (newest + newest // 2,), device=z.device)
            chosen = torch.cat([fresh, any_time])
            z, y = z[chosen], y[chosen]
        term = losses.adversary(net(z), y, self.share if self.config.balanced else None).mean()
        return self.config.adversary * term, {"adversary": term.detach()}

    def _remember(self, z: Tensor, y: Tensor) -> None:
        kept = (self.config.adversary_memory - 1) * len(z)
        self.memory_z = torch.cat([z, self.memory_z[:kept]])
        self.memory_y = torch.cat([y, self.memory_y[:kept]])
        self._newest = len(z)

    def _own(self, pictures: Tensor) -> Tensor:
        """Logits (B, k) of the model's own q(y | x), whose gradient reaches the pictures (B, C, H, W) alone."""
        backbone = self.model.backbone
        training = backbone.training
        backbone.eval()
        logits = _untrained(_Reader(self.model), pictures)
        backbone.train(training)
        return logits

    def _edited(self, guide: Callable[[Tensor], Tensor], images: Tensor, out: Output) -> tuple[Tensor, Tensor]:
        """Changes one attribute of each picture, drawn at random, and asks the guide: `losses.consistency`."""
        config, k, device = self.config, out.y.shape[1], out.y.device
        batch = max(1, round(config.edited_share * len(images)))
        rows, which = torch.arange(batch, device=device), torch.randint(k, (batch,), device=device)
        wished = out.y[:batch].clone()
        wished[rows, which] = 1 - wished[rows, which]
        latents = self.model.edited_in_training(out, which, wished, config.transferred_edits, config.sampled_edits)
        pictures = disturbed(self.model.decode_tensor(latents))
        with torch.no_grad():
            before = guide(images[:batch]).float()
        return losses.consistency(guide(pictures).float(), before, wished, which)

    def _invariance(self, out: Output) -> Tensor:
        """`losses.invariance` of decoded pictures and the same with other attributes; the decoder only looks on."""
        model, batch = self.model, max(1, round(self.config.edited_share * len(out.z)))
        training = model.backbone.training
        model.backbone.eval()  # batch norm's moments are those of real pictures
        with torch.no_grad():
            shuffled = model.shuffled(out, batch)
            pictures = torch.cat([out.p_x.mean[:batch], model.decode_tensor(shuffled)])
        features = model.backbone.encode(pictures)
        model.backbone.train(training)
        own, other = features.chunk(2)
        return losses.invariance(model.q_z_given(own, out.y[:batch]), model.q_z_given(other, shuffled.y))


class _Reader(nn.Module):
    """The encoder and q(y | x): pictures (B, C, H, W) to logits (B, k)."""

    def __init__(self, model: AttributeModel) -> None:
        super().__init__()
        self.backbone, self.q_y = model.backbone, model.q_y

    def forward(self, pictures: Tensor) -> Tensor:
        return self.q_y(self.backbone.encode(pictures))


def disturbed(images: Tensor) -> Tensor:
    """Images (B, C, H, W) moved by up to 2 pixels, half of the batches at half resolution, with noise of 0.02.

    The guide sees edited pictures like this, so that no fine pattern that only this guide reads pays.
    """
    moves = torch.randint(-2, 3, (2,)).tolist()
    if torch.rand(()) < 0.5:
        images = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    images = images.roll(moves, (2, 3))
    return (images + 0.02 * torch.randn_like(images)).clamp(0, 1)


def _untrained(net: nn.Module, x: Tensor) -> Tensor:
    """The answer of a network to x whose gradient reaches x alone."""
    return functional_call(net, {name: p.detach() for name, p in net.named_parameters()}, x)
