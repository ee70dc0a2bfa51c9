"""Picture files and whole folders: pairs inputs with outputs, and edits them in batches of bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csvae_hub.editing.batches import BatchEditor, Edited
from csvae_hub.editing.editor import FaceEditor
from csvae_hub.editing.metadata import Metadata, open_with_metadata
from csvae_hub.editing.selection import Which
from csvae_hub.errors import ImageError
from csvae_hub.hub import replacing

if TYPE_CHECKING:
    from PIL import Image

    from csvae_hub.models import AttributeModel

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""The endings that are looked for in folders and that can be written, with Pillow's names of the formats."""

A_FOLDER = "name a folder without an ending, or one that exists"

MAX_BATCH_PIXELS = 2**23
"""A batch of large photos is cut short here, so that memory stays bounded."""

AHEAD = 4
"""Pictures that are decoded while the model is busy."""


class PlanError(ValueError):
    """Inputs and output that don't fit together; raised before anything is written."""


@dataclass(frozen=True)
class Job:
    """One picture: where it is, where it goes, and the input that named it (the file or its folder)."""

    source: Path
    target: Path
    named_by: Path


@dataclass(frozen=True)
class Outcome:
    """The result of a job: the error, if any; for a photo also the fields of `Edited`."""

    error: str = ""
    faces: int | None = None
    skipped: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


def plan_files(inputs: Sequence[Path], output: Path) -> list[Job]:
    """Pairs each picture with its target.

    An `output` with an ending is a file, unless a folder of that name exists; one input file goes there. Otherwise
    `output` is a folder: files go there under their names, and what an input folder holds, at any depth, under its
    path within that folder. An input is overwritten only where `output` is that very input.

    Raises:
        PlanError: nothing there, no pictures, two pictures for one target, an input that would be overwritten, or an
            ending that can't be written.
    """
    if not inputs:
        raise PlanError("expected at least one picture or folder, got none")
    jobs = [job for path in inputs for job in _jobs_of(path, len(inputs), output)]
    sources = {job.source.resolve() for job in jobs}
    planned: dict[Path, Job] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in planned:
            both = f"{planned[target].source} and {job.source}"
            raise PlanError(f"{both} would both be written to {job.target}: edit them in two calls")
        planned[target] = job
        asked_for = target == job.source.resolve() and output.resolve() == job.named_by.resolve()
        if target in sources and not asked_for:
            raise PlanError(f"{job.target} is an input and would be overwritten: name another folder for the output")
        if job.target.suffix.lower() not in FORMATS:
            raise PlanError(f"{job.target}: can't write this kind: name an output that ends in {', '.join(FORMATS)}")
    return jobs


def _jobs_of(path: Path, inputs: int, output: Path) -> list[Job]:
    if path.is_dir():
        if output.is_file() or _names_file(output):
            raise PlanError(f"output {output} is a file: expected a folder, since the input {path} is one: {A_FOLDER}")
        found = [file for file in _pictures(path) if output.resolve() == path.resolve() or not _is_in(file, output)]
        if not found:
            raise PlanError(f"no pictures in {path}: expected files that end in {', '.join(FORMATS)}")
        return [Job(file, output / file.relative_to(path), path) for file in found]
    if not path.exists():
        raise PlanError(f"no such file or folder: {path}")
    if not _names_file(output):
        return [Job(path, output / path.name, path)]
    if inputs > 1:
        raise PlanError(f"output {output} names one picture, but there are {inputs} inputs: {A_FOLDER}")
    return [Job(path, output, path)]


def _names_file(output: Path) -> bool:
    """Whether an output is meant as a file: .gif is an ending, .5 is part of a folder's name."""
    return not output.is_dir() and output.suffix[1:2].isalpha()


def _pictures(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.suffix.lower() in FORMATS and not file.name.startswith("."))
    return sorted(file for file in files if file.is_file())


def _is_in(file: Path, folder: Path) -> bool:
    return folder.resolve() in file.resolve().parents


def edit_files(
    editor: FaceEditor | AttributeModel,
    values: Mapping[str, Any],
    jobs: Sequence[Job],
    *,
    face: Which = "largest",
    keep_size: bool = True,
    batch_size: int = 64,
    advance: Callable[[int], object] = lambda count: None,
) -> dict[Job, Outcome]:
    """Edits and writes every picture; gives what came of each job, in their order.

    Threads decode and look for faces ahead and write behind, so that no more than three batches are in memory. The
    faces of a batch go through the model together. What a file says beside its pixels is kept: `editing.metadata`.

    Args:
        editor: edits faces in photos; a model takes pictures that are aligned already.
        values: as the editor's `edit` takes them.
        jobs: what `plan_files` gave.
        face: which faces of a photo: see `FaceEditor.open`.
        keep_size: write the whole picture in its own size; else the decoded face as the model gives it.
        batch_size: pictures that the model edits at once; large photos are fewer.
        advance: called with the number of pictures just done or given up.

    Raises:
        ValueError: a value that can't be understood, or `face` is "all" where sizes are not kept.
    """
    batches = BatchEditor(editor, values, face, keep_size)
    outcomes: dict[Job, Outcome] = {}
    saving: list[tuple[Job, Edited, Future[None]]] = []

    def finish_saving() -> None:
        for job, edited, future in saving:
            try:
                future.result()
                outcomes[job] = Outcome("", edited.faces, edited.skipped, edited.unchanged)
            except (OSError, ValueError) as error:
                outcomes[job] = Outcome(f"{job.source}: can't write {job.target}: {error}")
        if saving:
            advance(len(saving))
        saving.clear()

    def prepare(job: Job) -> _Ready:
        picture, metadata = open_with_metadata(job.source)
        try:
            return _Ready(job, metadata, picture.width * picture.height, batches.prepare(picture))
        except ImageError as error:
            raise ImageError(f"{job.source}: {error}") from error

    def give_up(job: Job, error: Exception) -> None:
        outcomes[job] = Outcome(str(error))
        advance(1)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for batch in _batches(_ahead(pool, jobs, prepare, give_up), batch_size):
            edited = batches.edit([ready.content for ready in batch])
            finish_saving()
            for ready, result in zip(batch, edited, strict=True):
                future = pool.submit(save_picture, result.picture, ready.job.target, ready.metadata)
                saving.append((ready.job, result, future))
        finish_saving()
    return {job: outcomes[job] for job in jobs}


@dataclass(frozen=True)
class _Ready:
    """A job that the model can take: what its file said, its pixels, and what `prepare` made of it."""

    job: Job
    metadata: Metadata
    pixels: int
    content: Any


def _ahead(
    pool: ThreadPoolExecutor,
    jobs: Iterable[Job],
    prepare: Callable[[Job], _Ready],
    give_up: Callable[[Job, Exception], None],
) -> Iterator[_Ready]:
    """Gives jobs prepared by threads, in order; those that can't be are given up."""
    waiting: deque[tuple[Job, Future[_Ready]]] = deque()

    def oldest() -> Iterator[_Ready]:
        job, future = waiting.popleft()
        try:
            ready = future.result()
        except (ImageError, OSError) as error:
            give_up(job, error)
        else:
            yield ready

    for job in jobs:
        waiting.append((job, pool.submit(prepare, job)))
        if len(waiting) > AHEAD:
            yield from oldest()
    while waiting:
        yield from oldest()


def _batches(ready: Iterable[_Ready], batch_size: int) -> Iterator[list[_Ready]]:
    batch: list[_Ready] = []
    for one in ready:
        batch.append(one)
        if len(batch) == batch_size or sum(each.pixels for each in batch) >= MAX_BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def save_picture(picture: Image.Image, path: Path, metadata: Metadata | None = None) -> None:
    """Writes a picture in the format of its ending, whole or not at all; makes the folder.

    Args:
        picture: L, LA, RGB or RGBA; JPEG and BMP leave transparency out.
        path: where to.
        metadata: of the file that the picture comes from; the default is the picture's own colour profile.

    Raises:
        KeyError: the ending is none of `FORMATS`.
        OSError: it can't be written.
    """
    kind = FORMATS[path.suffix.lower()]
    metadata = metadata or Metadata(picture.info.get("icc_profile"))
    if kind in ("JPEG", "BMP"):
        picture = picture.convert("L" if picture.mode in ("L", "LA") else "RGB")  # these have no transparency
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, kind, **metadata.options(kind, picture.size))
