"""safetensors files from strangers: what they hold is known before memory is taken, and nothing in them runs."""

from __future__ import annotations

import itertools
import math
import mmap
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from csvae_hub.config import shortened, shown
from csvae_hub.errors import CorruptWeightsError, NonFiniteWeightsError
from csvae_hub.safe_files import again, existing, of_repo

MAX_HEADER = 4 << 20
"""Upper bound in bytes of the list of tensors that begins a file."""
BLOCK = 1 << 18
"""Bytes read at once: few enough to stay in the processor's cache until they are converted and looked at."""
HUGE = 2 << 20
"""Bytes of Linux's large pages of memory; where they are larger, the system's ordinary ones serve."""

FLOATING = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
WHOLE = {"I8": torch.int8, "U8": torch.uint8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}
TYPES = {**FLOATING, **WHOLE, "BOOL": torch.bool}


class TensorFile:
    """A safetensors file: names, shapes and types are known, and tensors are read by name.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is truncated, no safetensors file, or holds tensors of a type that no model has.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = existing(path)
        self.size = self.path.stat().st_size
        with self.path.open("rb") as file:
            self._header = self._read_header(file)
        try:
            with safe_open(self.path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.offset_keys()}
                self.shapes: dict[str, tuple[int, ...]] = {name: tuple(s.get_shape()) for name, s in slices.items()}
                types: dict[str, str] = {name: s.get_dtype() for name, s in slices.items()}
        except (SafetensorError, ValueError, OverflowError) as error:
            raise self._corrupt(str(error)) from error
        unknown = next(((name, kind) for name, kind in types.items() if kind not in TYPES), None)
        if unknown is not None:
            raise self._corrupt(f"{shown(unknown[0])} is of type {unknown[1]}, which no model has")
        self.dtypes = {name: TYPES[kind] for name, kind in types.items()}
        self.numbers = sum(math.prod(shape) for shape in self.shapes.values())
        # safetensors has made sure that they lie side by side, from the header to the end.
        sizes = [_bytes(self.shapes[name], dtype) for name, dtype in self.dtypes.items()]
        self._starts = dict(zip(self.shapes, itertools.accumulate(sizes, initial=len(self._header)), strict=False))

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
        place = torch.device(device)
        sizes = [_bytes(self.shapes[name], dtype) for name, dtype in wanted.items()]
        empty = _room(sizes) if place.type == "cpu" else torch.empty
        block = bytearray(BLOCK)
        with self._opened() as file:
            for name in sorted(wanted, key=self._starts.__getitem__):
                numbers = empty(math.prod(self.shapes[name]), dtype=wanted[name])
                file.seek(self._starts[name])
                for stored, piece in self._pieces(file, self.dtypes[name], numbers, block):
                    if not _finite(piece):
                        (too_large if _finite(stored) else bad).append(name)
                tensor = numbers.view(self.shapes[name])
                state[name] = tensor if place.type == "cpu" else tensor.to(place)
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
        return {name: state[name] for name in wanted}

    def _pieces(
        self, file: BufferedReader, dtype: torch.dtype, numbers: Tensor, block: bytearray
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Fills numbers (N,) from a file that stores them as dtype; gives each block as stored, and as it is now."""
        same, most = numbers.dtype == dtype, BLOCK // dtype.itemsize
        read = torch.frombuffer(block, dtype=dtype)
        for piece in numbers.split(most) if numbers.numel() > most else (numbers,):
            stored = piece if same else read[: piece.numel()]
            raw = piece.view(torch.uint8).numpy().data if same else memoryview(block)[: stored.nbytes]
            if file.readinto(raw) < len(raw):
                raise self._corrupt("it is cut off")
            if sys.byteorder == "big":
                swapped = stored.view(torch.uint8).view(-1, dtype.itemsize).flip(1)
                stored.view(torch.uint8).copy_(swapped.view(-1))
            yield stored, piece if same else piece.copy_(stored)

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        """The file, if it still is the one whose header was read."""
        try:
            with self.path.open("rb") as file:
                if self._read_header(file) != self._header or os.fstat(file.fileno()).st_size != self.size:
                    raise self._corrupt("it was replaced by another while it was read")
                yield file
        except FileNotFoundError as error:
            raise self._corrupt(str(error)) from error

    def _read_header(self, file: BufferedReader) -> bytes:
        """All that comes before the tensors, its length first."""
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > self.size - 8:
            raise self._corrupt("the list of its tensors is cut off")
        if length > MAX_HEADER:
            raise self._corrupt(f"the list of its tensors takes {length} bytes, more than {MAX_HEADER}")
        return start + file.read(length)

    def _corrupt(self, reason: str) -> CorruptWeightsError:
        return CorruptWeightsError(
            f"{self.path}{of_repo(self.path)} is truncated or corrupt: expected a whole safetensors file, got"
            f" {self.size} bytes ({shortened(reason)}). {again(self.path)}"
        )


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _room(sizes: Iterable[int]) -> Callable[..., Tensor]:
    """`torch.empty` for vectors of these sizes in bytes, side by side in one piece of memory.

    Linux supplies that in large pages. In ordinary ones, as the vectors are first written to, it would take as long as
    everything else in loading. The piece is given back once none of the vectors is left.
    """
    size = sum(map(_aligned, sizes))
    if sys.platform != "linux" or size < HUGE:
        return torch.empty
    memory = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    place = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % HUGE
    with suppress(OSError):  # a system without them
        memory.madvise(mmap.MADV_HUGEPAGE, place, round(size / HUGE) * HUGE)

    def empty(count: int, *, dtype: torch.dtype) -> Tensor:
        nonlocal place
        if not count:
            return torch.empty(0, dtype=dtype)
        begin, place = place, place + _aligned(count * dtype.itemsize)
        return torch.frombuffer(memory, dtype=dtype, count=count, offset=begin)

    return empty


def _aligned(size: int) -> int:
    """Up to the next multiple of 64 bytes, where torch's own tensors begin."""
    return -(-size // 64) * 64


def _finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite. A sum is finite only then, and is 40 times as fast as looking at each."""
    if not tensor.is_floating_point():
        return True
    wide = tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float32
    return math.isfinite(tensor.sum(dtype=wide).item()) or bool(tensor.isfinite().all())


def _first(names: list[str]) -> str:
    return f"{shown(names[0])}{f' and {len(names) - 1} other tensors' if names[1:] else ''}"
