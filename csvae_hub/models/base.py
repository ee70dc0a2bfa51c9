"""What every model of the family can do, whatever carries its attributes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from csvae_hub import hub
from csvae_hub.backbones import create_backbone
from csvae_hub.config import FORMAT_VERSION, ModelConfig, check, from_dict, to_dict
from csvae_hub.errors import ConfigError, WeightsMismatchError, unknown_attribute
from csvae_hub.images import ImageBatch, Preprocessor, load_images
from csvae_hub.models.latents import Latents

Value = bool | float | str | Path | Sequence[float] | Tensor | Latents | Any
"""What an attribute can be set to: see `AttributeModel.set_attribute`."""

L = TypeVar("L")


class AttributeModel(nn.Module, ABC):
    """A generative model of images (or vectors) whose attributes can be read and changed.

    Args:
        config: the model's sizes, attributes, priors and backbone.
        preprocessor: how pictures become tensors; by default the centre square at the model's size.
    """

    name: str
    """The value of `ModelConfig.model` that stands for this class."""

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__()
        if config.model != self.name:
            raise ConfigError(f"model: expected {self.name!r} for {type(self).__name__}, got {config.model!r}")
        self.config = config
        self.preprocessor = preprocessor or Preprocessor(size=config.image_size if config.is_image else 64)
        size = self.preprocessor.size
        fits = not config.is_image or size == config.image_size
        check(fits, "preprocessor.size", f"the {config.shape[-1]} pixels of the model's shape", size)
        self.backbone = create_backbone(config.backbone, config.shape, config.z_dim, self.condition_dim(config))

    # -- what a member of the family fills in ---------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def condition_dim(config: ModelConfig) -> int:
        """How many numbers the decoder is told beside z."""

    @abstractmethod
    def encode_tensor(self, x: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None) -> Latents:
        """Latents of x (B, *shape); y (B, k) may hold NaN and may be None."""

    @abstractmethod
    def decode_tensor(self, latents: Latents) -> Tensor:
        """E p(x | …) for a batch of latents: (B, *shape)."""

    @abstractmethod
    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """The latents with one attribute changed."""

    @abstractmethod
    def sample_latents(self, n: int, y: Tensor, generator: torch.Generator | None) -> Latents:
        """N latents from the prior, given attributes y (n, k)."""

    @abstractmethod
    def attribute_logits(self, x: Tensor) -> Tensor:
        """Logits (B, k) of q(y | x) for x (B, *shape)."""

    def settle(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Computes what takes the whole training data once the weights are final; by default nothing.

        Args:
            batches: of x (B, *shape) and y (B, k).
        """

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
        return self.encode_tensor(tensor, None if y is None else y.to(tensor), sample, generator)

    def decode(self, latents: Latents | Tensor, w: Tensor | None = None) -> Tensor:
        """E p(x | w, z): images (B, C, H, W) in [0, 1], or vectors (B, D).

        Args:
            latents: what `encode` gave, or z (B, z_dim) with `w` beside it.
            w: (B, k, w_dim), when `latents` is z.
        """
        if isinstance(latents, Tensor):
            if w is None:
                raise ValueError("decode(z) needs w of shape (B, k, w_dim) beside it: decode(z, w)")
            y = torch.full((len(latents), len(self.attributes)), torch.nan, device=latents.device)
            latents = Latents(latents, w, y, self.attributes)
        elif w is not None:
            raise ValueError("decode(latents) holds w already: use decode(latents) or decode(z, w)")
        return self.decode_tensor(latents)

    def set_attribute(
        self, images: Any, name: str, value: Value = True, *, generator: torch.Generator | None = None
    ) -> Any:
        """Changes one attribute and gives back the same kind of thing it was given.

        Args:
            images: anything `load_images` takes, or `Latents`.
            name: the attribute.
            value: True or False for the class mean; a float (0 absent, 1 present, beyond extrapolates); `w_dim`
                coordinates in the subspace; another image or `Latents`, whose attribute is taken over; or "sample".
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
            latents = self.encode_tensor(tensor, None, False, None)
        for name, value in values.items():
            latents = self.edit_latents(latents, name, value, generator)
        if isinstance(images, Latents):
            return latents
        return self._restored(self.decode_tensor(latents), batch)

    @torch.no_grad()
    def reconstruct(self, x: Any) -> Any:
        """decode(encode(x)), as the same kind of thing as x."""
        tensor, batch = self._tensor(x)
        return self._restored(self.decode_tensor(self.encode_tensor(tensor, None, False, None)), batch)

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """N images (n, C, H, W) in [0, 1] from the prior.

        Args:
            n: how many.
            y: attributes (k,) for all or (n, k); by default each is drawn with probability ½.
            generator: the source of the draws, on the CPU.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 image to sample, got {n}")
        k = len(self.attributes)
        if y is None:
            y = torch.rand(n, k, generator=generator).round()
        if tuple(y.shape) not in ((k,), (n, k)):
            raise ValueError(f"y: expected shape ({k},) or ({n}, {k}), got {tuple(y.shape)}")
        y = y.to(self.device, torch.float32).expand(n, k)
        return self.decode_tensor(self.sample_latents(n, y, generator))

    @torch.no_grad()
    def predict_attributes(self, images: Any) -> dict[str, Tensor]:
        """The probability (B,) of each attribute by q(y | x)."""
        probabilities = self.attribute_logits(self._tensor(images)[0]).float().sigmoid()
        return dict(zip(self.attributes, probabilities.unbind(1), strict=True))

    # -- weights --------------------------------------------------------------------------------------------------

    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype | None = None, extra: Mapping[str, dict[str, Any]] | None = None
    ) -> None:
        """Writes config.json, model.safetensors and preprocessor.json, and further JSON files by name.

        Args:
            folder: made where missing; each file is replaced whole.
            dtype: float16 halves the file; by default the parameters' own type.
            extra: more files, such as {"training.json": {...}}.
        """
        from csvae_hub import __version__

        config = {"format_version": FORMAT_VERSION, "csvae_hub_version": __version__, **to_dict(self.config)}
        state = {
            k: v.detach().to("cpu", dtype if dtype is not None and v.is_floating_point() else v.dtype).contiguous()
            for k, v in self.state_dict().items()
        }
        files = {"preprocessor.json": to_dict(self.preprocessor), **(extra or {})}
        hub.save_weights(folder, config, state, files)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        strict: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Self:
        """Loads a model from a folder or by the name of a packaged one, in eval mode.

        Args:
            name_or_path: a weights folder, or a name that `list_models(pretrained=True)` gives.
            strict: refuse weights with tensors that the model doesn't know; missing ones are always refused.
            device: by default CUDA where there is one, else the CPU.
            dtype: torch's type or its name; by default float32.

        Raises:
            UnknownModelError: no such folder and no such packaged name.
            WeightsError: a file is missing, corrupt or doesn't fit; the subclass says which.
            ConfigError: config.json holds what can't be.
        """
        folder = hub.resolve(name_or_path)
        config_json, state = hub.load_weights(folder)
        config = from_dict(ModelConfig, {k: v for k, v in config_json.items() if k not in _HEADER})
        preprocessor = from_dict(Preprocessor, hub.read_json(folder / "preprocessor.json"))
        with torch.device("meta"):
            model = cls(config, preprocessor)
        _check_state(model.state_dict(), state, folder, strict)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model.to_empty(device=place)
        model.to(_dtype(dtype))
        model.load_state_dict(state, strict=strict)
        return model.eval()

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


_HEADER = ("format_version", "csvae_hub_version")


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype: expected a floating type such as 'float32' or 'bfloat16', got {dtype!r}")
    return found


def _check_state(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], folder: Path, strict: bool) -> None:
    missing, further = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or (strict and further):
        raise WeightsMismatchError(
            f"{folder}: model.safetensors is not of the model that config.json describes: {len(missing)} tensors"
            f" missing ({', '.join(missing[:3])}), {len(further)} unknown ({', '.join(further[:3])})."
            " Use the files of one model"
        )
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise WeightsMismatchError(
                f"{folder}: {name}: expected shape {tuple(tensor.shape)} by config.json,"
                f" got {tuple(state[name].shape)} in model.safetensors. Use the files of one model"
            )
