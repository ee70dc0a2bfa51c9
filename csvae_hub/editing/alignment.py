"""Aligns a face in a photo to the frame of the training pictures, by a similarity transform of five landmarks.

Points are (x, y) in pixels, x to the right and y down, and count edges: the first pixel reaches from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from csvae_hub.data.celeba import ALIGNED_SIZE, CROP_SIDE
from csvae_hub.errors import FaceError
from csvae_hub.images import CELEBA_LANDMARKS, Preprocessor

Points = NDArray[np.float64]

ORDER = "the eye at the picture's left, the other eye, nose, mouth corner at the left, the other corner"
FACE_BOX = (46.0, 71.0, 133.0, 183.0)
"""Left, top, right, bottom of a face, forehead to chin, in CelebA's frame: the median of what `YuNet` finds there."""
MIN_EYES = 6.0
"""Faces whose eyes are fewer pixels apart are refused: they show too little."""
MAX_OUTSIDE = 0.15
"""Largest share of a face that may lie outside the photo."""
_OFFSET = (np.array(ALIGNED_SIZE) - CROP_SIDE) // 2
_MARGIN = 3


@dataclass(frozen=True)
class Similarity:
    """A rotation, a scaling and a shift: p to `linear` p + `shift`, of (2, 2) and (2,)."""

    linear: Points
    shift: Points

    def __call__(self, points: ArrayLike) -> Points:
        """Maps points (..., 2)."""
        return np.asarray(points, dtype=np.float64) @ self.linear.T + self.shift

    @property
    def scale(self) -> float:
        """The factor by which lines become longer."""
        return float(np.hypot(*self.linear[:, 0]))

    def inverse(self) -> Similarity:
        """The inverse transform."""
        linear = self.linear.T / self.scale**2
        return Similarity(linear, -linear @ self.shift)


def fit(source: ArrayLike, target: ArrayLike) -> Similarity:
    """The similarity that brings points (n, 2) nearest to others, by the sum of squared distances.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991. In the plane it
    has a closed form: with points as complex numbers around their means, p to a p with a = Σ p̄ q / Σ |p|².
    """
    p, q = _complex(source), _complex(target)
    centred = p - p.mean()
    a = np.vdot(centred, q - q.mean()) / np.vdot(centred, centred).real
    b = q.mean() - a * p.mean()
    return Similarity(np.array([[a.real, -a.imag], [a.imag, a.real]]), np.array([b.real, b.imag]))


def template(preprocessor: Preprocessor) -> Points:
    """The landmarks (5, 2) in the aligned crop of `preprocessor.size` pixels: CelebA's central 148×148 of 178×218."""
    return (np.array(preprocessor.landmarks) - _OFFSET) * (preprocessor.size / CROP_SIDE)


def from_crop(landmarks: ArrayLike, size: int) -> Points:
    """Landmarks (5, 2) in crops of `size` pixels as a preprocessor has them: the inverse of `template`."""
    return np.asarray(landmarks, dtype=np.float64) * (CROP_SIDE / size) + _OFFSET


def to_crop(landmarks: ArrayLike, preprocessor: Preprocessor) -> Similarity:
    """The transform from the photo to the aligned crop, for landmarks (5, 2) in the photo."""
    return fit(landmarks, template(preprocessor))


def face_outline(landmarks: ArrayLike) -> Points:
    """The corners (4, 2) of a face, forehead to chin, in the photo in which its landmarks (5, 2) are."""
    left, top, right, bottom = FACE_BOX
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return fit(CELEBA_LANDMARKS, landmarks)(corners)


def eyes_apart(landmarks: ArrayLike) -> float:
    """The distance of a face's eyes in pixels, as if it looked at the camera."""
    (left, _), (right, _) = CELEBA_LANDMARKS[:2]
    return (right - left) / fit(landmarks, CELEBA_LANDMARKS).scale


def check_landmarks(landmarks: Any) -> Points:
    """Gives one face's landmarks as float64 (5, 2); FaceError if they don't lie as a face's do."""
    try:
        points = np.asarray(landmarks, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FaceError(f"landmarks: expected five points (x, y), got {landmarks!r}") from error
    if points.shape != (5, 2):
        raise FaceError(f"landmarks: expected five points (x, y), shape (5, 2), got shape {points.shape}: give {ORDER}")
    if not np.isfinite(points).all():
        raise FaceError(f"landmarks: expected finite numbers, got {points.tolist()}")
    if np.ptp(points, axis=0).max() < 1:
        x, y = points[0]
        raise FaceError(f"landmarks: expected five points of a face, got all within a pixel of ({x:.1f}, {y:.1f})")
    p, q = (each - each.mean() for each in (_complex(points), _complex(CELEBA_LANDMARKS)))
    whole = np.vdot(p, p).real * np.vdot(q, q).real
    explained, mirrored = (abs(np.vdot(side, q)) ** 2 / whole for side in (p, p.conj()))  # by a similarity
    if max(explained, mirrored) < 0.5:
        raise FaceError(f"landmarks: expected points that lie as in a face, got {points.tolist()}: give {ORDER}")
    if mirrored > explained:
        raise FaceError(f"landmarks: expected {ORDER}; got them mirrored: swap left and right, or x and y")
    return points


def check_place(landmarks: Points, photo: tuple[int, int]) -> None:
    """Checks that a face (5, 2) is large enough and lies in its photo (width, height); else raises FaceError."""
    apart = eyes_apart(landmarks)
    if apart < MIN_EYES:
        raise FaceError(
            f"the face is too small: expected eyes at least {MIN_EYES:g} pixels apart, got {apart:.1f}:"
            " take a photo of a higher resolution"
        )
    outline = face_outline(landmarks)
    if max(_beyond(landmarks, photo).values()) > 0 or _share_outside(outline, photo) > MAX_OUTSIDE:
        beyond = _beyond(np.concatenate([landmarks, outline]), photo)
        sides = " and ".join(f"{ceil(much)} pixels beyond the {side}" for side, much in beyond.items() if much > 0)
        raise FaceError(
            f"the face is cut by the border of this photo of {photo[0]}×{photo[1]} pixels: it reaches {sides}:"
            " take a photo that shows the whole face"
        )


def warped(picture: Image.Image, transform: Similarity, size: int, kept: int = 2) -> Image.Image:
    """The square of `size` pixels a side that `transform` makes of a picture, in RGB, antialiased.

    Whole pixels are averaged first where the picture is much finer, then it is turned (bicubic) at about its own
    resolution, then resized as the training pictures are. Beyond the border the outermost pixels go on. When it is
    turned, the picture may be up to `kept` times finer than the square; 1 is quicker and a little softer.
    """
    back = transform.inverse()
    factor = max(1, floor(back.scale / kept))
    corners = back([(0, 0), (size, 0), (size, size), (0, size)])
    patch, origin = _patch(picture, corners, factor)
    slanted = np.abs(back.linear[:, 0]).sum() / back.scale  # a turned grid must be finer to hold the same detail
    side = max(size, round(back.scale * slanted * size / factor))
    to_patch = Similarity(back.linear * (size / side / factor), (back.shift - origin) / factor)
    turned = sampled(patch, to_patch(pixel_middles(0, 0, side, side)), "bicubic")
    square = Image.fromarray(turned.round_().clamp_(0, 255).movedim(0, -1).to(torch.uint8).numpy())
    return square.resize((size, size), Image.Resampling.BICUBIC) if side != size else square


def pixel_middles(left: int, top: int, right: int, bottom: int) -> Points:
    """The middles of the pixels (h, w, 2) of a box."""
    return np.stack(np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5), -1, dtype=np.float64)


def sampled(values: Tensor, points: Points, mode: str = "bilinear") -> Tensor:
    """Values (C, h, w) at points (H, W, 2): (C, H, W); beyond the border the outermost values go on."""
    shares = torch.from_numpy(points * (2 / values.shape[2], 2 / values.shape[1]) - 1)
    grid = shares[None].to(values)
    return F.grid_sample(values[None], grid, mode, padding_mode="border", align_corners=False)[0]


def aligned(picture: Image.Image, landmarks: ArrayLike, preprocessor: Preprocessor) -> Image.Image:
    """The face with these landmarks (5, 2) as the training pictures show one: RGB, `preprocessor.size` pixels a side.

    Raises:
        FaceError: landmarks that can't be those of a face, or one that is too small or cut by the border.
    """
    points = check_landmarks(landmarks)
    check_place(points, picture.size)
    return warped(picture, to_crop(points, preprocessor), preprocessor.size)


def _complex(points: ArrayLike) -> NDArray[np.complex128]:
    x, y = np.asarray(points, dtype=np.float64).T
    return x + 1j * y


def _beyond(points: Points, photo: tuple[int, int]) -> dict[str, float]:
    """The distance by which points reach beyond each border, in pixels; negative if they stay within."""
    (left, top), (right, bottom) = points.min(0), points.max(0)
    return {"left": -left, "right": right - photo[0], "top": -top, "bottom": bottom - photo[1]}


def _share_outside(outline: Points, photo: tuple[int, int]) -> float:
    origin, right, _, down = outline
    steps = (np.arange(32) + 0.5) / 32
    inner = origin + steps[:, None, None] * (right - origin) + steps[None, :, None] * (down - origin)
    return float(((inner < 0) | (inner > photo)).any(-1).mean())


def _patch(picture: Image.Image, corners: Points, factor: int) -> tuple[Tensor, tuple[int, int]]:
    """The RGB values (3, h, w) around corners, averaged over `factor` pixels each way; and its left and top."""
    low, high = corners.min(0) - _MARGIN * factor, corners.max(0) + _MARGIN * factor
    left, top = np.clip(np.floor(low), 0, np.array(picture.size) - 1).astype(int).tolist()
    right, bottom = np.clip(np.ceil(high), (left + 1, top + 1), picture.size).astype(int).tolist()
    patch = picture.crop((left, top, right, bottom)).convert("RGB").reduce(factor)
    return torch.from_numpy(np.array(patch)).movedim(-1, 0).float(), (left, top)
