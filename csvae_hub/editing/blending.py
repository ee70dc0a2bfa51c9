"""Puts an edited crop back into its photo, at the photo's own resolution."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from csvae_hub.editing.alignment import Points, Similarity, pixel_middles, sampled
from csvae_hub.images import LUMA

FEATHER = 0.15
"""Width of the mask's rise from 0 at the border of the crop to 1, as a share of its side."""
_OVERSAMPLING = 4
_STRIP_PIXELS = 2**19


def feather(points: Tensor) -> Tensor:
    """The mask (...,) at points (..., 2) of the crop, in shares of its side: 0 at and beyond the border, 1 within.

    It rises as 3t² - 2t³ over `FEATHER` from each border, so that it has no kink anywhere.
    """
    t = (torch.minimum(points, 1 - points) / FEATHER).clamp(0, 1)
    return (t * t * (3 - 2 * t)).prod(-1)


def add_change(picture: Image.Image, change: Tensor, transform: Similarity) -> None:
    """Adds a change of the crop to the picture, in place: detail transfer.

    Pixels outside the feathered crop, and those whose change is 0, keep their values to the bit, and so does alpha.

    Args:
        picture: L, LA, RGB or RGBA.
        change: (3, S, S), decoded edited face minus decoded own face, in [-1, 1].
        transform: the picture to the crop of S pixels.
    """
    _blend(picture, change, transform, adds=True)


def replace_crop(picture: Image.Image, crop: Tensor, transform: Similarity) -> None:
    """Puts a crop (3, S, S) in [0, 1] itself into the picture, feathered, in place; see `add_change`."""
    _blend(picture, crop, transform, adds=False)


def _blend(picture: Image.Image, crop: Tensor, transform: Similarity, adds: bool) -> None:
    left, top, right, bottom = _bounds(picture.size, transform, crop.shape[-1])
    if left >= right or top >= bottom:
        return
    fine = _at_resolution(255 * crop.detach().cpu().float(), 1 / transform.scale)
    to_unit = Similarity(transform.linear / crop.shape[-1], transform.shift / crop.shape[-1])
    rows = max(1, _STRIP_PIXELS // (right - left))
    for start in range(top, bottom, rows):
        box = (left, start, right, min(start + rows, bottom))
        strip = np.array(picture.crop(box))
        _blend_strip(strip, fine, to_unit(pixel_middles(*box)), adds)
        picture.paste(Image.fromarray(strip), box[:2])


def _blend_strip(strip: NDArray[np.uint8], fine: Tensor, points: Points, adds: bool) -> None:
    """Blends into pixels (h, w) or (h, w, bands), in place, at points (h, w, 2) of the crop in shares of its side."""
    pixels = strip[..., None] if strip.ndim == 2 else strip
    values = sampled(fine, points * fine.shape[-1])
    colours = 3 if pixels.shape[-1] >= 3 else 1
    if colours == 1:
        values = torch.tensor(LUMA) @ values.flatten(1)
        values = values.view(1, *points.shape[:-1])
    mask = feather(torch.from_numpy(points).float())
    before = torch.from_numpy(pixels[..., :colours]).movedim(-1, 0).float()
    after = before + mask * (values if adds else values - before)
    pixels[..., :colours] = after.round_().clamp_(0, 255).movedim(0, -1).to(torch.uint8).numpy()


def _bounds(photo: tuple[int, int], transform: Similarity, size: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the whole pixels that the crop touches, within the photo."""
    corners = transform.inverse()([(0, 0), (size, 0), (size, size), (0, size)])
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    return max(floor(left), 0), max(floor(top), 0), min(ceil(right), photo[0]), min(ceil(bottom), photo[1])


def _at_resolution(crop: Tensor, pixels: float) -> Tensor:
    """Resizes a crop (3, S, S) to about the photo's `pixels` for each of its own, but no finer than needed."""
    side = max(1, round(crop.shape[-1] * min(pixels, _OVERSAMPLING)))
    if side == crop.shape[-1]:
        return crop
    return F.interpolate(crop[None], (side, side), mode="bicubic", antialias=True, align_corners=False)[0]
