"""Picture files and whole folders: what goes where, and editing them in batches of bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csvae_hub.errors import ImageError
from csvae_hub.hub import replacing
from csvae_hub.images import open_image

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

MAX_BATCH_PIXELS = 2**24
"""A batch of large photos is cut short here, so that memory stays bounded."""

AHEAD = 4
"""Pictures that are decoded while the model is busy."""


class PlanError(ValueError):
    """Inputs and output that can't be meant; raised before anything is written."""


@dataclass(frozen=True)
class Job:
    """One picture: where it is, where it goes, and the input that named it (the file or its folder)."""

    source: Path
    target: Path
    named_by: Path


def plan_files(inputs: Sequence[Path], output: Path) -> list[Job]:
    """Pairs each picture with its target.

    One file and an `output` that ends like a picture are a pair. Otherwise `output` is a folder: files go there under
    their names, and what an input folder holds, at any depth, under its path within that folder. An input is
    overwritten only where `output` is that very input.

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
        if output.is_file():
            raise PlanError(f"output {output} is a file: expected a folder, since the input {path} is one")
        found = [file for file in _pictures(path) if output.resolve() == path.resolve() or not _is_in(file, output)]
        if not found:
            raise PlanError(f"no pictures in {path}: expected files that end in {', '.join(FORMATS)}")
        return [Job(file, output / file.relative_to(path), path) for file in found]
    if not path.exists():
        raise PlanError(f"no such file or folder: {path}")
    if output.is_dir() or output.suffix.lower() not in FORMATS:
        return [Job(path, output / path.name, path)]
    if inputs > 1:
        raise PlanError(f"output {output} names one picture, but there are {inputs} inputs: name a folder")
    return [Job(path, output, path)]


def _pictures(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.suffix.lower() in FORMATS and not file.name.startswith("."))
    return sorted(file for file in files if file.is_file())


def _is_in(file: Path, folder: Path) -> bool:
    return folder.resolve() in file.resolve().parents


def edit_files(
    model: AttributeModel,
    values: Mapping[str, Any],
    jobs: Sequence[Job],
    *,
    batch_size: int = 64,
    advance: Callable[[int], object] = lambda count: None,
) -> dict[Job, str]:
    """Edits and writes every picture; gives the jobs that failed, each with its reason.

    Threads decode ahead and write behind, so that no more than three batches are in memory.

    Args:
        model: takes pictures.
        values: as `model.edit` takes them.
        jobs: what `plan_files` gave.
        batch_size: pictures that the model edits at once; large photos are fewer.
        advance: called with the number of pictures just done or given up.
    """
    failed: dict[Job, str] = {}
    saving: list[tuple[Job, Future[None]]] = []

    def finish_saving() -> None:
        for job, future in saving:
            try:
                future.result()
            except (OSError, ValueError) as error:
                failed[job] = f"{job.source}: can't write {job.target}: {error}"
        if saving:
            advance(len(saving))
        saving.clear()

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for batch in _batches(_opened(pool, jobs, failed, advance), batch_size):
            edited = model.edit([picture for _, picture in batch], values)
            finish_saving()
            for (job, _), picture in zip(batch, edited, strict=True):
                saving.append((job, pool.submit(save_picture, picture, job.target)))
        finish_saving()
    return failed


def _opened(
    pool: ThreadPoolExecutor, jobs: Iterable[Job], failed: dict[Job, str], advance: Callable[[int], object]
) -> Iterator[tuple[Job, Image.Image]]:
    """Gives jobs with their pictures, in order; those that can't be read go to `failed`."""
    waiting: deque[tuple[Job, Future[Image.Image]]] = deque()

    def oldest() -> Iterator[tuple[Job, Image.Image]]:
        job, future = waiting.popleft()
        try:
            picture = future.result()
        except (ImageError, OSError) as error:
            failed[job] = str(error)
            advance(1)
        else:
            yield job, picture

    for job in jobs:
        waiting.append((job, pool.submit(open_image, job.source)))
        if len(waiting) > AHEAD:
            yield from oldest()
    while waiting:
        yield from oldest()


def _batches(opened: Iterable[tuple[Job, Image.Image]], batch_size: int) -> Iterator[list[tuple[Job, Image.Image]]]:
    batch: list[tuple[Job, Image.Image]] = []
    pixels = 0
    for job, picture in opened:
        batch.append((job, picture))
        pixels += picture.width * picture.height
        if len(batch) == batch_size or pixels >= MAX_BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture in the format of its ending, whole or not at all, with its colour profile; makes the folder.

    Raises:
        KeyError: the ending is none of `FORMATS`.
        OSError: it can't be written.
    """
    kind = FORMATS[path.suffix.lower()]
    options: dict[str, Any] = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    if kind in ("JPEG", "BMP"):
        picture = picture.convert("RGB")  # these have no transparency
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, kind, icc_profile=picture.info.get("icc_profile"), **options)
