"""Faces drawn from known factors: every picture has its true counterfactuals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvae_hub.data.base import AttributeData, expect
from csvae_hub.data.face_renderer import ATTRIBUTES, FACTORS, render
from csvae_hub.errors import DataError, did_you_mean

IMAGE_SIZES = (16, 32, 64, 128, 256)

_PIXELS_AT_ONCE = 64 * 64 * 64
"""Fits into the cache of a core, which halves the time."""


class SyntheticFaces(AttributeData):
    r"""Drawn faces, uint8 (n, 3, S, S), with the attributes Beard, Eyeglasses, Hair, Smiling and Wearing_Hat.

    Each attribute varies continuously (hats from cap to top hat, lenses from clear to dark) and is visible wherever it
    is present. `factors` maps each name of `csvae_hub.data.face_renderer.FACTORS` to float32 (n,), uniform in [0, 1]
    and independent of the other factors and of the attributes. `Beard.length` is drawn for every face, so that
    `counterfactual` can give any face its beard. A `subset` has no factors of its own.

    Attribute i is present where a standard normal $g_i < \Phi^{-1}(s_i)$ with its base rate $s_i$: a Gaussian copula.
    The factors depend on n and the seed only, so other base rates give the same people with other attributes.

    Args:
        n: number of faces.
        seed: the same seed gives the same faces.
        image_size: S, the side in pixels: 16, 32, 64, 128 or 256.
        base_rates: the probability that an attribute is present: one for all, or by name (else 0.5).
        correlations: of the normals $g_i$ and $g_j$ for pairs of attributes, in [-1, 1] (else 0). The attributes'
            own correlation is closer to 0: $\frac{2}{\pi} \arcsin 0.9 = 0.71$ for 0.9 at base rates of 0.5.

    Raises:
        DataError: n below 1, another image size, a base rate outside [0, 1], an unknown attribute, or correlations
            outside [-1, 1] or that no five normals can have together.
    """

    def __init__(
        self,
        n: int = 10_000,
        seed: int = 0,
        image_size: int = 64,
        base_rates: float | Mapping[str, float] = 0.5,
        correlations: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        sizes = ", ".join(map(str, IMAGE_SIZES))
        expect(n >= 1, f"n: expected at least one face, got {n}")
        expect(image_size in IMAGE_SIZES, f"image_size: expected one of {sizes}, got {image_size}")
        thresholds, root = _thresholds(base_rates), _root(correlations or {})
        generator = np.random.default_rng(seed)
        factors = {name: torch.from_numpy(generator.random(n, dtype=np.float32)) for name in FACTORS}
        labels = generator.standard_normal((n, len(ATTRIBUTES))) @ root.T < thresholds
        renderer = _FaceRenderer(factors, labels, image_size)
        images = renderer.draw(factors, renderer.present)
        super().__init__(images, labels.astype(np.float32), ATTRIBUTES, renderer=renderer)
        self.factors = factors


class _FaceRenderer:
    """Draws the faces, as they are or with one attribute changed: the `Renderer` of this data."""

    def __init__(self, factors: dict[str, Tensor], labels: NDArray[np.bool_], image_size: int) -> None:
        self.factors, self.image_size = factors, image_size
        self.present = {name: torch.from_numpy(labels[:, i].copy()) for i, name in enumerate(ATTRIBUTES)}

    def __call__(
        self, rows: NDArray[np.int64], attribute: str, value: bool, kinds: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        own, kind_rows = torch.from_numpy(rows), torch.from_numpy(kinds)
        inside = f"{attribute}."
        factors = {name: values[kind_rows if name.startswith(inside) else own] for name, values in self.factors.items()}
        present = {name: values[own] for name, values in self.present.items()}
        return self.draw(factors, present | {attribute: torch.full((len(rows),), value)})

    def draw(self, factors: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> NDArray[np.uint8]:
        """The faces with these factors and attributes, a part at a time."""
        side = self.image_size
        parts = torch.arange(len(present[ATTRIBUTES[0]])).split(max(1, _PIXELS_AT_ONCE // side**2))

        def some(values: Mapping[str, Tensor], part: Tensor) -> dict[str, Tensor]:
            return {name: value[part] for name, value in values.items()}

        return torch.cat([render(some(factors, part), some(present, part), side) for part in parts]).numpy()


def _thresholds(base_rates: float | Mapping[str, float]) -> NDArray[np.float64]:
    """Φ⁻¹ of each attribute's base rate, (5,)."""
    named = base_rates if isinstance(base_rates, Mapping) else dict.fromkeys(ATTRIBUTES, base_rates)
    _check_names("base_rates", named)
    for name, rate in named.items():
        expect(0 <= rate <= 1, f"base_rates: expected the base rate of {name} between 0 and 1, got {rate}")
    wanted = torch.tensor([named.get(name, 0.5) for name in ATTRIBUTES], dtype=torch.float64)
    return torch.special.ndtri(wanted).numpy()


def _root(correlations: Mapping[tuple[str, str], float]) -> NDArray[np.float64]:
    """R (5, 5) with R Rᵀ the matrix of the correlations."""
    _check_names("correlations", chain.from_iterable(correlations))
    matrix = np.eye(len(ATTRIBUTES))
    for (first, second), value in correlations.items():
        pair = f"{first}, {second}"
        once = first != second and (second, first) not in correlations
        expect(once, f"correlations: expected each pair of two attributes once, got {pair}")
        expect(-1 <= value <= 1, f"correlations: expected a number from -1 to 1 for {pair}, got {value}")
        i, j = ATTRIBUTES.index(first), ATTRIBUTES.index(second)
        matrix[i, j] = matrix[j, i] = value
    values, vectors = np.linalg.eigh(matrix)
    expect(
        values[0] >= -1e-9,
        "correlations: expected a positive semi-definite matrix, got one with the eigenvalue "
        f"{values[0]:.2f}: no normals are correlated so; bring the numbers closer to 0",
    )
    return vectors * np.sqrt(values.clip(min=0))


def _check_names(argument: str, names: Iterable[str]) -> None:
    for name in names:
        if name not in ATTRIBUTES:
            hint, known = did_you_mean(name, ATTRIBUTES), ", ".join(ATTRIBUTES)
            raise DataError(f"{argument}: expected attributes among {known}, got {name!r}{hint and ':' + hint}")
