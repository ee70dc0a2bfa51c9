"""`csvae map`: a face over the plane of an attribute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from csvae_hub.cli import common
from csvae_hub.errors import require

if TYPE_CHECKING:
    from csvae_hub.editing.selection import Which
    from csvae_hub.models import AttributeModel

FORMATS = (".png", ".svg", ".pdf")


@click.command("map", short_help="Draw a face at points of the plane of an attribute.")
@common.photo_argument
@click.argument("name")
@click.option("-o", "--output", required=True, type=common.FilePath(dir_okay=False), help="The map.")
@click.option("--steps", type=click.IntRange(min=2), default=7, show_default=True, help="Faces a side.")
@common.face_options("largest")
def command(
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

    The axes are the two coordinates that `csvae edit` takes, as in Eyeglasses=0.2,-0.2. Marks show the faces that lack
    the attribute and the faces that have it.
    """
    common.check_output(output, picture, FORMATS)
    require("matplotlib", "plot")  # before the seconds that a model takes
    model = common.load_picture_model(model_name, device)
    model.index(name)
    _check_plane(model, model_name)
    from csvae_hub import plotting

    latents, _ = common.encode_face(common.editor_of(model, aligned), picture, face)
    figure = plotting.traversal(model, latents, name, steps=steps)
    output.parent.mkdir(parents=True, exist_ok=True)
    plotting.save_figure(figure, output, dpi=150)
    common.echo(f"the plane of {name} written to {output}")


def _check_plane(model: AttributeModel, name: str) -> None:
    from csvae_hub.models import CSVAE

    if not isinstance(model, CSVAE):
        raise click.UsageError(f"{name} has no subspaces, so there is no plane to draw: take a CSVAE, or csvae sweep")
    if model.config.w_dim != 2:
        raise click.UsageError(
            f"{name} has subspaces of {model.config.w_dim} numbers, which are no planes: take a model with w_dim 2, or"
            " csvae sweep"
        )
