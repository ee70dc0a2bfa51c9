"""`csvae video`: attributes of one face through a clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from csvae_hub.cli import common

T = TypeVar("T")


@click.command("video")
@click.argument("clip", type=common.FilePath(exists=True))
@click.argument("changes", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option("-o", "--output", required=True, type=common.FilePath(), help="A clip, or a new folder for frames.")
@click.option("--ramp", type=click.IntRange(min=0), default=0, help="Frames in which the edit grows to its whole.")
@common.model_option
@common.device_option
def command(clip: Path, changes: tuple[str, ...], output: Path, ramp: int, model_name: str, device: str | None) -> None:
    """Change attributes of one face through CLIP.

    CLIP is a folder of frames, a GIF, APNG or WebP, or what OpenCV reads; sound is not kept. The largest face is
    followed, and in each frame the attribute goes to the same point. A frame without a face takes the last place of it
    for up to five frames, and then stays as it is. VALUE is as in `csvae edit`; True and False always draw the face
    anew.
    """
    parsed = common.parse_changes(changes)
    if output.resolve() == clip.resolve():
        raise click.UsageError(f"-o {output} is the input: give another name")
    if not output.suffix and output.exists():
        raise click.UsageError(f"-o {output} is there already: give the name of a new folder, or of a clip")
    from csvae_hub.editing import FaceEditor, video

    frames = video.Clip.of(clip)
    editor = FaceEditor(common.load_picture_model(model_name, device))
    values = common.values_for(editor, parsed)
    with common.progress(2 * frames.count, "done") as advance:
        track = video.smoothed(list(_told(video.follow(editor, frames), advance)), frames.fps)
        found = sum(points is not None for points in track)
        if not found:
            raise click.ClickException(f"{clip}: no face in any of {len(track)} frames")
        edited = video.edit_frames(editor, frames, track, values, ramp=ramp)
        try:
            written = video.write_clip(_told(edited, advance), output, frames.fps)
        except OSError as error:
            raise click.ClickException(f"can't write {output}: {error}") from error
    left = f", {written - found} of them without a face and as they were" if found < written else ""
    common.echo(f"{written} frames written to {output}{left}")


def _told(frames: Iterator[T], advance: Callable[[int], None]) -> Iterator[T]:
    for frame in frames:
        yield frame
        advance(1)
