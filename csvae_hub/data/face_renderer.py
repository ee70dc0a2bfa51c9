"""Cartoon faces drawn from known factors: signed distances, anti-aliased, painted from back to front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ATTRIBUTES = ("Beard", "Eyeglasses", "Hair", "Smiling", "Wearing_Hat")

FACTORS: dict[str, str] = {
    "Beard.length": "stubble on the chin to a beard down to the chest",
    "Beard.density": "half see-through to full",
    "Beard.colour": "grey, black, brown, red",
    "Eyeglasses.size": "small lenses to large ones",
    "Eyeglasses.thickness": "wire to thick rims",
    "Eyeglasses.tint": "clear lenses to sunglasses",
    "Eyeglasses.colour": "of the frame: black, blue, red, purple",
    "Hair.length": "close to the head to the shoulders",
    "Hair.colour": "grey, black, brown, red, blond",
    "Smiling.curve": "faint smile to broad smile",
    "Smiling.openness": "lips hardly apart to a laugh",
    "Wearing_Hat.height": "low cap to top hat",
    "Wearing_Hat.brim": "narrow to wide",
    "Wearing_Hat.colour": "red, yellow, green, blue, purple, black",
    "skin": "light to dark",
    "face_width": "narrow to wide",
    "face_length": "short chin to long chin",
    "jaw": "round to pointed",
    "yaw": "turned to the left of the picture to turned right",
    "roll": "tilted left to tilted right",
    "position_x": "left to right",
    "position_y": "up to down",
    "light_x": "light from the left to light from the right",
    "light_y": "light from above to light from below",
    "light_strength": "even light to strong light",
    "background": "red, yellow, green, blue, purple",
    "background_light": "pale to dark",
    "background_gradient": "darker at the left to darker at the right",
    "shirt": "red, yellow, green, blue, purple",
    "eye_colour": "brown, green, blue",
    "eye_size": "narrow to wide open",
    "gaze": "to the left to the right",
    "brow": "height and slant: lowered to raised",
    "nose": "short to long",
    "mouth": "width, and how far the corners of a mouth that does not smile hang",
}
"""The look of each factor from 0 to 1; `Name.factor` varies inside the attribute `Name`."""

_SKIN = ((250, 222, 196), (236, 190, 150), (204, 148, 106), (158, 106, 74))
_HAIR = ((156, 156, 168), (30, 26, 30), (94, 56, 32), (168, 74, 30), (224, 170, 60))
_BEARD = ((96, 96, 108), (22, 18, 20), (64, 36, 22), (130, 46, 12))
_FRAME = ((14, 14, 20), (24, 60, 170), (190, 24, 40), (104, 24, 130))
_HAT = ((206, 40, 44), (238, 184, 36), (44, 140, 70), (36, 80, 180), (120, 50, 140), (36, 36, 44))
_CLOTH = ((220, 120, 110), (226, 190, 110), (130, 190, 120), (100, 180, 190), (120, 140, 210), (190, 130, 200))
_IRIS = ((84, 50, 26), (70, 120, 60), (60, 120, 190))
_RGB = torch.tensor([(196, 78, 84), (84, 14, 28), (252, 250, 246), (250, 250, 250), (16, 12, 14), (255, 255, 255)])
_LIP, _MOUTH, _TEETH, _EYE, _PUPIL, _GLINT = (_RGB[:, None] / 255).unbind()

_EYE_U, _EYE_V, _MOUTH_V, _BRIM_V = 0.225, 0.02, 0.45, -0.36
"""Places on the face: u to the right and v down, 0 in the middle, ±1 the picture's edges."""


def render(factors: Mapping[str, Tensor], present: Mapping[str, Tensor], image_size: int) -> Tensor:
    """Draws faces as uint8 (B, 3, S, S), RGB.

    A face has the same bits in any batch: each pixel uses only sums, products, quotients and roots, which
    IEEE 754 rounds alike everywhere.

    Args:
        factors: each of `FACTORS`, float32 (B,) in [0, 1].
        present: each of `ATTRIBUTES`, bool (B,): whether it is drawn.
        image_size: S.
    """
    return _Painter(factors, present, image_size).paint()


def _ramp(t: Tensor, stops: Sequence[Sequence[int]]) -> Tensor:
    """Colours (B, 3) in [0, 1] at t (B,) in [0, 1] of the way along the stops, 0 to 255."""
    weights = (1 - (t[:, None] * (len(stops) - 1) - torch.arange(len(stops))).abs()).clamp(min=0)
    return (weights[:, :, None] * torch.tensor(stops, dtype=torch.float32)).sum(1) / 255


def _box(u: Tensor, v: Tensor, half_u: Tensor | float, half_v: Tensor | float, radius: Tensor | float) -> Tensor:
    """Signed distance to a box with round corners, centred on 0."""
    du, dv = u.abs() - (half_u - radius), v.abs() - (half_v - radius)
    outside = (du.clamp(min=0).square() + dv.clamp(min=0).square()).sqrt()
    return outside + torch.maximum(du, dv).clamp(max=0) - radius


def _ellipse(u: Tensor, v: Tensor, radius_u: Tensor | float, radius_v: Tensor | float) -> Tensor:
    """About the signed distance to an ellipse, centred on 0: exact to first order at its edge."""
    pu, pv = u / radius_u, v / radius_v
    level = pu.square() + pv.square()
    slope = ((pu / radius_u).square() + (pv / radius_v).square()).sqrt()
    return (level - 1) / (2 * slope + 1e-3)


class _View(NamedTuple):
    """A rectangle of the canvas: the coordinates of its pixels in the face's frame, and their colours, in place."""

    u: Tensor
    v: Tensor
    rgb: Tensor
    pixel: float

    def window(self, top: float, bottom: float, side: float = 1.0) -> _View:
        """The pixels between these heights and within `side` of the middle, in the picture's frame, and one more.

        Painting parts in windows is faster; a window must hold its part for all factors.
        """
        last = self.u.shape[1]
        a, c = (max(math.floor((edge + 1) / 2 * last) - 1, 0) for edge in (top, -side))
        b, d = (min(math.ceil((edge + 1) / 2 * last) + 1, last) for edge in (bottom, side))
        return _View(self.u[:, a:b, c:d], self.v[:, a:b, c:d], self.rgb[:, :, a:b, c:d], self.pixel)

    def fill(self, distance: Tensor, colour: Tensor, opacity: Tensor | float = 1.0) -> None:
        """Paints where the signed distance is negative; edges are a pixel soft."""
        alpha = (0.5 - distance / self.pixel).clamp(0, 1) * opacity
        self.rgb.add_(alpha[:, None] * (colour[:, :, None, None] - self.rgb))


class _Painter:
    """Paints each part over those behind it; only an attribute's own part depends on its presence."""

    def __init__(self, factors: Mapping[str, Tensor], present: Mapping[str, Tensor], image_size: int) -> None:
        self.factors = factors
        self.present = {name: value.float()[:, None, None] for name, value in present.items()}
        line = (torch.arange(image_size) * 2 + 1) / image_size - 1
        self.x, self.y = line[None, None, :], line[None, :, None]
        tilt = self.between("roll", -0.09, 0.09)
        cosine = 1 / (1 + tilt.square()).sqrt()
        sine = tilt * cosine
        dx, dy = self.x - self.between("position_x", -0.05, 0.05), self.y - self.between("position_y", -0.03, 0.05)
        u, v = cosine * dx + sine * dy, cosine * dy - sine * dx
        self.canvas = _View(u, v, self.background(image_size), 2 / image_size)
        self.width = self.between("face_width", 0.45, 0.53)
        self.chin = self.between("face_length", 0.7, 0.78)
        self.yaw = self.between("yaw", -0.07, 0.07)
        self.skin = _ramp(factors["skin"], _SKIN)

    def between(self, name: str, low: float, high: float) -> Tensor:
        """The factor as (B, 1, 1), stretched from [0, 1] to [low, high]."""
        return self.factors[name][:, None, None] * (high - low) + low

    def paint(self) -> Tensor:
        behind = (self.shirt, self.hair_behind, self.head, self.beard, self.mouth, self.nose, self.eyes)
        for part in (*behind, self.hair_above, self.glasses, self.hat, self.light):
            part()
        return (self.canvas.rgb * 255 + 0.5).clamp_(0, 255).to(torch.uint8)

    def background(self, image_size: int) -> Tensor:
        colour = _ramp(self.factors["background"], _CLOTH)
        pale = self.between("background_light", 0.6, 0.0)[:, 0]
        colour = colour * (1 - pale) + pale
        colour = colour * (1.05 - 0.25 * self.factors["background_light"][:, None])
        shade = 1 + self.x * self.between("background_gradient", 0.12, -0.12) - 0.06 * self.y
        return colour[:, :, None, None] * shade[:, None].expand(-1, 1, image_size, image_size)

    def light(self) -> None:
        strength = self.between("light_strength", 0.05, 0.3)
        side = self.between("light_x", -1, 1) * self.x + self.between("light_y", -1, 0.4) * self.y
        self.canvas.rgb.mul_((1 + strength * side)[:, None])

    def head_distance(self, view: _View, grow: Tensor | float = 0.0, longer: Tensor | float = 0.0) -> Tensor:
        """Signed distance to the outline of the head, grown by this much all round and longer at the chin."""
        v = view.v - 0.02
        below = v.clamp(min=0)
        taper = 1 - self.between("jaw", -0.1, 0.2) * below.square()
        radius_v = torch.where(v < 0, 0.6 + grow, self.chin + grow + longer)
        return _ellipse(view.u / taper, v, self.width + grow, radius_v)

    def shirt(self) -> None:
        view = self.canvas.window(0.6, 1.0)
        colour = _ramp(self.factors["shirt"], _CLOTH) * 0.7
        view.fill(_ellipse(view.u, view.v - 1.2, 0.85, 0.42), colour)

    def hair_behind(self) -> None:
        view = self.canvas.window(-0.85, 1.0, 0.8)
        side = self.width + self.between("Hair.length", 0.1, 0.14)
        top, bottom = -0.44, self.between("Hair.length", 0.15, 0.9)
        middle, half = (top + bottom) / 2, (bottom - top) / 2
        distance = _box(view.u, view.v - middle, side, half, 0.38)
        view.fill(distance, _ramp(self.factors["Hair.colour"], _HAIR) * 0.72, self.present["Hair"])

    def head(self) -> None:
        neck = self.canvas.window(0.4, 1.0, 0.45)
        neck.fill(_box(neck.u, neck.v - 0.75, 0.19, 0.25, 0.1), self.skin * 0.78)
        ears = self.canvas.window(-0.25, 0.4, 0.75)
        ears.fill(_ellipse(ears.u.abs() - self.width - 0.01, ears.v - 0.06, 0.07, 0.12), self.skin * 0.86)
        view = self.canvas.window(-0.75, 1.0, 0.7)
        distance = self.head_distance(view)
        view.fill(distance, self.skin)
        lit_u, lit_v = self.between("light_x", -0.12, 0.12), self.between("light_y", -0.12, 0.0)
        lit = _ellipse(view.u - lit_u, view.v - 0.06 - lit_v, self.width + 0.02, self.chin - 0.02)
        strength = self.between("light_strength", 0.3, 0.9)
        view.fill(torch.maximum(distance, -lit), self.skin * 0.84, strength)

    def beard(self) -> None:
        view = self.canvas.window(-0.2, 1.0, 0.75)
        u = view.u - 0.5 * self.yaw
        grow, longer = self.between("Beard.length", 0.02, 0.04), self.between("Beard.length", 0.02, 0.32)
        outline = self.head_distance(view, grow, longer)
        cheek = 0.33 - 1.25 * u.square() - view.v
        hole = _ellipse(view.u - self.yaw, view.v - _MOUTH_V - 0.01, 0.235, 0.115)
        distance = torch.maximum(torch.maximum(outline, cheek), -hole)
        opacity = self.between("Beard.density", 0.7, 1.0) * self.present["Beard"]
        view.fill(distance, _ramp(self.factors["Beard.colour"], _BEARD), opacity)

    def mouth(self) -> None:
        view = self.canvas.window(0.18, 0.78, 0.42)
        u, v = view.u - self.yaw, view.v - _MOUTH_V
        smiling = self.present["Smiling"] > 0
        curve = torch.where(smiling, self.between("Smiling.curve", 0.09, 0.2), self.between("mouth", 0.0, -0.028))
        width = torch.where(smiling, self.between("Smiling.curve", 0.18, 0.225), self.between("mouth", 0.12, 0.15))
        opening = torch.where(smiling, self.between("Smiling.openness", 0.03, 0.14), 0.02)
        bend = (u / width).square().clamp(max=1)
        upper = curve * (0.4 - bend)
        lower = upper + opening * (1 - bend)
        inside = torch.maximum(upper - v, v - lower)
        ends = u.abs() - width
        view.fill(torch.maximum(inside - 0.024, ends - 0.015), _LIP)
        view.fill(torch.maximum(inside - 0.004, ends), _MOUTH)
        teeth = torch.maximum(inside + 0.01, v - upper - 0.55 * opening * (1 - bend))
        view.fill(torch.maximum(teeth, ends), _TEETH)

    def nose(self) -> None:
        view = self.canvas.window(0.05, 0.38, 0.3)
        tip = self.between("nose", 0.2, 0.25)
        u, v = view.u - 1.5 * self.yaw, view.v - tip
        view.fill(_ellipse(u, v, 0.07, 0.05), self.skin * 0.76)
        view.fill(_ellipse(u, v + 0.02, 0.06, 0.045), self.skin * 0.96)

    def eyes(self) -> None:
        view = self.canvas.window(-0.4, 0.25, 0.55)
        u, v = view.u - self.yaw, view.v - _EYE_V
        out = u.abs() - _EYE_U
        white = _ellipse(out, v, 0.105, self.between("eye_size", 0.06, 0.09))
        view.fill(white, _EYE)
        iris_u = out - self.between("gaze", -0.03, 0.03) * torch.where(u < 0, -1.0, 1.0)
        radius = (iris_u.square() + v.square()).sqrt()
        view.fill(torch.maximum(radius - 0.06, white), _ramp(self.factors["eye_colour"], _IRIS))
        view.fill(torch.maximum(radius - 0.03, white), _PUPIL)
        brow = v + self.between("brow", 0.14, 0.19) + self.between("brow", -0.008, 0.022) * out / 0.1
        view.fill(_box(out, brow + 1.2 * out.square(), 0.11, 0.022, 0.02), self.skin * 0.42)

    def hair_above(self) -> None:
        view = self.canvas.window(-0.85, 0.34, 0.8)
        u = view.u - 0.5 * self.yaw
        cap = self.head_distance(view, self.between("Hair.length", 0.065, 0.1))
        line = view.v + 0.36 - 2.0 * (u / (2 * self.width)).square() - 3.2 * (u.square() * u.square())
        line = torch.maximum(line, view.v - 0.16)
        view.fill(torch.maximum(cap, line), _ramp(self.factors["Hair.colour"], _HAIR), self.present["Hair"])

    def glasses(self) -> None:
        view = self.canvas.window(-0.3, 0.36, 0.75)
        u, v = view.u - self.yaw, view.v - _EYE_V - 0.015
        there = self.present["Eyeglasses"]
        out = u.abs() - _EYE_U
        half_u, half_v = self.between("Eyeglasses.size", 0.13, 0.185), self.between("Eyeglasses.size", 0.095, 0.17)
        lens = _box(out, v, half_u, half_v, 0.08)
        tint = _ramp(self.factors["Eyeglasses.colour"], _FRAME) * 0.5
        view.fill(lens, tint, self.between("Eyeglasses.tint", 0.06, 0.82) * there)
        across = torch.where(u < 0, -out, out)
        glint = torch.maximum((across + 0.7 * v + 0.03).abs() - 0.022, lens + 0.04)
        view.fill(glint, _GLINT, 0.35 * there)
        thickness = self.between("Eyeglasses.thickness", 0.016, 0.034)
        bridge = torch.maximum((v + 0.02).abs() - thickness, torch.maximum(u.abs() - _EYE_U, -lens))
        arms = torch.maximum((v + 0.03).abs() - 0.016, torch.maximum(view.u.abs() - self.width, -(out - half_u)))
        frame = torch.minimum(lens.abs() - thickness, torch.minimum(bridge, arms))
        view.fill(frame, _ramp(self.factors["Eyeglasses.colour"], _FRAME), there)

    def hat(self) -> None:
        view = self.canvas.window(-1.0, -0.12)
        there = self.present["Wearing_Hat"]
        colour = _ramp(self.factors["Wearing_Hat.colour"], _HAT)
        top, corner = self.between("Wearing_Hat.height", -0.74, -0.94), self.between("Wearing_Hat.height", 0.28, 0.06)
        middle, half = (top + _BRIM_V) / 2, (_BRIM_V - top) / 2
        side = self.width * 0.86 + self.between("Wearing_Hat.height", 0.1, 0.06)
        crown = _box(view.u, view.v - middle - 0.05, side, half + 0.05, corner)
        crown = torch.maximum(crown, view.v - _BRIM_V)
        view.fill(crown, colour, there)
        view.fill(torch.maximum(crown, _BRIM_V - 0.12 - view.v), colour * 0.55, there)
        brim = side + self.between("Wearing_Hat.brim", 0.03, 0.3)
        view.fill(_box(view.u, view.v - _BRIM_V, brim, 0.05, 0.045), colour * 0.85, there)
