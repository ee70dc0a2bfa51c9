"""The values of an attribute, brought to few forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from csvae_hub.models.latents import Latents


def parse_value(
    value: Any, name: str, latents: Latents, encode: Callable[[Any], Latents]
) -> float | Literal["sample"] | Latents | Tensor:
    """The value of an edit as a number, "sample", latents of as many images as are edited or of one, or coordinates.

    Args:
        value: what the caller gave: see `AttributeModel.set_attribute`.
        name: of the attribute, for the errors.
        latents: what is edited, B images; the size of w says how many coordinates a point has, none where it has none.
        encode: makes latents of an image.

    Returns:
        Coordinates are a tensor (w_dim,) or (B, w_dim) on the latents' device.

    Raises:
        ValueError: the value can't be understood, or is not finite.
    """
    w_dim = latents.w.shape[-1]
    if getattr(value, "shape", None) == ():  # numpy's and torch's numbers
        value = value.item()
    if isinstance(value, bool | int | float):
        return float(_finite(torch.tensor(float(value)), name, value))
    if isinstance(value, str) and value == "sample":
        return "sample"
    if isinstance(value, Latents):
        if len(value) not in (1, len(latents)):
            raise ValueError(
                f"value for {name!r}: expected the latents of one image or of as many as are edited, got {len(value)}"
            )
        return value
    if isinstance(value, Tensor) and value.ndim <= 2 and value.shape[-1:] == (w_dim,):
        return _finite(value.to(latents.w), name, value)
    if isinstance(value, list | tuple) and all(isinstance(v, bool | int | float) for v in value):
        if len(value) != w_dim or not w_dim:
            expected = f"{w_dim} coordinates" if w_dim else "a number, since this model has no subspaces"
            raise ValueError(f"value for {name!r}: expected {expected}, got {len(value)}: {value!r}")
        return _finite(torch.tensor(value, device=latents.w.device, dtype=latents.w.dtype), name, value)
    if isinstance(value, str | Path) or hasattr(value, "shape") or hasattr(value, "size"):
        return parse_value(encode(value), name, latents, encode)
    coordinates = f"{w_dim} coordinates, " if w_dim else ""
    raise ValueError(
        f"value for {name!r}: expected True, False, a number, {coordinates}an image, Latents or 'sample', got {value!r}"
    )


def level(value: Any, name: str, latents: Latents, encode: Callable[[Any], Latents]) -> Tensor:
    """The value of an edit as y_i of each image (B,), for models whose attributes are numbers.

    "sample" is 1, the one present that such a model has; latents or an image give their own y_i.

    Raises:
        ValueError: the value can't be understood, or is coordinates.
    """
    found = parse_value(value, name, latents, encode)
    if isinstance(found, Latents):
        return found.y[:, found.index(name)].to(latents.y).expand(len(latents))
    if isinstance(found, Tensor):
        raise ValueError(f"value for {name!r}: expected a number, since this model has no subspaces, got {value!r}")
    return torch.full((len(latents),), 1.0 if found == "sample" else found).to(latents.y)


def _finite(tensor: Tensor, name: str, value: Any) -> Tensor:
    if not tensor.isfinite().all():
        raise ValueError(f"value for {name!r}: expected finite numbers, got {value!r}")
    return tensor
