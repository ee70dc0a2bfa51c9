"""safetensors files from strangers: what they hold is known before memory is taken, and nothing in them runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from csvae_hub.errors import CorruptWeightsError, NonFiniteWeightsError
from csvae_hub.safe_files import again, existing, of_repo

MAX_HEADER = 4 << 20
"""Upper bound in bytes of the list of tensors that begins a file."""

FLOATING = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
WHOLE = {"I8": torch.int8, "U8": torch.uint8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}
TYPES = {**FLOATING, **WHOLE, "BOOL": torch.bool}


class TensorFile:
    """A safetensors file: names, shapes and types are known, and tensors are read one at a time.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is truncated, no safetensors file, or holds tensors of a type that no model has.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = existing(path)
        self.size = self.path.stat().st_size
        self._check_header_size()
        try:
            with safe_open(self.path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.offset_keys()}
                self.shapes: dict[str, tuple[int, ...]] = {name: tuple(s.get_shape()) for name, s in slices.items()}
                types: dict[str, str] = {name: s.get_dtype() for name, s in slices.items()}
        except (SafetensorError, ValueError, OverflowError) as error:
            raise self._corrupt(str(error)) from error
        unknown = next(((name, kind) for name, kind in types.items() if kind not in TYPES), None)
        if unknown is not None:
            raise self._corrupt(f"{unknown[0]!r} is of type {unknown[1]}, which no model has")
        self.dtypes = {name: TYPES[kind] for name, kind in types.items()}
        self.numbers = sum(math.prod(shape) for shape in self.shapes.values())

    def read(
        self, names: Iterable[str], device: torch.device | str = "cpu", dtypes: Mapping[str, torch.dtype] | None = None
    ) -> dict[str, Tensor]:
        """Gives tensors by name, in the types stored or in those asked for; their memory is their own.

        Raises:
            CorruptWeightsError: the file is no longer what it was.
            NonFiniteWeightsError: a tensor holds NaN or infinity, or numbers too large for the type asked for.
        """
        wanted = {name: (dtypes or self.dtypes)[name] for name in names}
        state: dict[str, Tensor] = {}
        bad: list[str] = []
        too_large: list[str] = []
        try:
            # pread: the file's bytes are in memory once, as tensors; mapped they would be there a second time.
            with safe_open(self.path, framework="pt", backend="pread") as file:
                for name, dtype in wanted.items():
                    stored = file.get_tensor(name)
                    tensor = stored.to(dtype)
                    if not _finite(tensor):
                        (too_large if _finite(stored) else bad).append(name)
                    state[name] = tensor.to(device)
        except (SafetensorError, FileNotFoundError) as error:
            raise self._corrupt(str(error)) from error
        if any(tuple(tensor.shape) != self.shapes[name] for name, tensor in state.items()):
            raise self._corrupt("it was replaced by another while it was read")
        if bad:
            raise NonFiniteWeightsError(
                f"{self.path}{of_repo(self.path)} holds NaN or infinity in {_first(bad)}: expected finite numbers."
                " Its training has diverged, or float16 was too narrow for it; use other weights"
            )
        if too_large:
            raise NonFiniteWeightsError(
                f"{self.path}{of_repo(self.path)} holds numbers too large for {wanted[too_large[0]]} in"
                f" {_first(too_large)}: ask for dtype 'float32' or 'bfloat16'"
            )
        return state

    def _check_header_size(self) -> None:
        with self.path.open("rb") as file:
            start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > self.size - 8:
            raise self._corrupt("the list of its tensors is cut off")
        if length > MAX_HEADER:
            raise self._corrupt(f"the list of its tensors takes {length} bytes, more than {MAX_HEADER}")

    def _corrupt(self, reason: str) -> CorruptWeightsError:
        return CorruptWeightsError(
            f"{self.path}{of_repo(self.path)} is truncated or corrupt: expected a whole safetensors file, got"
            f" {self.size} bytes ({reason}). {again(self.path)}"
        )


def _finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite. A sum is finite only then, and is 40 times as fast as looking at each."""
    if not tensor.is_floating_point():
        return True
    wide = tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float32
    return math.isfinite(tensor.sum(dtype=wide).item()) or bool(tensor.isfinite().all())


def _first(names: list[str]) -> str:
    return f"{names[0]!r}{f' and {len(names) - 1} other tensors' if names[1:] else ''}"
