"""Options and steps that several commands share."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csvae_hub.errors import MissingExtraError
from csvae_hub.text import is_address, printable, value_of

if TYPE_CHECKING:
    from csvae_hub.editing import EncodedPhoto, FaceEditor
    from csvae_hub.editing.selection import Which
    from csvae_hub.models import CSVAE, AttributeModel, Latents

FAR = 0.25
"""A point this far outside of the square of `csvae map`, in sides of the square, gets a note."""


class FaceChoice(click.ParamType):
    """One of some words, or a number from 0."""

    def __init__(self, *words: str) -> None:
        self.words, self.name = words, "|".join((*words, "N"))

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Gives the placeholder in the help."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Gives the word, or the number."""
        if value in self.words:
            return value
        if not re.fullmatch("[0-9]{1,9}", str(value)):
            words = ", ".join(self.words)
            self.fail(f"expected {words} or a number from 0, counting the largest first; got {value!r}", param, ctx)
        return int(value)


class FilePath(click.Path):
    """The path of a file or folder. Refuses standard streams and web addresses."""

    def __init__(self, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Gives the path."""
        check_path(str(value))
        return super().convert(value, param, ctx)


def check_path(name: str) -> None:
    """Refuses, as wrong use, a name that means a standard stream or a web address."""
    if name in ("", "-"):
        raise click.UsageError(
            f"{name or 'empty name'}: expected the name of a file; standard streams are not supported"
        )
    if is_address(name):
        raise click.UsageError(f"{name}: expected the name of a file, got a web address: download the picture first")


model_option = click.option("--model", "model_name", default="celeba-128", show_default=True, help="Name or folder.")
device_option = click.option("--device", help="cpu, cuda, cuda:1, …  [default: CUDA where there is one]")
photo_argument = click.argument("picture", metavar="PHOTO", type=FilePath(exists=True, dir_okay=False))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
aligned_option = click.option(
    "--aligned", is_flag=True, help="Take the centre square as the face, framed as in training; detect no faces."
)


def face_options(*words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options that choose the face of a photo by a word or a number, a model and a device."""
    text = "The face of a photo; N counts from 0, largest first."
    face = click.option("--face", type=FaceChoice(*words), default="largest", show_default=True, help=text)
    return lambda command: face(aligned_option(model_option(device_option(command))))


def echo(line: object, err: bool = False) -> None:
    """Prints one line, safe for a terminal. Stays silent where nobody reads the stream any more."""
    try:
        click.echo(printable(str(line)), err=err)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if err else sys.stdout).fileno())


def echo_lines(text: str) -> None:
    """Prints a text of several lines."""
    for line in text.splitlines():
        echo(line)


def print_json(content: Mapping[str, Any]) -> None:
    """Prints JSON for programs, in ASCII, so that it stays JSON in any encoding of the stream."""
    echo_lines(json.dumps(content, indent=2))


def prepare_streams() -> None:
    """Lets the standard streams print any text in any encoding, and gives the process those that it lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check_device(device: str | None) -> None:
    """Refuses, as wrong use, a device that torch can't put a tensor on. None is torch's own choice."""
    from csvae_hub.models.pretrained import device_of

    try:
        device_of(device)
    except ValueError as error:
        reason = str(error.__cause__).partition("\n")[0]
        raise click.UsageError(f"--device {device}: expected cpu, cuda or cuda:N ({reason})") from error


def check_output(output: Path, picture: Path, endings: Sequence[str] | Mapping[str, str]) -> None:
    """Refuses, as wrong use, an output that is the input or has none of the endings."""
    if output.suffix.lower() not in endings:
        raise click.UsageError(f"-o {output}: expected a picture's name that ends in one of {', '.join(endings)}")
    if output.resolve() == picture.resolve():
        raise click.UsageError(f"-o {output} is the input: give another name")


def load_picture_model(name: str, device: str | None) -> AttributeModel:
    """Loads a model. Refuses, as wrong use, a model of vectors."""
    from csvae_hub.models import AttributeModel

    check_device(device)
    model = AttributeModel.from_pretrained(name, device=device)
    if not model.config.is_image:
        raise click.UsageError(f"{name} is a model of vectors of {model.config.shape[0]} numbers, not of pictures")
    return model


def editor_of(model: AttributeModel, aligned: bool) -> FaceEditor | AttributeModel:
    """Gives the editor of photos with its detector loaded, or the model itself for aligned pictures."""
    if aligned:
        return model
    from csvae_hub.editing import FaceEditor

    editor = FaceEditor(model)
    try:
        _ = editor.detector
    except MissingExtraError as error:
        raise click.ClickException(
            f"{error} finds faces in photos; pictures that are aligned faces already are edited without, with --aligned"
        ) from error
    return editor


def encode_face(editor: FaceEditor | AttributeModel, picture: Path, face: Which) -> tuple[Latents, EncodedPhoto | None]:
    """Encodes the face in a picture. Gives the photo as well, where the picture is not aligned."""
    from csvae_hub.models import AttributeModel

    if isinstance(editor, AttributeModel):
        return editor.encode(picture), None
    photo = editor.open(picture, face=face)
    return photo.latents, photo


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """The values by name of several NAME=VALUE. Refuses, as wrong use, a name that is given twice."""
    names = [change.partition("=")[0] for change in changes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise click.UsageError(f"{twice[0]!r} is given twice: give each attribute one value")
    return dict(map(_parse_change, changes))


def _parse_change(change: str) -> tuple[str, Any]:
    name, equals, text = change.partition("=")
    if not equals:
        raise click.UsageError(f"{change}: expected NAME=VALUE, such as Smiling=1")
    try:
        return name, value_of(text)
    except ValueError as error:
        if text == "-":
            check_path(text)
        raise click.UsageError(f"{change}: {error}") from error


def values_for(editor: FaceEditor | AttributeModel, parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Checks values against a model, and encodes pictures once for all that is edited."""
    from csvae_hub.models import AttributeModel
    from csvae_hub.models.groups import with_groups

    model = editor if isinstance(editor, AttributeModel) else editor.model
    values = {name: _value_for(editor, model, name, value) for name, value in parsed.items()}
    try:
        with_groups(values, model.config.exclusive)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return values


def _value_for(editor: FaceEditor | AttributeModel, model: AttributeModel, name: str, value: Any) -> Any:
    from csvae_hub.models import CSVAE

    model.index(name)
    if isinstance(value, list) and not isinstance(model, CSVAE):
        raise click.UsageError(f"{name}: expected no coordinates, since this model has no subspaces: give a number")
    if isinstance(value, list) and len(value) != model.config.w_dim:
        raise click.UsageError(f"{name}: expected {model.config.w_dim} coordinates, got {len(value)}")
    if isinstance(value, list) and isinstance(model, CSVAE):
        _warn_of_far_point(model, name, value)
    return encode_face(editor, value, "largest")[0] if isinstance(value, Path) else value


def _warn_of_far_point(model: CSVAE, name: str, point: list[float]) -> None:
    """Notes a point that lies far outside of the square around the classes, which `csvae map` draws."""
    from csvae_hub.plotting import square_of

    absent, present = model.class_means[model.index(name)].tolist()
    square = square_of(absent, present)
    beyond = [max(low - at, at - high) / (high - low) for at, (low, high) in zip(point, square, strict=True)]
    if max(beyond) > FAR:
        spans = " and ".join(f"{low:.2f} to {high:.2f}" for low, high in square)
        text = f"{name}: the point lies far outside of the square around both classes ({spans})"
        echo(f"note: {text}; the picture may not be a face: take a nearer one", err=True)


@contextmanager
def progress(total: int, verb: str, seconds: float = 5.0) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the number just done. Draws a bar on a terminal, prints lines elsewhere."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=verb, file=sys.stderr) as bar:
            yield bar.update
        return
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            echo(f"{verb} {done} of {total}", err=True)

    yield advance
