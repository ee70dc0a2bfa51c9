"""`csvae sweep`: a face from absent to present, as a strip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from csvae_hub.cli import common

if TYPE_CHECKING:
    from PIL import Image

    from csvae_hub.editing.selection import Which


@click.command("sweep", short_help="Draw a face with an attribute from absent to present.")
@common.photo_argument
@click.argument("name")
@click.option("-o", "--output", required=True, type=common.FilePath(dir_okay=False), help="The strip.")
@click.option("--from", "start", type=float, default=0.0, show_default=True, help="0 is absent.")
@click.option("--to", "stop", type=float, default=1.0, show_default=True, help="1 is present.")
@click.option("--steps", type=click.IntRange(min=2), default=7, show_default=True)
@click.option("--whole", is_flag=True, help="Show the whole photo at each step, not only the face.")
@common.face_options("largest")
def command(
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

    if not all(abs(end) < 1e30 for end in (start, stop)):
        raise click.UsageError(f"--from {start} --to {stop}: expected finite numbers such as 0 and 1")
    common.check_output(output, picture, FORMATS)
    model = common.load_picture_model(model_name, device)
    model.index(name)
    editor = common.editor_of(model, aligned)
    latents, photo = common.encode_face(editor, picture, face)
    values = torch.linspace(start, stop, steps).tolist()
    edited = [model.edit(latents, {name: value}) for value in values]
    if not whole:
        with torch.inference_mode():
            strip = grid(torch.cat([model.decode(one) for one in edited]), columns=steps)
    elif photo is None:
        strip = _side_by_side([model.edit([str(picture)], {name: value})[0] for value in values])
    else:
        strip = _side_by_side([photo.render(one) for one in edited])
    try:
        save_picture(strip, output)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"can't write {output}: {error}") from error
    common.echo(f"{name} from {start:g} to {stop:g} written to {output}")


def _side_by_side(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Puts pictures of one size in a row on white, `gap` pixels apart."""
    from PIL import Image

    width, height = pictures[0].size
    strip = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for i, picture in enumerate(pictures):
        strip.paste(picture.convert("RGB"), (i * (width + gap), 0))
    return strip
