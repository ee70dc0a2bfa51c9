"""Pictures in, pictures out: what every model of the family offers its users."""

from __future__ import annotations

import importlib
import os
from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.distributions import Independent

from csvae_hub import distributions, losses
from csvae_hub.backbones import create_backbone, with_package
from csvae_hub.config import ModelConfig, check
from csvae_hub.errors import ConfigError, unknown_attribute
from csvae_hub.images import ImageBatch, Preprocessor, load_images, with_channels
from csvae_hub.models.base import Also, Model, Output
from csvae_hub.models.groups import with_groups
from csvae_hub.models.kinds import gives_the_kind_it_takes
from csvae_hub.models.latents import Latents
from csvae_hub.models.modes import evaluating, has_gradient, tensors_in
from csvae_hub.models.pretrained import Pretrained
from csvae_hub.networks import Adversary, Decoder, PosteriorY, PosteriorZ

Value: TypeAlias = (
    bool | float | str | os.PathLike[str] | Sequence[float] | Tensor | Latents | Image.Image | NDArray[Any] | np.generic
)
"""A value of an attribute: see `AttributeModel.set_attribute`."""


PIXELS_AT_ONCE = 2**16
"""Pixels that are decoded together on a CPU."""


class AttributeModel(Pretrained, Model, ABC):
    """A generative model of images (or vectors) whose attributes can be read and changed.

    Args:
        config: the model's sizes, attributes, priors and backbone.
        preprocessor: turns pictures into tensors; by default it takes the centre square at the model's size.
    """

    q_z: PosteriorZ

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__()
        if config.model != self.name:
            raise ConfigError(f"model: expected {self.name!r} for {type(self).__name__}, got {config.model!r}")
        self.config = config = replace(config, backbone=with_package(config.backbone))
        self.preprocessor = preprocessor or Preprocessor(size=config.image_size if config.is_image else 64)
        size = self.preprocessor.size
        fits = not config.is_image or size == config.image_size
        check(fits, "preprocessor.size", f"the {config.shape[-1]} pixels of the model's shape", size)
        condition = self.condition_dim(config)
        self.backbone = create_backbone(config.backbone, config.shape, config.z_dim, condition, config.z_grid)
        self.p_x = Decoder(self.backbone, config.likelihood)
        self.q_y = PosteriorY(config.backbone.features, len(config.attributes), config.groups)
        self.adversary_net = None

    def __repr__(self) -> str:
        config, parameters = self.config, sum(p.numel() for p in self.parameters())
        size = "×".join(map(str, config.shape))
        places = f", in {config.z_grid}×{config.z_grid} places" if config.z_grid > 1 else ""
        return (
            f"{type(self).__name__}({size}, z {config.z_dim}{places}, {len(self.attributes)} attributes: "
            f"{', '.join(self.attributes)}; {config.backbone.name}, {parameters / 1e6:.1f} M parameters, {self.device})"
        )

    # -- distributions --------------------------------------------------------------------------------------------

    def prior_z(self) -> Independent:
        """p(z) = N(0, I): event (z_dim,)."""
        zeros = torch.zeros(self.config.z_dim, device=self.device, dtype=torch.float32)
        return distributions.diagonal_gaussian(zeros, torch.ones_like(zeros))

    def posterior_y(self, x: Tensor) -> Independent:
        """q(y | x) for x (B, *shape): event (k,)."""
        return self.q_y(self.backbone.encode(x))

    def adversary(self, z: Tensor) -> Independent:
        """q_δ(y | z) of the adversary for z (B, z_dim): event (k,).

        Raises:
            ValueError: this model has no adversary.
        """
        if self.adversary_net is None:
            raise ValueError(f"{self.name} has no adversary: expected a model that keeps z from the attributes")
        return self.adversary_net(z)

    # -- the public API -------------------------------------------------------------------------------------------

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes' names, in the order of y and w."""
        return self.config.attributes

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.q_y.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the parameters."""
        return next(self.q_y.parameters()).dtype

    def index(self, name: str) -> int:
        """The position of an attribute.

        Raises:
            UnknownAttributeError: this model has no such attribute; the error offers the nearest name.
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
        """Encodes images (any kind that `load_images` takes) or vectors (B, D).

        In eval mode it keeps gradients to x and y alone; `forward` keeps those to the weights.

        Args:
            x: the images.
            y: attributes (B, k), 0 or 1. q(y | x) fills in NaN, or all for None.
            sample: draw from the posteriors instead of taking their means.
            generator: the source of the draws.

        Raises:
            ImageError: the images can't be read.
            ValueError: y has another shape than (B, k).
        """
        tensor, _ = self._tensor(x)
        if y is not None and tuple(y.shape) != (tensor.shape[0], len(self.attributes)):
            raise ValueError(
                f"y: expected shape ({len(tensor)}, {len(self.attributes)}), one column for each of "
                f"{', '.join(self.attributes)}; got {tuple(y.shape)}"
            )
        with self._recording(x, y):
            features = self.backbone.encode(tensor)
            return self.posterior_latents(features, None if y is None else y.to(tensor), sample, generator)

    def decode(self, latents: Latents | Tensor, w: Tensor | None = None, *, y: Tensor | None = None) -> Tensor:
        """E p(x | …): images (B, C, H, W) in [0, 1], or vectors (B, D).

        Args:
            latents: what `encode` gave, or z (B, z_dim) with the model's other input beside it.
            w: (B, k, w_dim), beside z, for a model with subspaces.
            y: (B, k), beside z, for a model whose decoder reads the attributes.

        Raises:
            ValueError: something is missing or too much.
        """
        if isinstance(latents, Tensor):
            latents = self.latents_of_parts(latents, w, y)
        elif w is not None or y is not None:
            raise ValueError("decode(latents) holds w and y already: use decode(latents), or decode(z, ...)")
        with self._recording(latents):
            parts = latents.to(self.device).split(self._decoded_at_once())
            means = [self.p_x_given(part).mean for part in parts]
        return means[0] if len(means) == 1 else torch.cat(means)

    @gives_the_kind_it_takes
    def set_attribute(
        self, images: Any, name: str, value: Value = True, *, generator: torch.Generator | None = None
    ) -> Any:
        """Changes one attribute and gives back the same kind of thing it was given.

        Of tensors and latents the gradient is kept, of `value` too; other pictures have none.

        Args:
            images: anything that `load_images` takes, or `Latents`.
            name: the attribute.
            value: True or False for the class mean; a float (0 absent, 1 present, beyond extrapolates); `w_dim`
                coordinates in the subspace; another image or `Latents`, whose attribute is taken over; or "sample".
                Other text is read as on the command line: "true", "0.5", "2.5,1.0" or a file's name.
                A model without subspaces takes no coordinates and takes "sample" as True. In a group of attributes that
                exclude one another, one that becomes present makes the others absent; a float or coordinates move one
                subspace alone.
            generator: the source of the draws of "sample".

        Raises:
            UnknownAttributeError: this model has no such attribute.
            ImageError: an image can't be read.
            ValueError: the value can't be understood.
        """
        return self.edit(images, {name: value}, generator=generator)

    @gives_the_kind_it_takes
    def edit(self, images: Any, values: Mapping[str, Value], *, generator: torch.Generator | None = None) -> Any:
        """Changes several attributes at once: `edit(images, {"Smiling": 0.7, "Hat": True})`.

        `images`, each value and `generator` are what `set_attribute` takes, with its errors; the same kind comes back.

        Raises:
            ValueError: no `values`; two attributes that exclude one another are to be present, or one is to be absent
                and none takes its place.

        Warns:
            FramingWarning: a file whose face lies elsewhere than in the training pictures, or that has none.
        """
        if values != {} or not isinstance(images, Latents):
            self.check_values(values)
        values = with_groups(values, self.config.exclusive)
        if self.config.is_image and isinstance(images, str | Path):
            # by its name, since the package that finds faces stands above this one
            importlib.import_module("csvae_hub.editing.framing").warn_of_framing(images, self.preprocessor)
        with self._evaluating(images, *values.values()):
            latents, batch = (images, None) if isinstance(images, Latents) else self._encoded(images)
            for name, value in values.items():
                latents = self.edit_latents(latents, name, value, generator)
            return latents if isinstance(images, Latents) else self._restored(self.decode(latents), batch)

    def check_values(self, values: Any) -> None:
        """Checks that there are `values`, and that this model has their attributes; else raises ValueError."""
        if not isinstance(values, Mapping) or not values:
            raise ValueError(
                f"values: expected at least one attribute with its value, such as {{{self.attributes[0]!r}: True}}, got"
                f" {values!r}; for a picture as the model draws it, reconstruct(x)"
            )
        for name in values:
            self.index(name)

    @gives_the_kind_it_takes
    def reconstruct(self, x: Any) -> Any:
        """decode(encode(x)) of anything that `load_images` takes, or vectors (B, D), as the same kind of thing as x."""
        with self._evaluating(x):
            latents, batch = self._encoded(x)
            return self._restored(self.decode(latents), batch)

    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """N images (n, C, H, W) in [0, 1] from the prior.

        Args:
            n: the number of images.
            y: attributes (k,) for all or (n, k); by default each is present with probability ½.
            generator: the source of the draws, on the CPU.

        Raises:
            ValueError: n below 1, y of another shape, or y for a model whose decoder doesn't read attributes.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 image to sample, got {n}")
        k = len(self.attributes)
        if y is not None:
            if tuple(y.shape) not in ((k,), (n, k)):
                raise ValueError(f"y: expected shape ({k},) or ({n}, {k}), got {tuple(y.shape)}")
            y = y.to(self.device, torch.float32).expand(n, k)
        with self._evaluating(y):
            return self.decode(self.prior_latents(n, y, generator))

    def predict_attributes(self, images: Any) -> dict[str, Tensor]:
        """The probability (B,) of each attribute by q(y | x), in [0, 1]; it sums to one within an exclusive group.

        `images` are anything that `load_images` takes, or vectors (B, D). Raises ImageError if one can't be read.
        """
        with self._evaluating(images):
            return dict(zip(self.attributes, self.posterior_y(self._tensor(images)[0]).mean.unbind(1), strict=True))

    @torch.no_grad()
    def finalize(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Sets the moments of the classes that there are from all training data: batches of x (B, *shape), y (B, k)."""
        self.eval()
        latents = Latents.cat([self.posterior_latents(self.backbone.encode(x), y, False, None) for x, y in batches])
        self.update_class_means(latents, momentum=1.0)
        scales = dict(self.named_buffers()).get("class_scales")
        if scales is None:
            return
        for value in (0, 1):
            member = (latents.y.round() == value).to(latents.w)[..., None]
            squares = (latents.w - self.get_buffer("class_means")[:, value]).square() * member
            scales[:, value] = (squares.sum(0) / member.sum(0).clamp(min=1)).sqrt()

    @torch.no_grad()
    def update_class_means(self, latents: Latents, momentum: float = 0.01) -> None:
        """Moves `class_means` (k, 2, d), absent and present, towards those of a batch; a missing class stays."""
        points = self.class_points(latents)
        if points is None:
            return
        means: Tensor = self.get_buffer("class_means")
        for value in (0, 1):
            member = (latents.y.round() == value).to(points)
            count = member.sum(0)[:, None]
            total = member.T @ points[:, 0] if points.shape[1] == 1 else (points * member[..., None]).sum(0)
            kept = 1 - momentum * (count > 0).to(points)
            means[:, value] = kept * means[:, value] + (1 - kept) * total / count.clamp(min=1)

    @contextmanager
    def _evaluating(self, images: Any, *values: Any) -> Iterator[None]:
        """As in eval mode, whatever the mode; leaves each module's mode as it was.

        Gradients are kept where tensors or latents are given, and one of them or of the values requires one.
        """
        given = bool(tensors_in(images))
        with evaluating(self), torch.set_grad_enabled(given and has_gradient(images, values)):
            yield

    def _recording(self, *given: Any) -> AbstractContextManager[object]:
        """Lets autograd record in training mode; in eval mode only what leads to a tensor that requires a gradient.

        Not inference mode, whose tensors could not be optimised or trained on later. Compiled code stays as it is.
        """
        if torch.compiler.is_compiling():
            return nullcontext()
        return torch.set_grad_enabled(has_gradient(given) or (self.training and torch.is_grad_enabled()))

    def _decoded_at_once(self) -> int | None:
        """The pictures of a part: on a CPU more would take memory, and no less time each. None for all."""
        is_whole = torch.is_grad_enabled() or self.training or torch.compiler.is_compiling()
        if is_whole or self.device.type != "cpu" or not self.config.is_image:
            return None
        return max(1, PIXELS_AT_ONCE // self.config.image_size**2)

    # -- helpers for the members of the family --------------------------------------------------------------------

    def _posterior_z_net(self, **options: Any) -> PosteriorZ:
        config = self.config
        features = config.backbone.features if config.z_grid == 1 else self.backbone.map_channels
        ours = {"correction": config.correction, "min_scale": config.min_scale, "grid": config.z_grid}
        return PosteriorZ(features, config.z_dim, len(config.attributes), **ours, **options)

    def _adversary_net(self) -> Adversary:
        config = self.config
        return Adversary(config.z_dim, len(self.attributes), config.adversary, config.z_grid, config.groups)

    def _filled(self, y: Tensor | None, q_y: Independent) -> Tensor:
        """Attributes (B, k) with the answer of q(y | x) where y is None or NaN."""
        inferred = distributions.most_likely(q_y)
        return inferred if y is None else torch.where(y.isnan(), inferred.to(y), y)

    def _plain_bound(self, out: Output, x: Tensor) -> dict[str, Tensor]:
        return {"reconstruction": losses.reconstruction(out.p_x, x), "kl_z": losses.kl_z(out.q_z, self.prior_z())}

    def _decoded(self, latents: Latents, also: Also) -> tuple[Independent, Tensor | None]:
        """p(x | latents), and the means at `also(latents)`, decoded as one batch: batch norm treats them alike.

        By moments of its own the decoder would know a batch of edited pictures, and draw the edits for such batches
        alone: they would be half as strong after training.
        """
        if also is None:
            return self.p_x_given(latents), None
        own, others = self.p_x_given(Latents.cat([latents, also(latents)])).mean.tensor_split([len(latents)])
        likelihood = self.config.likelihood
        return distributions.likelihood(likelihood.name, own, likelihood.scale), others

    def _without_subspaces(self, z: Tensor, y: Tensor) -> Latents:
        return Latents(z, z.new_zeros(z.shape[0], len(self.attributes), 0), y, self.attributes)

    def _sampled_z(self, n: int, generator: torch.Generator | None) -> Tensor:
        return distributions.noise((n, self.config.z_dim), generator).to(self.device)

    def _random_attributes(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """y, or where it is None attributes (n, k) that are present with probability ½ each."""
        if y is None:
            where = generator.device if generator else "cpu"
            noise = torch.rand(n, len(self.attributes), generator=generator, device=where, dtype=torch.float32)
            y = distributions.most_likely(distributions.attributes(noise - 0.5, self.config.groups))
        return y.to(self.device)

    def _unknown(self, z: Tensor) -> Tensor:
        """Attributes (B, k) of which nothing is known: NaN."""
        return z.new_full((z.shape[0], len(self.attributes)), torch.nan)

    def _encoded(self, images: Any) -> tuple[Latents, ImageBatch | None]:
        tensor, batch = self._tensor(images)
        return self.posterior_latents(self.backbone.encode(tensor), None, False, None), batch

    def _tensor(self, images: Any) -> tuple[Tensor, ImageBatch | None]:
        if not self.config.is_image:
            if not isinstance(images, Tensor) or images.ndim != 2 or images.shape[1:] != self.config.shape:
                got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise ValueError(f"expected a tensor of vectors (B, {self.config.shape[0]}), got {got}")
            return images.to(self.device, self.dtype), None
        dtype = torch.promote_types(self.dtype, torch.float32)
        batch = load_images(images, self.preprocessor, self.device, dtype)
        tensor = with_channels(batch.tensor.to(self.dtype), self.config.shape[0])
        return tensor.contiguous(memory_format=torch.channels_last), batch

    def _restored(self, tensor: Tensor, batch: ImageBatch | None) -> Any:
        if batch is None:
            return tensor
        return batch.restore(distributions.precise(tensor).expand(-1, 3, -1, -1))
