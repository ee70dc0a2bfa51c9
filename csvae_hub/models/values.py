"""The values of an attribute, brought to few forms."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import torch
from torch import Tensor

from csvae_hub.errors import ImageError
from csvae_hub.models.latents import Latents
from csvae_hub.text import value_of


def plain(value: Any, name: str) -> Any:
    """A value with text read as on the command line, and booleans of numpy and torch as Python's.

    Raises:
        ImageError: a text is neither a value nor the name of a file.
    """
    if isinstance(value, str):
        try:
            return value_of(value)
        except ValueError as error:
            raise ImageError(f"value for {name!r}: {error}") from error
    is_bool = isinstance(value, np.bool_) or getattr(value, "dtype", None) in (torch.bool, np.bool_)
    return bool(value) if is_bool and value.ndim == 0 else value


def parse_value(
    value: Any, name: str, latents: Latents, encode: Callable[[Any], Latents]
) -> Literal["sample"] | Latents | Tensor:
    """The value of an edit as "sample", latents of as many images as are edited or of one, or a tensor.

    Args:
        value: what the caller gave: see `AttributeModel.set_attribute`.
        name: of the attribute, for the errors.
        latents: what is edited, B images; the size of w says how many coordinates a point has, none where it has none.
        encode: makes latents of an image.

    Returns:
        A number is a tensor (), coordinates are one of (w_dim,) or (B, w_dim), of w's type and on its device. Both keep
        the gradient of a tensor.

    Raises:
        ValueError: the value can't be understood, or is not finite (a tensor on a GPU is not looked at).
    """
    w_dim = latents.w.shape[-1]
    value = plain(value, name) if isinstance(value, str) else value
    if isinstance(value, str):
        return "sample"
    if isinstance(value, Latents):
        if len(value) not in (1, len(latents)):
            raise ValueError(
                f"value for {name!r}: expected the latents of one image or of as many as are edited, got {len(value)}"
            )
        return value
    found = _as_tensor(value, w_dim)
    if found is not None:
        if found.ndim == 1 and (len(found) != w_dim or not w_dim):
            expected = f"{w_dim} coordinates" if w_dim else "a number, since this model has no subspaces"
            raise ValueError(f"value for {name!r}: expected {expected}, got {len(found)}: {value!r}")
        found = found.to(latents.w.dtype)
        if found.device.type == "cpu" and not torch.compiler.is_compiling() and not found.isfinite().all():
            raise ValueError(f"value for {name!r}: expected finite numbers, got {value!r}")
        # only a caller's own tensor may change before it has arrived
        return found.to(latents.w.device, non_blocking=latents.w.is_cuda and not isinstance(value, Tensor))
    if isinstance(value, Path) or hasattr(value, "shape") or hasattr(value, "size"):
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
        found = found.y[:, found.index(name)]
    elif isinstance(found, str):
        found = latents.y.new_ones(())
    elif found.ndim:
        raise ValueError(f"value for {name!r}: expected a number, since this model has no subspaces, got {value!r}")
    return found.to(latents.y).expand(latents.y.shape[0])


def _as_tensor(value: Any, w_dim: int) -> Tensor | None:
    """Numbers and coordinates as a tensor: (), (n,) or (B, w_dim); None for anything else."""
    if isinstance(value, list | tuple) and all(map(_is_number, value)):
        return torch.stack([_as_number(v) for v in value]) if value else torch.zeros(0, device="cpu")
    if _is_number(value):
        return _as_number(value)
    if not _is_numeric(value) or value.ndim > 2 or (value.ndim == 2 and value.shape[1] != w_dim):
        return None
    if isinstance(value, Tensor):
        return value
    is_picture = value.ndim == 2 and value.dtype == np.uint8
    return None if is_picture else torch.from_numpy(np.array(value, dtype=np.float64))


def _is_number(value: Any) -> bool:
    """True for a number of Python, numpy or torch."""
    return isinstance(value, Real | np.bool_) or (_is_numeric(value) and value.ndim == 0)


def _is_numeric(value: Any) -> TypeGuard[Tensor | np.ndarray[Any, Any]]:
    """True for a tensor or array of real numbers."""
    if isinstance(value, Tensor):
        return not value.is_complex()
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def _as_number(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64, device="cpu")
