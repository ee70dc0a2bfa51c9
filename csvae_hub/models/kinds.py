"""For type checkers: what pictures are given is the kind that comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from csvae_hub.images import Images
from csvae_hub.models.latents import Latents

P = ParamSpec("P")
Kind = TypeVar("Kind", Latents, Tensor, NDArray[Any], Image.Image, list[Tensor], list[NDArray[Any]], list[Image.Image])


class Bound(Protocol, Generic[P]):
    """A method of one object: pictures first, then whatever else it takes. A file's is a PIL image."""

    @overload
    def __call__(self, images: Kind, /, *args: P.args, **others: P.kwargs) -> Kind: ...
    @overload
    def __call__(self, images: str | os.PathLike[str], /, *args: P.args, **others: P.kwargs) -> Image.Image: ...
    @overload
    def __call__(
        self, images: list[str] | list[os.PathLike[str]], /, *args: P.args, **others: P.kwargs
    ) -> list[Image.Image]: ...
    @overload
    def __call__(self, images: Images, /, *args: P.args, **others: P.kwargs) -> Any: ...


class Method(Protocol, Generic[P]):
    """A method in its class."""

    def __get__(self, instance: Any, owner: Any = None) -> Bound[P]: ...


def gives_the_kind_it_takes(method: Callable[Concatenate[Any, Any, P], Any]) -> Method[P]:
    """The method itself; a type checker sees that it gives the kind of pictures that it takes."""
    return cast("Method[P]", method) if TYPE_CHECKING else method
