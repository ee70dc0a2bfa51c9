"""Reads safetensors files from strangers: sizes are checked before memory is taken, and no code in them runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from csvae_hub.config import shortened, shown
from csvae_hub.errors import CorruptWeightsError, NonFiniteWeightsError
from csvae_hub.hub.safe_files import again, existing, of_repo

MAX_HEADER = 4 << 20
"""Upper bound in bytes of the header, which lists the tensors."""

MAX_TENSORS = 20_000
"""Upper bound of their number; the deepest model that a config allows has fewer."""

PART = 1 << 20
"""Bytes that are read at once, so that reading takes little memory beside the tensors that are filled.

safetensors reads a tensor whole, also for a slice of it: the peak of loading would be up to 1.3 times the model."""

TYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}
"""The types that a model has, by their names in a file."""


class TensorFile:
    """A safetensors file, of which the header is read; the numbers are read when tensors are filled.

    `described` has the tensors by name, on the meta device: their shapes and the types stored, without numbers.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is truncated, not a safetensors file, or holds tensors of a type that no model has.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, existing(path).stat().st_size
        self.described: dict[str, Tensor] = {}
        self._places: dict[str, int] = {}
        with self._corrupt(SafetensorError, OSError, ValueError, OverflowError):
            with path.open("rb") as file:
                header = int.from_bytes(file.read(8), "little")
            limit = min(self.size - 8, MAX_HEADER)
            if header > limit:
                raise ValueError(f"its header has {header} bytes: expected at most {max(0, limit)}")
            stored, place = safe_open(path, "pt", backend="pread"), 8 + header
            if len(names := stored.offset_keys()) > MAX_TENSORS:
                raise ValueError(f"it holds {len(names)} tensors: expected at most {MAX_TENSORS}")
            for name in names:  # one behind the other: safetensors refuses holes and overlaps
                part = stored.get_slice(name)
                if part.get_dtype() not in TYPES:
                    raise ValueError(f"{shown(name)} is of type {part.get_dtype()}, which no model has")
                tensor = torch.empty(part.get_shape(), dtype=TYPES[part.get_dtype()], device="meta")
                self.described[name], self._places[name] = tensor, place
                place += tensor.nbytes

    def fill(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Copies the file's numbers into tensors of the same names and shapes, on the CPU, of any type.

        Gives the names of tensors whose type is too narrow for the file's numbers, sorted.

        Raises:
            CorruptWeightsError: the file has become shorter.
            NonFiniteWeightsError: a tensor of the file holds NaN or infinity.
        """
        buffer, bad, too_large = bytearray(PART), set[str](), set[str]()
        with self._corrupt(OSError, ValueError), self.path.open("rb", buffering=0) as file, torch.no_grad():
            for name, tensor in tensors.items():
                file.seek(self._places[name])
                filled = tensor if tensor.is_contiguous() else torch.empty(tensor.shape, dtype=tensor.dtype)
                dtype = self.described[name].dtype
                for target in filled.view(-1).split(PART // dtype.itemsize):
                    numbers = _read(file, memoryview(buffer)[: len(target) * dtype.itemsize], dtype)
                    if not is_finite(target.copy_(numbers)):
                        (too_large if is_finite(numbers) else bad).add(name)
                if filled is not tensor:
                    tensor.copy_(filled)
        if bad:
            raise NonFiniteWeightsError(
                f"{self.path}{of_repo(self.path)} holds NaN or infinity in {first(sorted(bad))}: expected finite"
                " numbers. Its training has diverged, or float16 was too narrow for it; use other weights"
            )
        return sorted(too_large)

    @contextmanager
    def _corrupt(self, *errors: type[Exception]) -> Iterator[None]:
        """Names the file in errors that say that it can't be read."""
        try:
            yield
        except errors as error:
            raise CorruptWeightsError(
                f"{self.path}{of_repo(self.path)} is truncated or corrupt: expected a whole safetensors file, got"
                f" {self.size} bytes ({shortened(str(error))}). {again(self.path)}"
            ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Gives the tensors of a safetensors file by name, on the CPU, in the types stored.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is truncated, not a safetensors file, or holds tensors of a type that no model has.
        NonFiniteWeightsError: a tensor holds NaN or infinity.
    """
    file = TensorFile(path)
    tensors = {name: torch.empty(found.shape, dtype=found.dtype) for name, found in file.described.items()}
    file.fill(tensors)
    return tensors


def is_finite(tensor: Tensor) -> bool:
    """Tells whether all numbers are finite; `aminmax` passes NaN on and takes no memory."""
    return not tensor.numel() or all(bool(value.isfinite()) for value in tensor.aminmax())


def first(names: list[str]) -> str:
    """The first name, and how many others there are."""
    return f"{shown(names[0])}{f' and {len(names) - 1} other tensors' if names[1:] else ''}"


def _read(file: FileIO, place: memoryview, dtype: torch.dtype) -> Tensor:
    """Fills memory from a file, and gives it as a tensor of a type."""
    read = 0
    while read < len(place):
        count = file.readinto(place[read:])
        if not count:
            raise ValueError(f"it ends {len(place) - read} bytes too soon")
        read += count
    return torch.frombuffer(place, dtype=dtype) if len(place) else torch.empty(0, dtype=dtype)
