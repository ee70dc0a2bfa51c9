"""Anything image-like to a batch and back: paths, PIL images, uint8 arrays, float tensors, lists of these."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from csvae_hub.errors import ImageError
from csvae_hub.opening import check_side, open_image, open_picture
from csvae_hub.preprocessing import (
    ALIGNED_SIZE,
    CELEBA_LANDMARKS,
    LUMA,
    Preprocessor,
    center_square,
    square_of,
    with_square,
)

__all__ = [
    "ALIGNED_SIZE",
    "CELEBA_LANDMARKS",
    "KINDS",
    "LUMA",
    "ImageBatch",
    "ImageLike",
    "Images",
    "Preprocessor",
    "center_square",
    "grid",
    "load_images",
    "open_image",
    "open_picture",
    "to_images",
    "to_picture",
    "with_channels",
]

ImageLike: TypeAlias = Union[str, "os.PathLike[str]", Image.Image, "np.ndarray[Any, Any]", Tensor]
Images: TypeAlias = ImageLike | Sequence[ImageLike]

KINDS = (
    "a path, a PIL image, a uint8 array (H, W, 3), a float tensor in [0, 1] of shape (C, H, W) or (B, C, H, W),"
    " or a list of these"
)


@dataclass(frozen=True)
class _Item:
    """One thing the user gave: its rows of the batch (n, 3, S, S), and the way back to its own kind."""

    rows: Tensor
    restore: Callable[[Tensor], Any]


@dataclass(frozen=True)
class ImageBatch:
    """Pictures as `tensor` (B, 3, S, S) in [0, 1] that remembers what they came from."""

    tensor: Tensor
    _items: tuple[_Item, ...]
    _is_list: bool

    def __len__(self) -> int:
        return len(self.tensor)

    def restore(self, edited: Tensor) -> Any:
        """Gives edited pictures (B, 3, S, S) in [0, 1] back as the kind, mode and size that came in.

        A path comes back as a PIL image. Where the picture was larger or not square, the edited square is resized and
        put back in its place; the pixels outside it and alpha are those that came. Palette, CMYK and 16-bit pictures
        come back as 8-bit RGB or grey.

        Raises:
            ImageError: the shape is not that of `tensor`.
        """
        if edited.shape != self.tensor.shape:
            raise ImageError(
                f"expected edited pictures of shape {tuple(self.tensor.shape)}, got {tuple(edited.shape)}:"
                " give one edited picture for each that was loaded"
            )
        parts = edited.split([item.rows.shape[0] for item in self._items])
        restored = [item.restore(part) for item, part in zip(self._items, parts, strict=True)]
        return restored if self._is_list else restored[0]


def load_images(
    images: Images,
    preprocessor: Preprocessor,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> ImageBatch:
    """Gives pictures of any accepted kind as one batch of a `dtype`, float32 or float64, (B, 3, S, S) in [0, 1].

    Kinds: a path; a PIL image of any mode; a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a float tensor in
    [0, 1], (C, H, W) or (B, C, H, W) with C of 3 or 1; a list or tuple of these. EXIF rotation is obeyed. float32
    RGB tensors of the preprocessor's size pass through to the bit. Without a device the batch is where the
    first tensor is, or on the CPU. The values of tensors are not checked on a GPU, since reading them halts it, nor in
    compiled code.

    Raises:
        ImageError: something that is none of these, cannot be read, or has a shape, type or range that can't be right.
    """
    is_list = isinstance(images, list | tuple)
    items = _read_list(images, preprocessor, dtype) if is_list else [_read(images, preprocessor, dtype)]
    if device is None:
        device = next((image.device for image in (images if is_list else [images]) if isinstance(image, Tensor)), "cpu")
    rows = [item.rows.to(device, dtype) for item in items]
    return ImageBatch(rows[0] if len(rows) == 1 else torch.cat(rows), tuple(items), is_list)


def to_picture(image: Tensor) -> Image.Image:
    """Gives a tensor (3, H, W) or (1, H, W) as an 8-bit PIL image, RGB or grey; values outside [0, 1] are clipped."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ImageError(f"expected one picture (C, H, W) of 1 or 3 channels, got shape {tuple(image.shape)}")
    values = (image.detach().float().nan_to_num().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    return Image.fromarray(values.movedim(0, -1).squeeze(-1).numpy())


def to_images(images: Tensor) -> list[Image.Image]:
    """Gives pictures (B, C, H, W) of 1 or 3 channels, such as `sample` gives, as 8-bit PIL images.

    Values outside [0, 1] are clipped.

    Raises:
        ImageError: another shape.
    """
    if images.ndim != 4:
        raise ImageError(f"expected pictures (B, C, H, W), got shape {tuple(images.shape)}: give one as image[None]")
    return [to_picture(image) for image in images]


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Gives pictures (B, C, H, W) with 1 channel, the luminance by ITU-R BT.601, or with 3; grey stays to the bit."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    red, green, blue = images.split(1, dim=1)
    return green + LUMA[0] * (red - green) + LUMA[2] * (blue - green)


def grid(images: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Gives pictures (B, C, H, W) in [0, 1] side by side on white, row by row, `gap` pixels apart."""
    if images.ndim != 4 or 0 in images.shape or images.shape[1] not in (1, 3):
        raise ImageError(f"expected pictures (B, C, H, W) of 1 or 3 channels, at least one, got {tuple(images.shape)}")
    if columns < 1:
        raise ImageError(f"expected at least one column, got {columns}")
    columns = min(columns, len(images))
    blanks = -len(images) % columns
    cells = F.pad(images.detach(), (0, gap, 0, gap, 0, 0, 0, blanks), value=1.0)
    canvas = rearrange(cells, "(rows columns) c h w -> c (rows h) (columns w)", columns=columns)
    return to_picture(canvas[:, : canvas.shape[1] - gap, : canvas.shape[2] - gap])


def _read_list(images: Any, preprocessor: Preprocessor, dtype: torch.dtype) -> list[_Item]:
    if not images:
        raise ImageError("expected at least one picture, got an empty list: leave the call out where there are none")
    items: list[_Item] = []
    for i, image in enumerate(images):
        try:
            items.append(_read(image, preprocessor, dtype))
        except ImageError as error:
            raise ImageError(f"images[{i}]: {error}") from error
    return items


def _read(image: object, preprocessor: Preprocessor, dtype: torch.dtype) -> _Item:
    if isinstance(image, Tensor):
        return _tensor_item(image, preprocessor, dtype)
    if not isinstance(image, str | os.PathLike | Image.Image | np.ndarray):
        raise ImageError(f"expected {KINDS}, got {type(image).__name__}")
    item = _picture_item(open_picture(image), preprocessor)
    if isinstance(image, np.ndarray):
        return _Item(item.rows, lambda edited: np.array(item.restore(edited)).reshape(image.shape))
    return item


def _tensor_item(image: Tensor, preprocessor: Preprocessor, dtype: torch.dtype) -> _Item:
    _check_floats(image)
    batch = image if image.ndim == 4 else image[None]
    left, top, side = center_square(batch.shape[-1], batch.shape[-2])
    square = batch[..., top : top + side, left : left + side]

    def restore(edited: Tensor) -> Tensor:
        restored = batch.clone()
        resized = with_channels(_resize(edited.to(dtype), side), batch.shape[1])
        restored[..., top : top + side, left : left + side] = resized.to(batch)
        return restored.view_as(image)

    return _Item(with_channels(_resize(square.to(dtype), preprocessor.size), 3), restore)


def _check_floats(image: Tensor) -> None:
    shape, expected = tuple(image.shape), "expected a float tensor in [0, 1] of shape (C, H, W) or (B, C, H, W)"
    if not image.is_floating_point():
        remedy = "images.float() / 255" if image.dtype == torch.uint8 else "images.float(), scaled to [0, 1]"
        raise ImageError(f"{expected}, got {image.dtype}: convert it with {remedy}")
    if image.ndim not in (3, 4):
        raise ImageError(f"{expected}, got shape {shape}")
    if 0 in image.shape[:-3]:
        raise ImageError(f"{expected}, got an empty batch, shape {shape}: leave the call out where there are none")
    if image.shape[-3] not in (1, 3):
        remedy = (
            "put the channels first, as by images.movedim(-1, -3)"
            if image.shape[-1] in (1, 3, 4)
            else "drop the alpha channel, as by images[..., :3, :, :]"
            if image.shape[-3] == 4
            else "give RGB"
        )
        raise ImageError(f"{expected} with C of 3 (or 1, grey), got shape {shape}: {remedy}")
    check_side(image.shape[-1], image.shape[-2])
    if torch.compiler.is_compiling() or image.device.type != "cpu":  # reading values would halt the device
        return
    low, high = (value.item() for value in image.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{expected}, got NaN or infinity: look at where they arise, or replace them")
    if low < 0 or high > 1:
        remedy = "(images + 1) / 2" if -1 <= low < 0 and high <= 1 else "images / 255" if low >= 0 and high > 2 else ""
        raise ImageError(
            f"{expected}, got values from {low:.4g} to {high:.4g}:"
            f" {f'rescale with {remedy}, or ' if remedy else ''}clip with images.clamp(0, 1)"
        )


def _resize(images: Tensor, side: int) -> Tensor:
    """Resizes squares (B, C, S, S), antialiased bicubic; the same tensor where the side is right already."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _picture_item(picture: Image.Image, preprocessor: Preprocessor) -> _Item:
    """Reads an upright 8-bit picture: L, LA, RGB or RGBA."""
    side = min(picture.size)
    values = torch.from_numpy(np.array(square_of(picture, preprocessor.size))).movedim(-1, 0)

    def restore(edited: Tensor) -> Image.Image:
        return with_square(picture, to_picture(_resize(edited.detach().cpu().float(), side)[0]))

    return _Item(values[None].float() / 255, restore)
