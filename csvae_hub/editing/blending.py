"""Puts an edited crop back into its photo, at the photo's own resolution."""

from __future__ import annotations

from math import ceil, floor
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from csvae_hub.editing.alignment import Points, Similarity, pixel_middles, sampled
from csvae_hub.images import LUMA, with_channels

Paste: TypeAlias = Literal["changed", "difference", "whole"]
"""Ways to put an edit back: what changed much, the change, or the whole decoded face; see `layer`."""

FEATHER = 0.08
"""Width of the mask's rise from 0 at the border of the crop to 1, as a share of its side."""
FLOOR, WEAK = 0.01, 0.08
"""The floor of "changed": a change in units of x, or a share of the strongest change, whichever is more."""
OPAQUE = 0.08
"""The least change, in units of x, from which "changed" shows the decoded face itself."""
TINT = 1 / 16
"""Smoothing of the photo's colours under the drawing of a grey model, as a share of the crop's side."""
_OVERSAMPLING = 4
_STRIP_PIXELS = 2**19


def check_paste(paste: str) -> None:
    """Raises ValueError for what is none of `Paste`."""
    if paste not in get_args(Paste):
        raise ValueError(f"paste: expected {', '.join(get_args(Paste))}, got {paste!r}")


def feather(points: Tensor) -> Tensor:
    """The mask (...,) at points (..., 2) of the crop, in shares of its side: smooth, 0 at and beyond the border."""
    return _rise(torch.minimum(points, 1 - points), 0, FEATHER).prod(-1)


def layer(edited: Tensor, own: Tensor, crop: Tensor, paste: Paste) -> Tensor:
    """The layer (4, S, S) that brings an edit into a photo: three colours and an opacity, for `put_back`.

    `edited` and `own` are decoded (C, S, S) in [0, 1], `own` without an edit; `crop` (3, S, S) is the face in the
    photo. A grey model, C = 1, gives the luminance; the colours are those of the crop, smoothed, and so the change is
    alike in all three.

    "difference" is edited minus own, of opacity 0: it is added to the photo. "whole" is the edited face, of opacity 1.
    "changed" goes by the strength of the change in each place. Up to the floor the layer is empty; at twice the floor
    it is the difference; there, but not below `OPAQUE`, it is the edited face itself; from half of that on, the photo's
    fine detail fades out. The face's colours are moved by the low frequencies of crop minus own, taken where the photo
    stays.
    """
    size = crop.shape[-1]
    if len(edited) == 1:
        tint = _smoothed(crop - with_channels(crop[None], 1)[0], TINT * size)
        edited, own = edited + tint, own + tint
    change = edited - own
    if paste == "difference":
        return torch.cat([change, torch.zeros_like(change[:1])])
    if paste == "whole":
        return torch.cat([edited, torch.ones_like(edited[:1])])
    strength = _smoothed(change.abs().amax(0, keepdim=True), size / 64)
    floor = max(FLOOR, WEAK * strength.amax().item())
    opaque = max(OPAQUE, 2 * floor)
    shown = _rise(strength, floor, 2 * floor)
    opacity = _smoothed(F.max_pool2d(_rise(strength, opaque / 2, opaque), 3, 1, 1), size / 64)
    stays = 1 - opacity + 0.01
    match = _smoothed(stays * (crop - own), size / 10) / _smoothed(stays, size / 10)
    return torch.cat([torch.lerp(shown * change, edited + match, opacity), opacity])


def put_back(picture: Image.Image, layer: Tensor, transform: Similarity) -> bool:
    """Puts a layer (4, S, S) into an L, LA, RGB or RGBA picture, in place: p + mask · (colour - opacity · p).

    The transform brings the picture to the crop of S pixels. Pixels outside the feathered crop, and those where the
    layer is 0, keep their values to the bit, and so does alpha. Gives True if any pixel changed.
    """
    left, top, right, bottom = _bounds(picture.size, transform, layer.shape[-1])
    if left >= right or top >= bottom:
        return False
    changed = False
    fine = _at_resolution(layer.detach().cpu().float(), 1 / transform.scale)
    to_unit = Similarity(transform.linear / layer.shape[-1], transform.shift / layer.shape[-1])
    rows = max(1, _STRIP_PIXELS // (right - left))
    for start in range(top, bottom, rows):
        box = (left, start, right, min(start + rows, bottom))
        before = np.asarray(picture.crop(box))
        strip = before.copy()
        _blend(strip, fine, to_unit(pixel_middles(*box)))
        if not np.array_equal(strip, before):
            changed = True
            picture.paste(Image.fromarray(strip), box[:2])
    return changed


def _blend(strip: NDArray[np.uint8], layer: Tensor, points: Points) -> None:
    """Blends into pixels (h, w) or (h, w, bands), in place, at points (h, w, 2) of the crop in shares of its side."""
    pixels = strip[..., None] if strip.ndim == 2 else strip
    values, opacity = sampled(layer, points * layer.shape[-1]).split([3, 1])
    colours = 3 if pixels.shape[-1] >= 3 else 1
    if colours == 1:
        values = torch.tensordot(values.new_tensor(LUMA), values, dims=1)[None]
    mask = feather(torch.from_numpy(points).float())
    before = torch.from_numpy(pixels[..., :colours]).movedim(-1, 0).float()
    after = before + mask * (255 * values - opacity * before)
    pixels[..., :colours] = after.round_().clamp_(0, 255).movedim(0, -1).to(torch.uint8).numpy()


def _rise(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to low, 1 from high on; 3t² - 2t³ between."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _smoothed(images: Tensor, sigma: float) -> Tensor:
    """Images (C, S, S) smoothed by a Gaussian, cut off at 3 sigma; the border's values go on outside."""
    radius = max(1, min(round(3 * sigma), images.shape[-1] - 1))
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2).to(images)
    weights = (weights / weights.sum()).expand(len(images), 1, 1, -1)
    padded = F.pad(images[None], [radius] * 4, mode="replicate")
    across = F.conv2d(padded, weights, groups=len(images))
    return F.conv2d(across, weights.mT, groups=len(images))[0]


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
