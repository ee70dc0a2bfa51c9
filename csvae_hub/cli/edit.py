"""`csvae edit`: attributes of faces in photos."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from csvae_hub.cli import common

if TYPE_CHECKING:
    from csvae_hub.editing import Job, Outcome
    from csvae_hub.editing.selection import Which


@click.command("edit")
@click.argument("arguments", nargs=-1, required=True, metavar="INPUTS... NAME=VALUE...")
@click.option("-o", "--output", required=True, type=common.FilePath(), help="A picture, or a folder.")
@common.face_options("largest", "all")
@click.option(
    "--keep-size/--no-keep-size",
    default=True,
    show_default=True,
    help="Write the whole picture in its own size, or only the face, as the model draws it at its own size.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Pictures at once.")
@click.option("--mark/--no-mark", default=True, show_default=True, help="Mark edited pictures as such, in XMP.")
@click.option("--certificate", type=common.FilePath(exists=True, dir_okay=False), help="Sign by C2PA: a PEM chain.")
@click.option("--key", type=common.FilePath(exists=True, dir_okay=False), help="The certificate's private key, PEM.")
@click.option(
    "--max-megapixels", type=click.FloatRange(min=0.01), default=100, help="Larger ones fail.  [default: 100]"
)
@common.json_option
def command(
    arguments: tuple[str, ...],
    output: Path,
    face: Which,
    aligned: bool,
    keep_size: bool,
    model_name: str,
    batch_size: int,
    mark: bool,
    certificate: Path | None,
    key: Path | None,
    max_megapixels: float,
    device: str | None,
    as_json: bool,
) -> None:
    """Change attributes of the faces in photos.

    INPUTS are files or folders. The pictures of a folder are written under the same names to the folder OUTPUT. An
    input is overwritten only where OUTPUT is that very input. EXIF, XMP, colour profile and resolution are kept.

    VALUE is True, False, a number (0 absent, 1 present, beyond exaggerates), coordinates in the attribute's subspace
    (Eyeglasses=0.2,-0.2), 'sample', or a picture to take the attribute from. True leaves a face unchanged that has the
    attribute already, False one that lacks it. A number always draws the face anew.
    """
    for argument in arguments:
        common.check_path(argument)
    changes = [argument for argument in arguments if "=" in argument and not Path(argument).exists()]
    inputs = [Path(argument) for argument in arguments if argument not in changes]
    if not changes:
        raise click.UsageError("nothing to change: expected at least one NAME=VALUE, such as Smiling=1")
    parsed = common.parse_changes(changes)
    if face == "all" and not keep_size:
        raise click.UsageError("--no-keep-size writes one face a photo: leave out --face all, or give --face N")
    if (certificate is None) != (key is None) or (certificate and not mark):
        raise click.UsageError("--certificate and --key sign the mark: give both, and no --no-mark")
    from csvae_hub import opening
    from csvae_hub.editing import PlanError, Signer, edit_files, left_out, plan_files
    from csvae_hub.editing.xmp import SOURCE_TYPE

    opening.MAX_PIXELS = int(1e6 * max_megapixels)
    try:
        jobs = plan_files(inputs, output)
        others = left_out(inputs, output)
        signer = Signer(certificate, key) if certificate and key else None
    except PlanError as error:
        raise click.UsageError(str(error)) from error
    except ValueError as error:
        raise click.UsageError(f"--certificate: {error}") from error
    model = common.load_picture_model(model_name, device)
    editor = common.editor_of(model, aligned)
    values = common.values_for(editor, parsed)
    with common.progress(len(jobs), "edited") as advance:
        outcomes = edit_files(
            editor,
            values,
            jobs,
            face=face,
            keep_size=keep_size,
            batch_size=batch_size,
            mark=mark,
            model_name=model_name,
            signer=signer,
            advance=advance,
        )
    _report(outcomes, model_name, output, as_json, others, SOURCE_TYPE if mark else None)


def _report(
    outcomes: Mapping[Job, Outcome], model_name: str, output: Path, as_json: bool, others: list[str], mark: str | None
) -> None:
    """Prints the outcome of every picture. Exits with 1 where one failed."""
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
        common.print_json({"model": model_name, "edited": edited, "failed": failures, "left_out": others, "mark": mark})
    else:
        common.echo(f"{len(done)} of {len(outcomes)} written to {output}")
    for line in others:
        common.echo(line, err=True)
    for job, outcome in done.items():
        for note in outcome.notes:
            common.echo(f"note: {job.source}: {note}", err=True)
        for reason in outcome.skipped:
            common.echo(f"skipped a face: {job.source}: {reason}", err=True)
        for line in outcome.unchanged:
            common.echo(f"unchanged: {job.source}: {line}", err=True)
    for error in failed.values():
        common.echo(f"failed: {error}", err=True)
    if failed:
        sys.exit(1)
