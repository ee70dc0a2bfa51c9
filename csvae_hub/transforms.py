"""Edits as a step of other pipelines: a torchvision transform, and counterfactual pairs. Imports torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from csvae_hub.editing.blending import Paste, check_paste
from csvae_hub.errors import ImageError
from csvae_hub.images import load_images, to_picture, with_channels
from csvae_hub.models.editable import AttributeModel, Value
from csvae_hub.models.groups import group_of
from csvae_hub.models.latents import Latents

WORDS = ("flip", "random", "sample")
"""Words for `value`, besides the values of `AttributeModel.set_attribute` and functions."""

FLOOR = 0.05
"""A change of this size, in units of x, is the least that "changed" pastes whole; half of it is never pasted."""

_MODES = ("L", "LA", "RGB", "RGBA")


class RandomSetAttribute(v2.Transform):
    """Edits an attribute of aligned faces with a probability, each example of a batch on its own.

    Takes what torchvision's v2 transforms take: one picture (a PIL image, a `tv_tensors.Image` or a tensor), or a
    sample that holds one beside other things, which pass through untouched: labels, boxes, masks, text. Tensors are
    (C, H, W) or batches (B, C, H, W) with C of 3 or 1, uint8, or floats in [0, 1], so this step belongs before
    `v2.Normalize`. Kind, size and type stay, and pictures that are not edited keep their values to the bit. Several
    pictures in one sample share the draw. Pixels are taken as they lie: EXIF is not read.

    Draws come from torch's global generator, which DataLoader seeds anew in each worker: workers draw differently, and
    the same `torch.manual_seed` gives the same draws.

    Args:
        model: a model of images in eval mode; or a packaged name, folder or Hub repo, which is loaded on the CPU when
            first needed, in each process anew, and travels to workers as its name.
        name: the attribute.
        value: "flip" for the class that q(y | x) does not see; "random" for absent or present by the toss of a coin;
            "sample" for a random kind of present; any value that `AttributeModel.set_attribute` takes (a picture file
            as a `Path`); or a function without arguments that gives one of all these for each example. Faces that are
            set to the class that they have are edited too, so that pictures of both classes bear the same traces.
        p: the probability, for each example.
        paste: "changed" puts the decoded edit where it differs much from the decoded original (ours): no ghosts
            remain, and the rest can't change. "difference" adds decoded edit minus decoded original: all detail stays,
            also that of glasses that should go. "whole" puts the decoded square, as `set_attribute` does.

    Raises:
        ValueError: p outside [0, 1], an unknown word, a model of vectors or in training mode.
        UnknownAttributeError: the model has no such attribute; where it is given by name, at the first picture.
    """

    def __init__(
        self,
        model: AttributeModel | str | Path,
        name: str,
        value: Value | Callable[[], Value] = "flip",
        p: float = 0.5,
        paste: Paste = "changed",
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p: expected a probability from 0 to 1, got {p}")
        _check_word(value)
        check_paste(paste)
        self._source = _Source(model, name)
        self.name, self.value, self.p = name, value, p
        self.paste: Paste = paste

    @property
    def model(self) -> AttributeModel:
        """The model; loaded now if it was given by name."""
        return self._source.model

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws which examples are edited, bool (B,): the same for all pictures of one sample."""
        pictures = filter(_is_picture, flat_inputs)
        sizes = {len(each) if isinstance(each, Tensor) and each.ndim == 4 else 1 for each in pictures}
        if len(sizes) > 1:
            raise ValueError(f"expected pictures of one batch size in a sample, got {sorted(sizes)}")
        count = sizes.pop() if sizes else 0
        drawn = torch.rand(2, count, device="cpu", dtype=torch.float32)
        return {"chosen": drawn[0] < self.p, "present": drawn[1] < 0.5}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Edits the chosen examples of a picture or batch; gives all else back as it is."""
        chosen, present = params["chosen"], params["present"]
        if not _is_picture(inpt) or not chosen.any():
            return inpt
        model = self.model
        faces = _Faces(model, _to_tensor(inpt)[chosen])
        edited = faces.edited(self._change(model, faces.latents, present[chosen]), self.paste)
        return _like(inpt, edited, chosen)

    def _change(self, model: AttributeModel, own: Latents, present: Tensor) -> Latents:
        if not callable(self.value):
            return self._set(model, own, self.value, present)
        return Latents.cat([self._set(model, own[i], self.value(), present[i : i + 1]) for i in range(len(own))])

    def _set(self, model: AttributeModel, own: Latents, value: Value, present: Tensor) -> Latents:
        if not isinstance(value, str) or value == "sample":
            return model.set_attribute(own, self.name, value)
        _check_word(value)
        if value == "flip":
            present = own.y[:, own.index(self.name)] < 0.5
        absent, there = model.edit(own, self._absent(model)), model.set_attribute(own, self.name, True)
        rows = torch.arange(len(own), device=own.z.device) + len(own) * present.to(own.z.device)
        return Latents.cat([absent, there])[rows]

    def _absent(self, model: AttributeModel) -> dict[str, Value]:
        """The edit that makes the attribute absent; in an exclusive group a random other member becomes present."""
        others = [name for name in group_of(self.name, model.config.exclusive) if name != self.name]
        return {others[int(torch.randint(len(others), (), device="cpu"))]: True} if others else {self.name: False}


def counterfactuals(
    model: AttributeModel,
    images: Any,
    name: str,
    *,
    values: tuple[Value, Value] = (False, True),
    paste: Paste = "changed",
) -> tuple[Any, Any]:
    """Each picture without and with an attribute: (absent, present), both edited, so that both bear the same traces.

    For checks of fairness: a classifier of something else should answer both alike. Without "sample" among the
    values it is deterministic. The model, the pictures (single or a batch) and `paste` are as `RandomSetAttribute`
    takes them, `values` as `AttributeModel.set_attribute` does.

    Raises:
        UnknownAttributeError: the model has no such attribute.
        ValueError: no picture, a model of vectors or in training mode, or an unknown `paste`.
    """
    check_paste(paste)
    model = _Source(model, name).model
    if not _is_picture(images):
        raise ImageError(f"expected a PIL image or a tensor (C, H, W) or (B, C, H, W), got {type(images).__name__}")
    faces = _Faces(model, _to_tensor(images))
    latents = (model.set_attribute(faces.latents, name, value) for value in values)
    absent, present = (_like(images, faces.edited(version, paste)) for version in latents)
    return absent, present


class _Source:
    """A model, or the name of one that is loaded in each process when first asked for."""

    def __init__(self, model: AttributeModel | str | Path, name: str) -> None:
        self.attribute = name
        self._given = model if isinstance(model, str | Path) else _checked(model, name)
        self._loaded: AttributeModel | None = None

    @property
    def model(self) -> AttributeModel:
        if isinstance(self._given, AttributeModel):
            return _checked(self._given, self.attribute)
        self._loaded = self._loaded or AttributeModel.from_pretrained(self._given, device="cpu")
        return _checked(self._loaded, self.attribute)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def __deepcopy__(self, memo: object) -> _Source:
        return self  # a copied pipeline shares the weights, which nothing here changes


class _Faces:
    """Pictures (B, C, H, W) in [0, 1] beside their latents."""

    def __init__(self, model: AttributeModel, images: Tensor) -> None:
        self.model, self.images = model, images
        self.batch = load_images(images, model.preprocessor, model.device)
        with torch.no_grad():
            self.latents = model.encode(self.batch.tensor)
            self.before = self._decoded(self.latents)

    @torch.no_grad()
    def edited(self, latents: Latents, paste: Paste) -> Tensor:
        """The pictures (B, C, H, W) as these latents have them."""
        after = self._decoded(latents)
        if paste == "difference":
            after = self.images + (after - self.before)
        elif paste == "changed":
            after = torch.lerp(self.images, after, _mask(after - self.before, self.model.preprocessor.size))
        return after.clamp(0, 1)

    def _decoded(self, latents: Latents) -> Tensor:
        """In the pictures' own size: decoded within the square that the model sees, the picture around it.

        A grey model gives the luminance alone; the differences between the colours stay.
        """
        decoded = self.model.decode(latents).float()
        restored = self.batch.restore(with_channels(decoded, 3))
        if decoded.shape[1] >= self.images.shape[1]:
            return restored
        return self.images + (with_channels(restored, 1) - with_channels(self.images, 1))


def _mask(change: Tensor, size: int) -> Tensor:
    """Mask (B, 1, H, W) of the large parts of a change (B, C, H, W), smoothed over neighbours of `size` pixels a side.

    It is 0 below a quarter of the change's maximum and 1 above a half.
    """
    radius = max(1, round(min(change.shape[-2:]) / size))
    width = 2 * radius + 1
    local = F.max_pool2d(change.abs().amax(1, keepdim=True), width, 1, radius)
    local = F.avg_pool2d(local, width, 1, radius, count_include_pad=False)
    half = (local.amax((1, 2, 3), keepdim=True) / 2).clamp(min=FLOOR)
    return (2 * local / half - 1).clamp(0, 1)


def _check_word(value: object) -> None:
    if isinstance(value, str) and value not in WORDS:
        raise ValueError(f"value: expected {', '.join(WORDS)} or a value that is no text, got {value!r}")


def _checked(model: AttributeModel, name: str) -> AttributeModel:
    if not model.config.is_image:
        raise ValueError(f"model: expected one of images, got one of vectors of {model.config.shape[0]} numbers")
    if model.training:
        raise ValueError("model: expected one in eval mode, got one in training mode: call model.eval()")
    model.index(name)
    return model


def _is_picture(thing: Any) -> bool:
    """True for a PIL image, a `tv_tensors.Image` or a plain tensor; False for a box, mask or the like."""
    if isinstance(thing, tv_tensors.Video):
        raise ImageError("expected pictures, got a video: edit it frame by frame, as examples/video.py does")
    is_other = isinstance(thing, tv_tensors.TVTensor) and not isinstance(thing, tv_tensors.Image)
    return isinstance(thing, Image.Image | Tensor) and not is_other


def _to_tensor(picture: Any) -> Tensor:
    """A picture or batch as float32 (B, C, H, W), in [0, 1] unless it came otherwise; alpha is left out."""
    if isinstance(picture, Image.Image):
        if picture.mode not in _MODES:
            raise ImageError(f"expected a PIL image of mode {', '.join(_MODES)}, got {picture.mode}: convert('RGB')")
        picture = torch.from_numpy(np.array(picture.convert(picture.mode.removesuffix("A"))))
        picture = picture[None] if picture.ndim == 2 else picture.movedim(-1, 0)
    tensor: Tensor = picture.as_subclass(Tensor)
    if tensor.ndim not in (3, 4):
        raise ImageError(
            f"expected an image (C, H, W) or a batch (B, C, H, W), got shape {tuple(tensor.shape)}: the first tensor of"
            " a sample is taken for the image unless that is a PIL image or a tv_tensors.Image: wrap it"
        )
    batch = tensor if tensor.ndim == 4 else tensor[None]
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()


def _like(picture: Any, edited: Tensor, chosen: Tensor | None = None) -> Any:
    """Edited pictures (n, C, H, W) in the kind, shape and type of `picture`, in place of those `chosen`, bool (B,)."""
    if isinstance(picture, Image.Image):
        result = to_picture(edited[0])
        if picture.mode.endswith("A"):
            result.putalpha(picture.getchannel("A"))
        return result
    values = (edited * 255).round() if picture.dtype == torch.uint8 else edited
    result = picture.as_subclass(Tensor).clone()
    (result if result.ndim == 4 else result[None])[slice(None) if chosen is None else chosen] = values.to(result)
    return tv_tensors.Image(result) if isinstance(picture, tv_tensors.Image) else result
