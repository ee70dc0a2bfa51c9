"""The way from a picture to the square that a model sees, and back; needs Pillow alone."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from csvae_hub.config import check
from csvae_hub.opening import MIN_SIDE

CELEBA_LANDMARKS = ((69.4, 111.3), (108.2, 111.3), (88.5, 135.5), (71.5, 152.4), (105.5, 152.4))
ALIGNED_SIZE = (178, 218)
"""Width and height of CelebA's aligned pictures, in pixels."""
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's


@dataclass(frozen=True)
class Preprocessor:
    """The steps from a picture to the network's input; stored with the weights as preprocessor.json.

    The centre square of the picture is resized (Pillow's antialiased bicubic) to `size` pixels a side, RGB in
    `range`. `landmarks` are the five points (x, y) that the training faces were aligned to, or, if they were not, the
    medians of their own: eyes, nose, mouth corners, in pixels of CelebA's 178×218 frame, whose central 148×148 the
    training pictures show.

    Raises:
        ConfigError: a field is out of range.
    """

    size: int = 64
    crop: str = "center-square"
    interpolation: str = "bicubic"
    range: tuple[float, float] = (0.0, 1.0)
    landmarks: tuple[tuple[float, float], ...] = CELEBA_LANDMARKS

    def __post_init__(self) -> None:
        check(self.size >= MIN_SIDE, "size", f"at least {MIN_SIDE} pixels", self.size)
        check(self.crop == "center-square", "crop", "'center-square'", self.crop)
        check(self.interpolation == "bicubic", "interpolation", "'bicubic'", self.interpolation)
        check(self.range == (0.0, 1.0), "range", "(0.0, 1.0)", self.range)
        check(len(self.landmarks) == 5, "landmarks", "five points (x, y)", self.landmarks)
        check(
            _is_face(self.landmarks), "landmarks", f"those of an upright face in {ALIGNED_SIZE} pixels", self.landmarks
        )


def _is_face(landmarks: tuple[tuple[float, float], ...]) -> bool:
    """True where the points lie in CelebA's frame as those of a face do, the picture's left first."""
    inside = all(0 <= value <= side for point in landmarks for value, side in zip(point, ALIGNED_SIZE, strict=True))
    (x, y), (x2, y2), _, (x3, y3), (x4, y4) = landmarks
    return inside and min(x2 - x, x4 - x3, min(y3, y4) - max(y, y2)) >= MIN_SIDE


def center_square(width: int, height: int) -> tuple[int, int, int]:
    """Gives left, top and side, in pixels, of the largest centred square."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def square_of(picture: Image.Image, size: int) -> Image.Image:
    """Gives the centre square of a picture as RGB of `size` pixels a side."""
    left, top, side = center_square(*picture.size)
    box = (left, top, left + side, top + side)
    return picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box)


def with_square(picture: Image.Image, square: Image.Image) -> Image.Image:
    """Gives a picture of its own with another centre square, of that size; the pixels outside and alpha stay.

    `picture` is upright and of 8 bits: L, LA, RGB or RGBA.
    """
    left, top, side = center_square(*picture.size)
    pasted = square.convert(picture.mode.removesuffix("A"))
    if picture.has_transparency_data:
        pasted.putalpha(picture.getchannel("A").crop((left, top, left + side, top + side)))
    changed = picture.copy()
    changed.paste(pasted, (left, top))
    return changed
