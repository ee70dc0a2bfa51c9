"""`csvae edit`, `sweep` and `map`: changing faces in photos, and pictures of what an attribute does to one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csvae_hub.cli_eval import check_device
from csvae_hub.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

    from csvae_hub.editing import EncodedPhoto, FaceEditor, Job, Outcome
    from csvae_hub.editing.selection import Which
    from csvae_hub.models import AttributeModel, Latents

VALUES = "True, False, a number, coordinates such as 2.5,1.0, 'sample' or a picture"
MAP_FORMATS = (".png", ".svg", ".pdf")


class _Face(click.ParamType):
    """One of some words, or a number from 0."""

    name = "face"

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What stands for it in the help."""
        return "|".join((*self.words, "N"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, or the number."""
        if value in self.words or isinstance(value, int):
            return value
        if not (value.isascii() and value.isdigit()):
            words = ", ".join(self.words)
            self.fail(f"expected {words} or a number from 0, counting the largest first; got {value!r}", param, ctx)
        return int(value)


model_option = click.option("--model", "model_name", default="celeba-64", show_default=True, help="Name or folder.")
device_option = click.option("--device", help="cpu, cuda, cuda:1, …  [default: CUDA where there is one]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_aligned_option = click.option(
    "--aligned", is_flag=True, help="The centre square is the face, framed as in training: look for none."
)
_one_face_option = click.option(
    "--face", type=_Face("largest"), default="largest", show_default=True, help="Which; N counts from 0, largest first."
)


# -- edit ---------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="INPUTS... NAME=VALUE...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A picture, or a folder.")
@click.option(
    "--face",
    type=_Face("largest", "all"),
    default="largest",
    show_default=True,
    help="Which faces of a photo; N counts from 0, largest first.",
)
@_aligned_option
@click.option(
    "--keep-size/--no-keep-size",
    default=True,
    show_default=True,
    help="Write the whole picture in its own size, or only the face, as the model draws it at its own size.",
)
@model_option
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Pictures at once.")
@click.option("--mark/--no-mark", default=True, show_default=True, help="Mark edited pictures as such, in XMP.")
@click.option(
    "--max-megapixels", type=click.FloatRange(min=0.01), default=100, help="Larger ones fail.  [default: 100]"
)
@device_option
@json_option
def edit(
    arguments: tuple[str, ...],
    output: Path,
    face: Which,
    aligned: bool,
    keep_size: bool,
    model_name: str,
    batch_size: int,
    mark: bool,
    max_megapixels: float,
    device: str | None,
    as_json: bool,
) -> None:
    """Change attributes of the faces in photos.

    INPUTS are files or folders; what a folder holds is written under the same names in the folder OUTPUT. An input is
    overwritten only where OUTPUT is that very input. EXIF, XMP, colour profile and resolution are kept.

    VALUE is True, False, a number (0 absent, 1 present, beyond exaggerates), coordinates in the attribute's subspace
    (Eyeglasses=2.5,1.0), 'sample', or a picture whose kind of the attribute is taken over. True and False leave a
    photo's face as it is that has, or lacks, the attribute already; a number always draws it anew.
    """
    changes = [argument for argument in arguments if "=" in argument and not Path(argument).exists()]
    inputs = [Path(argument) for argument in arguments if argument not in changes]
    parsed = _parse_changes(changes)
    if face == "all" and not keep_size:
        raise click.UsageError("--no-keep-size writes one face a photo: leave out --face all, or give --face N")
    from csvae_hub import opening
    from csvae_hub.editing import PlanError, edit_files, left_out, plan_files
    from csvae_hub.editing.xmp import SOURCE_TYPE

    opening.MAX_PIXELS = int(1e6 * max_megapixels)
    try:
        jobs = plan_files(inputs, output)
        others = left_out(inputs, output)
    except PlanError as error:
        raise click.UsageError(str(error)) from error
    model = load_picture_model(model_name, device)
    editor = model if aligned else _face_editor(model)
    values = {name: _value_for(editor, name, value) for name, value in parsed.items()}
    with progress(len(jobs), "edited") as advance:
        outcomes = edit_files(
            editor,
            values,
            jobs,
            face=face,
            keep_size=keep_size,
            batch_size=batch_size,
            mark=mark,
            model_name=model_name,
            advance=advance,
        )
    _report(outcomes, model_name, output, as_json, others, SOURCE_TYPE if mark else None)


def _report(
    outcomes: Mapping[Job, Outcome], model_name: str, output: Path, as_json: bool, others: list[str], mark: str | None
) -> None:
    """Says what was done and what was not; leaves with 1 where a picture failed."""
    done = {job: outcome for job, outcome in outcomes.items() if not outcome.error}
    failed = {job: outcome.error for job, outcome in outcomes.items() if outcome.error}
    if as_json:
        edited = [
            {"input": str(job.source), "output": str(job.target)}
            | ({} if one.faces is None else {"faces": {"edited": one.faces, "skipped": list(one.skipped)}})
            | ({"unchanged": list(one.unchanged)} if one.unchanged else {})
            | ({"notes": list(one.notes)} if one.notes else {})
            for job, one in done.items()
        ]
        failures = [{"input": str(job.source), "error": error} for job, error in failed.items()]
        print_json({"model": model_name, "edited": edited, "failed": failures, "left_out": others, "mark": mark})
    else:
        click.echo(f"{len(done)} of {len(outcomes)} written to {output}")
    for line in others:
        click.echo(line, err=True)
    for job, outcome in done.items():
        for note in outcome.notes:
            click.echo(f"note: {job.source}: {note}", err=True)
        for reason in outcome.skipped:
            click.echo(f"skipped a face: {job.source}: {reason}", err=True)
        for line in outcome.unchanged:
            click.echo(f"unchanged: {job.source}: {line}", err=True)
    for error in failed.values():
        click.echo(f"failed: {error}", err=True)
    if failed:
        sys.exit(1)


def _parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    if not changes:
        raise click.UsageError("nothing to change: expected at least one NAME=VALUE, such as Smiling=1")
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name in values:
            raise click.UsageError(f"{name!r} is given twice: give each attribute one value")
        values[name] = _parse_value(name, text)
    return values


def _parse_value(name: str, text: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False, "sample": "sample"}
    if text.lower() in words:
        return words[text.lower()]
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise click.UsageError(f"{name}={text}: expected {VALUES}, got {text!r}") from None
    if not all(abs(number) < float("inf") for number in numbers):
        raise click.UsageError(f"{name}={text}: expected finite numbers, got {text!r}")
    return numbers if len(numbers) > 1 else numbers[0]


def _value_for(editor: FaceEditor | AttributeModel, name: str, value: Any) -> Any:
    """The value as the editor takes it: checked, and a picture encoded once instead of for every batch."""
    from csvae_hub.models import AttributeModel

    model = editor if isinstance(editor, AttributeModel) else editor.model
    model.index(name)
    if isinstance(value, list):
        if model.needs != "w":
            raise click.UsageError(f"{name}: expected no coordinates, since this model has no subspaces: give a number")
        if len(value) != model.config.w_dim:
            raise click.UsageError(f"{name}: expected {model.config.w_dim} coordinates, got {len(value)}")
    return _encoded(editor, value, "largest")[0] if isinstance(value, Path) else value


# -- sweep and map ------------------------------------------------------------------------------------------------


@click.command()
@click.argument("picture", metavar="PHOTO", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("name")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The strip.")
@click.option("--from", "start", type=float, default=0.0, show_default=True, help="0 is absent.")
@click.option("--to", "stop", type=float, default=1.0, show_default=True, help="1 is present.")
@click.option("--steps", type=click.IntRange(min=2), default=7, show_default=True)
@click.option("--whole", is_flag=True, help="Show the whole photo at each step, not only the face.")
@_one_face_option
@_aligned_option
@model_option
@device_option
def sweep(
    picture: Path,
    name: str,
    output: Path,
    start: float,
    stop: float,
    steps: int,
    whole: bool,
    face: Which,
    aligned: bool,
    model_name: str,
    device: str | None,
) -> None:
    """Draw the face in PHOTO with the attribute NAME from absent to present, as a strip at the model's own size."""
    import torch

    from csvae_hub.editing import FORMATS, save_picture
    from csvae_hub.images import grid

    _check_output(output, picture, FORMATS)
    model = load_picture_model(model_name, device)
    model.index(name)
    editor = model if aligned else _face_editor(model)
    latents, photo = _encoded(editor, picture, face)
    values = torch.linspace(start, stop, steps).tolist()
    edited = [model.edit(latents, {name: value}) for value in values]
    if not whole:
        with torch.inference_mode():
            strip = grid(torch.cat([model.decode(one) for one in edited]), columns=steps)
    elif photo is None:
        strip = _side_by_side([model.edit(str(picture), {name: value}) for value in values])
    else:
        strip = _side_by_side([photo.render(one) for one in edited])
    try:
        save_picture(strip, output)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"can't write {output}: {error}") from error
    click.echo(f"{name} from {start:g} to {stop:g} written to {output}")


@click.command("map")
@click.argument("picture", metavar="PHOTO", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("name")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The map.")
@click.option("--steps", type=click.IntRange(min=2), default=7, show_default=True, help="Faces a side.")
@_one_face_option
@_aligned_option
@model_option
@device_option
def map_command(
    picture: Path,
    name: str,
    output: Path,
    steps: int,
    face: Which,
    aligned: bool,
    model_name: str,
    device: str | None,
) -> None:
    """Draw the face in PHOTO at points of the plane of the attribute NAME.

    The axes are the two coordinates that `csvae edit` takes, as in Eyeglasses=2.5,1.0. Marked is where the faces lie
    that lack the attribute and those that have it.
    """
    _check_output(output, picture, MAP_FORMATS)
    model = load_picture_model(model_name, device)
    model.index(name)
    _check_plane(model, model_name)
    from csvae_hub import plotting

    latents, _ = _encoded(model if aligned else _face_editor(model), picture, face)
    figure = plotting.traversal(model, latents, name, steps=steps)
    output.parent.mkdir(parents=True, exist_ok=True)
    plotting.save_figure(figure, output, dpi=150)
    click.echo(f"the plane of {name} written to {output}")


def _check_output(output: Path, picture: Path, endings: Sequence[str] | Mapping[str, str]) -> None:
    if output.suffix.lower() not in endings:
        raise click.UsageError(f"-o {output}: expected a picture's name that ends in one of {', '.join(endings)}")
    if output.resolve() == picture.resolve():
        raise click.UsageError(f"-o {output} is the input: give another name")


def _check_plane(model: AttributeModel, name: str) -> None:
    if model.needs != "w":
        raise click.UsageError(f"{name} has no subspaces, so there is no plane to draw: take a CSVAE, or csvae sweep")
    if model.config.w_dim != 2:
        raise click.UsageError(
            f"{name} has subspaces of {model.config.w_dim} numbers, which are no planes: take a model with w_dim 2, or"
            " csvae sweep"
        )


def _side_by_side(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Pictures of one size in a row on white, `gap` pixels apart."""
    from PIL import Image

    width, height = pictures[0].size
    strip = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for i, picture in enumerate(pictures):
        strip.paste(picture.convert("RGB"), (i * (width + gap), 0))
    return strip


# -- helpers ------------------------------------------------------------------------------------------------------


def load_picture_model(name: str, device: str | None) -> AttributeModel:
    """The model of this name, or wrong use where it is none of pictures."""
    from csvae_hub.models import AttributeModel

    check_device(device)
    model = AttributeModel.from_pretrained(name, device=device)
    if not model.config.is_image:
        raise click.UsageError(f"{name} is a model of vectors of {model.config.shape[0]} numbers, not of pictures")
    return model


def _face_editor(model: AttributeModel) -> FaceEditor:
    """An editor whose detector is there."""
    from csvae_hub.editing import FaceEditor

    editor = FaceEditor(model)
    try:
        _ = editor.detector
    except MissingExtraError as error:
        raise click.ClickException(
            f"{error} finds faces in photos; pictures that are aligned faces already are edited without, with --aligned"
        ) from error
    return editor


def _encoded(editor: FaceEditor | AttributeModel, picture: Path, face: Which) -> tuple[Latents, EncodedPhoto | None]:
    """What the face in a picture encodes to; beside it the photo, where there is more than the face."""
    from csvae_hub.models import AttributeModel

    if isinstance(editor, AttributeModel):
        return editor.encode(picture), None
    photo = editor.open(picture, face=face)
    return photo.latents, photo


@contextmanager
def progress(total: int, verb: str, seconds: float = 5.0) -> Iterator[Callable[[int], None]]:
    """Gives what is called with the number just done: a bar on a terminal, a line every few seconds elsewhere."""
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
            click.echo(f"{verb} {done} of {total}", err=True)

    yield advance


def print_json(content: Mapping[str, Any]) -> None:
    """Prints JSON for programs, names and paths as they are."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))
