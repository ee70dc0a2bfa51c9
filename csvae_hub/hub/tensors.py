"""Reads safetensors files from strangers: sizes are checked before memory is taken, and no code in them runs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from csvae_hub.config import shortened, shown
from csvae_hub.errors import CorruptWeightsError, NonFiniteWeightsError
from csvae_hub.hub.safe_files import again, existing, of_repo

MAX_HEADER = 4 << 20
"""Upper bound in bytes of the header, which lists the tensors."""

MAX_TENSORS = 20_000
"""Upper bound of their number; the deepest model that a config allows has fewer."""

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TYPES = (*FLOATING, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Gives the tensors of a safetensors file by name, on the CPU, in the types stored.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is truncated, not a safetensors file, or holds tensors of a type that no model has.
        NonFiniteWeightsError: a tensor holds NaN or infinity.
    """
    size = existing(path).stat().st_size
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > min(size - 8, MAX_HEADER):
            raise ValueError(f"its header has {header} bytes: expected at most {max(0, min(size - 8, MAX_HEADER))}")
        tensors = load_file(path, backend="pread")  # own memory: a map would follow the file's later changes
        if len(tensors) > MAX_TENSORS:
            raise ValueError(f"it holds {len(tensors)} tensors: expected at most {MAX_TENSORS}")
        for name, tensor in tensors.items():
            if tensor.dtype not in TYPES:
                raise ValueError(f"{shown(name)} is of type {tensor.dtype}, which no model has")
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise CorruptWeightsError(
            f"{path}{of_repo(path)} is truncated or corrupt: expected a whole safetensors file, got {size} bytes"
            f" ({shortened(str(error))}). {again(path)}"
        ) from error
    if bad := sorted(name for name, tensor in tensors.items() if not is_finite(tensor)):
        raise NonFiniteWeightsError(
            f"{path}{of_repo(path)} holds NaN or infinity in {first(bad)}: expected finite numbers."
            " Its training has diverged, or float16 was too narrow for it; use other weights"
        )
    return tensors


def is_finite(tensor: Tensor) -> bool:
    """Tells whether all numbers are finite; `aminmax` passes NaN on and takes no memory."""
    return not tensor.numel() or all(bool(value.isfinite()) for value in tensor.aminmax())


def first(names: list[str]) -> str:
    """The first name, and how many others there are."""
    return f"{shown(names[0])}{f' and {len(names) - 1} other tensors' if names[1:] else ''}"
