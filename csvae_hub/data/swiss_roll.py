"""The toy data of the paper: a Swiss roll in R³, cut in two."""

from __future__ import annotations

import math

import numpy as np

from csvae_hub.data.base import AttributeData, expect

HEIGHT = 21.0
"""Height of the roll, in the units of scikit-learn's `make_swiss_roll`, which public reproductions use."""


def swiss_roll(n: int = 10_000, seed: int = 0, noise: float = 0.0) -> AttributeData:
    r"""Points of a Swiss roll, float32 (n, 3), with one attribute, `Above`: the upper half of the roll.

    $x = (t \cos t,\ h,\ t \sin t)$ with the angle $t \sim U(1.5\pi, 4.5\pi)$, the height $h \sim U(0, 21)$, and
    $y = [x_2 > 10.5]$. The height is independent of the spiral, so a point's place on the spiral says nothing
    of y: z can hold the spiral, and leaves the side of the cut to w.

    `noise` is the standard deviation of Gaussian noise on each coordinate, in the units of x (-14 to 21).

    Raises:
        DataError: n below 1, or a noise that is negative or not finite.
    """
    expect(n >= 1, f"n: expected at least one point, got {n}")
    expect(0 <= noise < math.inf, f"noise: expected a standard deviation of 0 or more, got {noise}")
    generator = np.random.default_rng(seed)
    t = 1.5 * np.pi * (1 + 2 * generator.random(n))
    height = HEIGHT * generator.random(n)
    x = np.stack([t * np.cos(t), height, t * np.sin(t)], axis=1) + noise * generator.standard_normal((n, 3))
    above = x[:, 1:2] > HEIGHT / 2
    return AttributeData(x.astype(np.float32), above.astype(np.float32), ["Above"])
