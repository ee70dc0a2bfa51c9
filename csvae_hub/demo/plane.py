"""The plane of an attribute: one face over a grid of points of W_i, in which a visitor picks a kind of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from csvae_hub.images import grid
from csvae_hub.models import AttributeModel, Latents

Point = tuple[float, float]

CELLS = 5
"""Faces in a row and in a column: 25 are decoded within a tenth of a second on two cores."""
SIDE = 480
"""Of the picture, in pixels."""
COLOURS = {"absent": "#ff9f1c", "present": "#4cc9f0", "photo": "#ffffff"}
"""Of the marks; they differ to the colour-blind, too."""


@dataclass(frozen=True)
class Plane:
    """A square of the plane W_i, `reach` to each side of `middle`; the second coordinate goes upwards."""

    middle: Point
    reach: float

    @classmethod
    def around(cls, absent: Point, present: Point, own: Point) -> Plane:
        """The square around the middle of the two class means, twice as wide as they are apart, or wider to hold w_i.

        >>> Plane.around((0.0, 0.0), (2.0, 0.0), own=(1.0, 1.0))
        Plane(middle=(1.0, 0.0), reach=2.0)
        """
        middle = ((absent[0] + present[0]) / 2, (absent[1] + present[1]) / 2)
        apart = math.dist(absent, present)
        away = max(abs(own[0] - middle[0]), abs(own[1] - middle[1]))
        return cls(middle, max(apart, 1.1 * away, 1e-3))

    def point(self, x: float, y: float) -> Point:
        """The point of W_i at a pixel.

        >>> Plane((1.0, 0.0), 2.0).point(480, 0)
        (3.0, 2.0)
        """
        return (self.middle[0] + (2 * x / SIDE - 1) * self.reach, self.middle[1] + (1 - 2 * y / SIDE) * self.reach)

    def pixel(self, point: Point) -> Point:
        """The pixel of a point of W_i.

        >>> Plane((1.0, 0.0), 2.0).pixel((1.0, 0.0))
        (240.0, 240.0)
        """
        across, up = ((p - m) / self.reach for p, m in zip(point, self.middle, strict=True))
        return (1 + across) * SIDE / 2, (1 - up) * SIDE / 2

    def points(self) -> Tensor:
        """The points of the faces (CELLS², 2), row by row from the top: the middles of the cells."""
        middles = [(i + 0.5) * SIDE / CELLS for i in range(CELLS)]
        return torch.tensor([self.point(x, y) for y in middles for x in middles], dtype=torch.float32, device="cpu")


def decoded_faces(model: AttributeModel, latents: Latents, name: str, plane: Plane) -> Image.Image:
    """One face's latents decoded at the points of an attribute's plane: SIDE × SIDE pixels."""
    points = plane.points()
    rows = Latents.cat([latents] * len(points))
    with torch.no_grad():
        decoded = model.decode(model.edit(rows, {name: points}))
    picture = grid(decoded.float().cpu(), CELLS, gap=0).convert("RGB")
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def with_marks(picture: Image.Image, plane: Plane, marks: Mapping[str, Point], here: Point) -> Image.Image:
    """A copy with a named dot at each of the marks and a ring where the face is now."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(20)
    for name, point in marks.items():
        x, y = plane.pixel(point)
        draw.circle((x, y), 7, fill=COLOURS[name], outline="black", width=1)
        below = name != "photo"  # which often lies on one of the class means
        place, anchor = (x, y + 10 if below else y - 10), "mt" if below else "mb"
        draw.text(place, name, COLOURS[name], font, anchor=anchor, stroke_width=2, stroke_fill="black")
    x, y = (min(max(pixel, 0), SIDE - 1) for pixel in plane.pixel(here))
    for radius, colour, width in ((16, "black", 9), (15, "white", 5)):
        draw.circle((x, y), radius, outline=colour, width=width)
    return picture
