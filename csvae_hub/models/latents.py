"""The code of an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as tree

from csvae_hub.errors import unknown_attribute


@dataclass(frozen=True, repr=False)
class Latents:
    """The code of a batch: z (B, z_dim), w (B, k, w_dim), y (B, k), and the attributes' names in order.

    w_dim is 0 for a model without subspaces. y is in [0, 1], or beyond where such a model's edit extrapolates.
    """

    z: Tensor
    w: Tensor
    y: Tensor
    attributes: tuple[str, ...]

    def __repr__(self) -> str:
        z, w = tuple(self.z.shape), tuple(self.w.shape)
        return f"Latents({len(self)}: z {z}, w {w}, {', '.join(self.attributes)}; {self.z.dtype}, {self.z.device})"

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: int | slice | Tensor) -> Latents:
        """A part of the batch, as a batch."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"latents of {len(self)} images have no index {index}")
            index = slice(index, index + 1 or None)
        return Latents(self.z[index], self.w[index], self.y[index], self.attributes)

    def split(self, size: int | None) -> list[Latents]:
        """Parts of at most `size` images each, in order; for None the whole."""
        if size is None or len(self) <= size:
            return [self]
        return [self[start : start + size] for start in range(0, len(self), size)]

    def index(self, name: str) -> int:
        """The position of an attribute.

        Raises:
            UnknownAttributeError: the name is none of `attributes`.
        """
        if name not in self.attributes:
            raise unknown_attribute(name, self.attributes)
        return self.attributes.index(name)

    def replace(self, name: str, value: Tensor) -> Latents:
        """The same latents with w_i of one attribute replaced; z and every other subspace stay equal to the bit.

        Args:
            name: the attribute.
            value: (w_dim,) for all, or (B, w_dim).

        Raises:
            UnknownAttributeError: the name is none of `attributes`.
            ValueError: the value has another shape.
        """
        i = self.index(name)
        batch, _, w_dim = self.w.shape
        if tuple(value.shape) not in ((w_dim,), (batch, w_dim)):
            raise ValueError(
                f"value for {name!r}: expected shape ({w_dim},) or ({batch}, {w_dim}), got {tuple(value.shape)}"
            )
        w = self.w.clone()
        w[:, i] = value.to(w)
        return replace(self, w=w)

    def with_attribute(self, name: str, y: Tensor) -> Latents:
        """The same latents with y_i (B,) of one attribute replaced; for models whose decoder is told y.

        Raises:
            UnknownAttributeError: the name is none of `attributes`.
        """
        attributes = self.y.clone()
        attributes[:, self.index(name)] = y.to(attributes)
        return replace(self, y=attributes)

    def to(self, device: torch.device | str) -> Latents:
        """The same latents on another `device`."""
        return replace(self, z=self.z.to(device), w=self.w.to(device), y=self.y.to(device))

    @staticmethod
    def cat(parts: Sequence[Latents]) -> Latents:
        """Joins `parts`, batches of one model, along the batch."""
        z, w, y = (torch.cat([getattr(p, name) for p in parts]) for name in ("z", "w", "y"))
        return Latents(z, w, y, parts[0].attributes)


def _unflatten(parts: Iterable[Any], attributes: Any) -> Latents:
    z, w, y = parts
    return Latents(z, w, y, attributes)


def _flatten_with_keys(latents: Any) -> tuple[list[tuple[Any, Tensor]], Any]:
    return [(tree.GetAttrKey(part), getattr(latents, part)) for part in ("z", "w", "y")], latents.attributes


tree.register_pytree_node(  # so that torch.export takes and gives latents
    Latents,
    lambda latents: ([latents.z, latents.w, latents.y], latents.attributes),
    _unflatten,
    serialized_type_name="csvae_hub.models.Latents",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
    flatten_with_keys_fn=_flatten_with_keys,
)
