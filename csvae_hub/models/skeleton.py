"""Modules whose numbers are still to come: built quickly, and no larger than the weights that they wait for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from csvae_hub.errors import WeightsMismatchError

M = TypeVar("M", bound=nn.Module)

_SIZED = frozenset((torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full))
_RANDOM = frozenset((torch.rand, torch.randn))
_FILLS = frozenset(("uniform_", "normal_", "trunc_normal_", "bernoulli_", "kaiming_uniform_", "kaiming_normal_"))


class _Unfilled(TorchFunctionMode):
    """Gives memory that nobody has touched where a tensor is to be filled at random, and counts before it gives any.

    Not the meta device: many of its functions import sympy when they are first called, which takes half a second.
    """

    def __init__(self, numbers: int, tensors: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.tensors = tensors

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLS:
            return args[0] if args else kwargs["tensor"]
        if func in _SIZED:
            self._count(func, args, kwargs)
        if func in _RANDOM:
            func = torch.empty
            kwargs = {key: value for key, value in kwargs.items() if key != "generator"}
        return func(*args, **kwargs)

    def _count(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        size = kwargs["size"] if "size" in kwargs else args[0] if func is torch.full else args
        if len(size) == 1 and not isinstance(size[0], int):
            size = size[0]
        self.numbers -= math.prod(size)
        self.tensors -= 1
        if self.numbers < 0 or self.tensors < 0:
            raise WeightsMismatchError


def _on_the_cpu() -> AbstractContextManager[Any]:
    """The CPU as torch's default device; it mostly is, and saying so slows every call down."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def skeleton(build: Callable[[], M], numbers: int, tensors: int) -> M:
    """Gives the module that `build` makes, on the CPU, without drawing random numbers: its weights are still to come.

    Args:
        build: makes the module.
        numbers: how many its weights hold; building stops before memory for twice as many is taken.
        tensors: how many tensors these are.

    Raises:
        WeightsMismatchError: the module is larger than the weights.
    """
    try:
        with _on_the_cpu(), _Unfilled(2 * numbers + 100_000, 4 * tensors + 1_000), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of layers without numbers
            return build()
    except WeightsMismatchError:
        raise WeightsMismatchError(
            f"expected a model of {numbers} numbers in {tensors} tensors, as model.safetensors holds, got a larger one"
            " by config.json. Use the files of one model"
        ) from None
