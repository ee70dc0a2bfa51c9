"""What every model of the family can do, whatever carries its attributes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from csvae_hub import distributions, losses
from csvae_hub.backbones import create_backbone, with_package
from csvae_hub.backbones.mlp import mlp
from csvae_hub.config import ModelConfig, check
from csvae_hub.errors import ConfigError, unknown_attribute
from csvae_hub.images import ImageBatch, Preprocessor, load_images
from csvae_hub.models.latents import Latents
from csvae_hub.models.pretrained import Pretrained
from csvae_hub.models.resting import Resting

Value = bool | float | str | Path | Sequence[float] | Tensor | Latents | Any
"""What an attribute can be set to: see `AttributeModel.set_attribute`."""


@dataclass(frozen=True)
class Output:
    """One pass with a sample of the posteriors: what the losses need. `y` is free of NaN: the gaps are q(y | x)'s."""

    q_z: Independent
    p_x: Independent
    z: Tensor
    y: Tensor
    attribute_logits: Tensor


class AttributeModel(Resting, Pretrained, ABC):
    """A generative model of images (or vectors) whose attributes can be read and changed.

    Args:
        config: the model's sizes, attributes, priors and backbone.
        preprocessor: how pictures become tensors; by default the centre square at the model's size.
    """

    needs = ""
    """What the decoder is told beside z: "w", "y" or nothing."""

    trains_edits = False
    """Whether `edited_in_training` can be asked for."""

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__()
        if config.model != self.name:
            raise ConfigError(f"model: expected {self.name!r} for {type(self).__name__}, got {config.model!r}")
        self.config = config = replace(config, backbone=with_package(config.backbone))
        self.preprocessor = preprocessor or Preprocessor(size=config.image_size if config.is_image else 64)
        size = self.preprocessor.size
        fits = not config.is_image or size == config.image_size
        check(fits, "preprocessor.size", f"the {config.shape[-1]} pixels of the model's shape", size)
        self.backbone = create_backbone(config.backbone, config.shape, config.z_dim, self.condition_dim(config))
        self.adversary_net: nn.Module | None = None
        """q_δ(y | z): z (B, z_dim) to logits (B, k), in the models that have one."""

    # -- what a member of the family fills in ---------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def condition_dim(config: ModelConfig) -> int:
        """How many numbers the decoder is told beside z."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Output:
        """Encodes x (B, *shape) in [0, 1] with y (B, k), 0, 1 or NaN, samples and decodes."""

    @abstractmethod
    def bound(self, out: Any, x: Tensor) -> dict[str, Tensor]:
        """The terms of the negative bound at a forward pass's output, by name: each (B,), in nats."""

    @abstractmethod
    def latents_of(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, features); y (B, k) may hold NaN and may be None."""

    @abstractmethod
    def decode_tensor(self, latents: Latents) -> Tensor:
        """E p(x | …) for a batch of latents: (B, *shape)."""

    @abstractmethod
    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """The latents with one attribute changed."""

    @abstractmethod
    def sample_latents(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Latents:
        """N latents from the prior, given attributes y (n, k) where there are any."""

    # -- what a member may fill in ----------------------------------------------------------------------------------

    def forgetting(self, logits: Tensor, y: Tensor, share: Tensor | None) -> dict[str, Tensor]:
        """What keeps z from saying y, by name, each (B,), in nats: nothing, where there is no adversary.

        Args:
            logits: the adversary's (B, k).
            y: (B, k), NaN where missing.
            share: (k,), the share that has each attribute, where both classes are to count alike.
        """
        return {}

    def observe(self, out: Any) -> None:
        """Takes a forward pass of training into running statistics; by default there are none."""

    def edited_in_training(
        self, out: Any, which: Tensor, wished: Tensor, transferred: float, sampled: float
    ) -> Latents:
        """Latents of the first examples of a forward pass with one attribute each changed, for a guide to judge.

        Args:
            out: of the forward pass.
            which: (B',), the attribute of each, of the first B' examples.
            wished: (B', k), attributes after the edit.
            transferred: share of the edits that take over another picture's kind, where the model has kinds.
            sampled: share that draws a kind from the prior.
        """
        raise ValueError(f"{self.name} has no edits to train: expected a model that changes attributes while it learns")

    def shuffled(self, out: Any, batch: int) -> Latents:
        """Latents of the first examples of a forward pass, each attribute taken over from some other picture of it."""
        raise ValueError(f"{self.name} has no edits to train: expected a model that changes attributes while it learns")

    def q_z_given(self, features: Tensor, y: Tensor) -> Independent:
        """The posterior of z for features (B, features), told y (B, k) where the model's is."""
        return self.q_z(features, y, observe=False)

    def settle(self, batches: Iterable[tuple[Tensor, Tensor]], clear: bool = False) -> None:
        """Computes what takes the whole training data once the weights are final; by default nothing.

        Args:
            batches: of x (B, *shape) and y (B, k).
            clear: class means of subspaces over the clearer half of each class instead of all of it.
        """

    # -- what all have in common --------------------------------------------------------------------------------------

    def prior_z(self) -> Independent:
        """p(z) = N(0, I): event (z_dim,)."""
        zeros = torch.zeros(self.config.z_dim, device=self.device)
        return distributions.diagonal_gaussian(zeros, torch.ones_like(zeros))

    def likelihood(self, mean: Tensor) -> Independent:
        """p(x | …) around the decoder's mean (B, *shape)."""
        return distributions.likelihood(self.config.likelihood.name, mean, self.config.likelihood.scale)

    def attribute_logits(self, x: Tensor) -> Tensor:
        """Logits (B, k) of q(y | x) for x (B, *shape)."""
        return self.q_y(self.backbone.encode(x))

    def adversary(self, z: Tensor) -> Independent:
        """The adversary's q_δ(y | z) for z (B, z_dim): k Bernoullis.

        Raises:
            ValueError: this model has none.
        """
        if self.adversary_net is None:
            raise ValueError(f"{self.name} has no adversary: expected a model that keeps z from the attributes")
        return distributions.bernoullis(self.adversary_net(z))

    def _attribute_head(self) -> nn.Module:
        features = self.config.backbone.features
        return mlp(features, features // 2, len(self.attributes))

    def _decoded(self, z: Tensor, condition: Tensor) -> Tensor:
        """The decoder's mean (B, *shape) for z (B, z_dim) and what else it is told (B, condition_dim)."""
        x = self.backbone.decode(z.to(self.dtype), condition.to(self.dtype)).float()
        return x.sigmoid() if self.config.is_image else x

    def _plain_bound(self, out: Output, x: Tensor) -> dict[str, Tensor]:
        return {"reconstruction": losses.reconstruction(out.p_x, x), "kl_z": losses.kl_z(out.q_z, self.prior_z())}

    def _without_subspaces(self, z: Tensor, y: Tensor) -> Latents:
        return Latents(z, z.new_zeros(len(z), len(self.attributes), 0), y, self.attributes)

    def _random_attributes(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """y, or where it is None attributes (n, k) that are present with probability ½ each."""
        y = torch.rand(n, len(self.attributes), generator=generator).round() if y is None else y
        return y.to(self.device)

    # -- the public API -------------------------------------------------------------------------------------------

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes' names, in the order of y and w."""
        return self.config.attributes

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the parameters."""
        return next(self.parameters()).dtype

    def index(self, name: str) -> int:
        """The position of an attribute.

        Raises:
            UnknownAttributeError: this model has no such attribute; the nearest name is offered.
        """
        if name not in self.attributes:
            raise unknown_attribute(name, self.attributes)
        return self.attributes.index(name)

    def encode(
        self,
        x: Any,
        y: Tensor | None = None,
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Latents:
        """Encodes images (any kind `load_images` takes) or vectors (B, D).

        Args:
            x: the images.
            y: attributes (B, k), 0 or 1; NaN, or None for all, where q(y | x) shall say.
            sample: draw from the posteriors instead of taking their means.
            generator: the source of the draws.

        Raises:
            ImageError: the images can't be read.
            ValueError: y has another shape than (B, k).
        """
        tensor, _ = self._tensor(x)
        if y is not None and tuple(y.shape) != (len(tensor), len(self.attributes)):
            raise ValueError(
                f"y: expected shape ({len(tensor)}, {len(self.attributes)}), one column for each of "
                f"{', '.join(self.attributes)}; got {tuple(y.shape)}"
            )
        return self.latents_of(self.backbone.encode(tensor), None if y is None else y.to(tensor), sample, generator)

    def decode(self, latents: Latents | Tensor, w: Tensor | None = None, *, y: Tensor | None = None) -> Tensor:
        """E p(x | …): images (B, C, H, W) in [0, 1], or vectors (B, D).

        Args:
            latents: what `encode` gave, or z (B, z_dim) with what the model needs beside it.
            w: (B, k, w_dim), beside z, for a model with subspaces.
            y: (B, k), beside z, for a model whose decoder is told the attributes.

        Raises:
            ValueError: something is missing or too much.
        """
        if isinstance(latents, Tensor):
            latents = self._assembled(latents, w, y)
        elif w is not None or y is not None:
            raise ValueError("decode(latents) holds w and y already: use decode(latents), or decode(z, ...)")
        return self.decode_tensor(latents)

    def _assembled(self, z: Tensor, w: Tensor | None, y: Tensor | None) -> Latents:
        k = len(self.attributes)
        if w is None and self.needs == "w":
            raise ValueError("decode(z) needs w of shape (B, k, w_dim) beside it: decode(z, w)")
        if y is None and self.needs == "y":
            raise ValueError("decode(z) needs y of shape (B, k) beside it: decode(z, y=y)")
        y = torch.full((len(z), k), torch.nan, device=z.device) if y is None else y
        return Latents(z, z.new_zeros(len(z), k, 0) if w is None else w, y, self.attributes)

    def set_attribute(
        self, images: Any, name: str, value: Value = True, *, generator: torch.Generator | None = None
    ) -> Any:
        """Changes one attribute and gives back the same kind of thing it was given.

        Args:
            images: anything `load_images` takes, or `Latents`.
            name: the attribute.
            value: True or False for the class mean; a float (0 absent, 1 present, beyond extrapolates); `w_dim`
                coordinates in the subspace; another image or `Latents`, whose attribute is taken over; or "sample".
                A model without subspaces takes no coordinates, and to it "sample" is True.
            generator: the source of the draws of "sample".

        Raises:
            UnknownAttributeError: this model has no such attribute.
            ImageError: an image can't be read.
            ValueError: the value can't be understood.
        """
        return self.edit(images, {name: value}, generator=generator)

    @torch.no_grad()
    def edit(self, images: Any, values: Mapping[str, Value], *, generator: torch.Generator | None = None) -> Any:
        """Changes several attributes at once: `edit(images, {"Smiling": 0.7, "Hat": True})`; see `set_attribute`."""
        for name in values:
            self.index(name)
        batch: ImageBatch | None = None
        if isinstance(images, Latents):
            latents = images
        else:
            tensor, batch = self._tensor(images)
            latents = self.latents_of(self.backbone.encode(tensor), None, False, None)
        for name, value in values.items():
            latents = self.edit_latents(latents, name, value, generator)
        if isinstance(images, Latents):
            return latents
        return self._restored(self.decode_tensor(latents), batch)

    @torch.no_grad()
    def reconstruct(self, x: Any) -> Any:
        """decode(encode(x)), as the same kind of thing as x."""
        tensor, batch = self._tensor(x)
        return self._restored(
            self.decode_tensor(self.latents_of(self.backbone.encode(tensor), None, False, None)), batch
        )

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """N images (n, C, H, W) in [0, 1] from the prior.

        Args:
            n: how many.
            y: attributes (k,) for all or (n, k); by default each is drawn with probability ½.
            generator: the source of the draws, on the CPU.

        Raises:
            ValueError: n below 1, y of another shape, or y for a model that can't be told attributes.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 image to sample, got {n}")
        k = len(self.attributes)
        if y is not None:
            if tuple(y.shape) not in ((k,), (n, k)):
                raise ValueError(f"y: expected shape ({k},) or ({n}, {k}), got {tuple(y.shape)}")
            y = y.to(self.device, torch.float32).expand(n, k)
        return self.decode_tensor(self.sample_latents(n, y, generator))

    @torch.no_grad()
    def predict_attributes(self, images: Any) -> dict[str, Tensor]:
        """The probability (B,) of each attribute by q(y | x)."""
        probabilities = self.attribute_logits(self._tensor(images)[0]).float().sigmoid()
        return dict(zip(self.attributes, probabilities.unbind(1), strict=True))

    # -- helpers --------------------------------------------------------------------------------------------------

    def _tensor(self, images: Any) -> tuple[Tensor, ImageBatch | None]:
        if not self.config.is_image:
            if not isinstance(images, Tensor) or images.ndim != 2 or images.shape[1:] != self.config.shape:
                got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise ValueError(f"expected a tensor of vectors (B, {self.config.shape[0]}), got {got}")
            return images.to(self.device, self.dtype), None
        batch = load_images(images, self.preprocessor, self.device)
        tensor = batch.tensor.to(self.dtype)
        if self.config.shape[0] == 1:
            tensor = tensor.mean(1, keepdim=True)
        return tensor.contiguous(memory_format=torch.channels_last), batch

    def _restored(self, tensor: Tensor, batch: ImageBatch | None) -> Any:
        if batch is None:
            return tensor
        return batch.restore(tensor.float().expand(-1, 3, -1, -1))
