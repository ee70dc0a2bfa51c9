"""Edits pictures with a model that `csvae export` wrote: needs numpy, Pillow and onnxruntime, and no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from csvae_hub.config import check, from_dict, shown, to_dict
from csvae_hub.errors import (
    CorruptWeightsError,
    ImageError,
    MissingWeightsError,
    WeightsMismatchError,
    WeightsVersionError,
    require,
    unknown_attribute,
)
from csvae_hub.exclusive import Kind, completed
from csvae_hub.hub import inside, read_json
from csvae_hub.opening import open_picture
from csvae_hub.preprocessing import LUMA, Preprocessor, square_of, with_square
from csvae_hub.text import value_of

Array = np.ndarray[Any, Any]

FORMAT_VERSION = 1
DESCRIPTION = "onnx.json"


@dataclass(frozen=True)
class Graph:
    """The names of a graph's inputs and outputs, in order; the first dimension of each is the batch."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """The facts of an exported model, as onnx.json and the metadata of each graph have them.

    `shape` is (C, S, S). `license` has the fields of the card that name the licence of the weights; it is empty where
    the card names none. `weights` is a SHA-256 of the model's tensors: files of two exports can be told apart.
    `class_means` (k, 2, w_dim) are the points of w for absent and present; empty for a model without subspaces.

    Raises:
        ConfigError: a field is out of range.
    """

    format_version: int
    csvae_hub_version: str
    model: str
    attributes: tuple[str, ...]
    exclusive: tuple[tuple[str, ...], ...]
    shape: tuple[int, int, int]
    preprocessor: Preprocessor
    license: dict[str, str]
    weights: str
    graphs: dict[str, Graph]
    class_means: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]

    def __post_init__(self) -> None:
        check(len(self.attributes) > 0, "attributes", "at least one name", self.attributes)
        channels, *sides = self.shape
        check(channels in (1, 3), "shape", "1 or 3 channels first", self.shape)
        every = self.graphs.keys() >= {"encoder", "decoder", "edit"}
        check(every, "graphs", "encoder, decoder and edit", sorted(self.graphs))
        points = {len(point) for pair in self.class_means for point in pair}
        sound = len(self.class_means) in (0, len(self.attributes)) and len(points) <= 1
        check(sound, "class_means", "two points of w for each attribute, or none", self.class_means)
        check(sides == [self.preprocessor.size] * 2, "shape", f"sides of {self.preprocessor.size}", self.shape)

    def metadata(self) -> dict[str, str]:
        """The fields by name: a text as it is, anything else as JSON."""
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in to_dict(self).items()}


@dataclass(frozen=True)
class Code:
    """The code of a batch, in float32: z (B, z_dim), y (B, k), and w (B, k, w_dim) where the model has subspaces."""

    z: Array
    y: Array
    w: Array | None = None


class OnnxModel:
    """An exported model. A graph is read when it is first used.

    Pictures are a path, a PIL image, a uint8 array (H, W, 3), or a list of these. As in `AttributeModel`, an edit gives
    back the kind and size that came in; a path comes back as a PIL image.

    Args:
        folder: holds the graphs.
        description: the facts that the folder's onnx.json has.
        providers: where onnxruntime computes, by its own names, the first that it has.
    """

    def __init__(
        self, folder: Path, description: Description, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        self.folder, self.description, self.providers = folder, description, list(providers)
        self._sessions: dict[str, Any] = {}

    @classmethod
    def from_folder(
        cls, path: str | os.PathLike[str], providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> OnnxModel:
        """The model in a folder that `csvae export` wrote.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            MissingWeightsError: there is no onnx.json in the folder.
            CorruptWeightsError: onnx.json is not what its name says.
            WeightsVersionError: a newer library wrote it.
            ConfigError: a field of it is unknown, missing or out of range.
        """
        require("onnxruntime", "export")
        content = read_json(_existing(Path(path), DESCRIPTION))
        version = content.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise WeightsVersionError(
                f"{path}: format_version {version} is newer than this library, which reads up to {FORMAT_VERSION}:"
                " pip install --upgrade csvae-hub"
            )
        return cls(Path(path), from_dict(Description, content), providers)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes' names, in the order of y and w."""
        return self.description.attributes

    def encode(self, pictures: Any) -> Code:
        """The code of pictures.

        Raises:
            ImageError: a picture can't be read.
        """
        found = self._run("encoder", x=self._tensor(_opened(pictures)))
        return Code(found["z"], found["y"], found.get("w"))

    def decode(self, code: Code) -> Array:
        """Pictures (B, C, S, S) in [0, 1], float32, of their code.

        Raises:
            ValueError: a part of the code is missing or has another shape.
        """
        return self._run("decoder", z=code.z, y=code.y, w=code.w)["x"]

    def predict_attributes(self, pictures: Any) -> dict[str, Array]:
        """The probability (B,) of each attribute; it sums to one within an exclusive group.

        Raises:
            ImageError: a picture can't be read.
        """
        found = self._run("encoder", x=self._tensor(_opened(pictures)))["probabilities"]
        return dict(zip(self.attributes, found.T, strict=True))

    def set_attribute(self, pictures: Any, name: str, value: bool | float | str = True) -> Any:
        """Pictures with one attribute changed; see `edit`."""
        return self.edit(pictures, {name: value})

    def edit(self, pictures: Any, values: Mapping[str, bool | float | str]) -> Any:
        """Pictures with several attributes changed at once: `edit(pictures, {"Smiling": 0.7, "Hat": True})`.

        Args:
            pictures: one, or a list of several, which become one batch.
            values: by attribute: True or False for the class mean, or a number (0 absent, 1 present, beyond
                extrapolates). In a group of attributes that exclude one another, one that becomes present makes the
                others absent. Text is read as on the command line.

        Raises:
            UnknownAttributeError: this model has no such attribute.
            ImageError: a picture can't be read.
            ValueError: a value can't be understood, two attributes that exclude one another are to be present, or one
                is to be absent and none takes its place.
        """
        numbers = self._numbers(values)
        opened = _opened(pictures)
        edited = self._run("edit", x=self._tensor(opened), values=np.tile(numbers, (len(opened), 1)))["edited"]
        restored = [_restored(picture, pixels) for picture, pixels in zip(opened, edited, strict=True)]
        given = pictures if isinstance(pictures, list | tuple) else [pictures]
        back = [
            np.array(picture).reshape(its.shape) if isinstance(its, np.ndarray) else picture
            for picture, its in zip(restored, given, strict=True)
        ]
        return back if isinstance(pictures, list | tuple) else back[0]

    def _numbers(self, values: Any) -> Array:
        """The values of an edit as numbers (k,), NaN for an attribute that is left as it is."""
        if not isinstance(values, Mapping) or not values:
            raise ValueError(
                f"values: expected at least one attribute with its value, such as {{{self.attributes[0]!r}: True}}, got"
                f" {values!r}; for a picture as the model draws it, decode(encode(picture))"
            )
        for name in values:
            if name not in self.attributes:
                raise unknown_attribute(name, self.attributes)
        read = {name: _value(value, name) for name, value in values.items()}
        numbers = np.full(len(self.attributes), np.nan, np.float32)
        for name, value in completed(read, self.description.exclusive, _kind).items():
            numbers[self.attributes.index(name)] = value
        return numbers

    def _tensor(self, opened: Sequence[Image.Image]) -> Array:
        """Pictures as a batch (B, C, S, S) in [0, 1], float32."""
        channels, side, _ = self.description.shape
        squares = np.stack([np.array(square_of(picture, side)) for picture in opened])
        x = np.moveaxis(squares, -1, 1).astype(np.float32) / np.float32(255)
        if channels == 3:
            return x
        red, green, blue = np.split(x, 3, axis=1)
        return green + np.float32(LUMA[0]) * (red - green) + np.float32(LUMA[2]) * (blue - green)

    def _run(self, name: str, **given: Array | None) -> dict[str, Array]:
        """The outputs of a graph by name; what is given beyond its inputs is left out."""
        if name not in self._sessions:
            self._sessions[name] = self._session(name)
        session, outputs = self._sessions[name], self.description.graphs[name].outputs
        feed = {its.name: _fitting(its.name, given.get(its.name), its.shape) for its in session.get_inputs()}
        if len({len(value) for value in feed.values()}) > 1:
            got = ", ".join(f"{key} {value.shape}" for key, value in feed.items())
            raise ValueError(f"expected the same number of pictures in each part of a code, got {got}")
        return dict(zip(outputs, session.run(list(outputs), feed), strict=True))

    def _session(self, name: str) -> Any:
        path = _existing(self.folder, f"{name}.onnx")
        onnxruntime = require("onnxruntime", "export")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        try:
            session = onnxruntime.InferenceSession(os.fspath(path), options, providers=self.providers)
        except Exception as error:  # each reason has a class of its own, and none a public base
            reason = " ".join(str(error).split())[:200]
            raise CorruptWeightsError(f"{path}: expected a graph that onnxruntime reads, got {reason}") from error
        if session.get_modelmeta().custom_metadata_map != self.description.metadata():
            raise WeightsMismatchError(
                f"{path} is not of the export that {DESCRIPTION} describes: expected the files of one export. Export"
                " the model again"
            )
        return session


def _existing(folder: Path, name: str) -> Path:
    path = inside(folder, name)
    if not path.is_file():
        there = sorted(file.name for file in folder.glob("*")) if folder.is_dir() else []
        raise MissingWeightsError(
            f"no {name} in {folder}: expected a folder that `csvae export MODEL -o FOLDER` wrote, got"
            f" {', '.join(there[:8]) or 'nothing'}{', …' if there[8:] else ''}"
        )
    return path


def _fitting(name: str, value: Array | None, shape: Sequence[int | str]) -> Array:
    """An input of a graph in float32; its shape is that of the graph after the batch."""
    if value is None or np.ndim(value) != len(shape) or list(np.shape(value)[1:]) != list(shape[1:]):
        expected = f"(B, {', '.join(map(str, shape[1:]))})"
        raise ValueError(f"{name}: expected shape {expected}, got {None if value is None else np.shape(value)}")
    return np.asarray(value, np.float32)


def _opened(pictures: Any) -> list[Image.Image]:
    """Pictures, upright and of 8 bits, of what the caller gave."""
    if not isinstance(pictures, list | tuple):
        return [open_picture(pictures)]
    if not pictures:
        raise ImageError("expected at least one picture, got an empty list: leave the call out where there are none")
    opened: list[Image.Image] = []
    for i, picture in enumerate(pictures):
        try:
            opened.append(open_picture(picture))
        except ImageError as error:
            raise ImageError(f"pictures[{i}]: {error}") from error
    return opened


def _restored(picture: Image.Image, pixels: Array) -> Image.Image:
    """A picture with its centre square replaced by pixels (C, S, S) in [0, 1]."""
    side = min(picture.size)
    channels = [Image.fromarray(channel) for channel in np.broadcast_to(pixels, (3, *pixels.shape[1:])).copy()]
    if pixels.shape[-1] != side:
        channels = [channel.resize((side, side), Image.Resampling.BICUBIC) for channel in channels]
    square = np.stack([np.array(channel) for channel in channels], -1)
    levels = np.rint(np.nan_to_num(square).clip(0, 1) * np.float32(255)).astype(np.uint8)
    return with_square(picture, Image.fromarray(levels))


def _value(value: Any, name: str) -> bool | float:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    try:
        found = value_of(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"value for {name!r}: {error}") from error
    if not isinstance(found, Real):
        raise ValueError(
            f"value for {name!r}: expected True, False or a number, got {shown(value)}: coordinates, pictures and"
            " 'sample' take the model itself, as AttributeModel.from_pretrained gives it"
        )
    if not np.isfinite(float(found)):
        raise ValueError(f"value for {name!r}: expected finite numbers, got {value!r}")
    return found if isinstance(found, bool) else float(found)


def _kind(value: bool | float, name: str) -> Kind:
    return ("present" if value else "absent") if isinstance(value, bool) else "number"
