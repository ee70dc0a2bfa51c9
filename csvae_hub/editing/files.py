"""Picture files and whole folders: pairs inputs with outputs, and edits them in batches of bounded memory."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, features

from csvae_hub.editing.batches import BatchEditor, Edited, Outcome
from csvae_hub.editing.editor import FaceEditor
from csvae_hub.editing.metadata import Metadata, open_with_metadata
from csvae_hub.editing.provenance import KINDS, Signer
from csvae_hub.editing.selection import Which
from csvae_hub.editing.xmp import history
from csvae_hub.errors import ImageError
from csvae_hub.hub import replacing
from csvae_hub.opening import pixels_in

if TYPE_CHECKING:
    from csvae_hub.models import AttributeModel

FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".gif": "GIF",
    **({".avif": "AVIF"} if features.check("avif") else {}),
    **({".heic": "HEIF", ".heif": "HEIF"} if importlib.util.find_spec("pillow_heif") else {}),
}
"""The endings that are looked for in folders and that can be written, with Pillow's names of the formats."""

A_FOLDER = "name a folder without an ending, or one that exists"

NEEDS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".avif": "a Pillow with AVIF"}
"""Endings of pictures that need something else, where they are not in `FORMATS`."""

MAX_BATCH_PIXELS, MAX_AHEAD_PIXELS = 1_000_000, 2**26
"""A batch of large photos is cut short at the first; at most the second is decoded ahead, so that memory is bounded.

Three times as many take 40 MB more and hardly less time."""

AHEAD = 3
"""Pictures that are decoded while the model is busy."""


class PlanError(ValueError):
    """Inputs and output that don't fit together; raised before anything is written."""


@dataclass(frozen=True)
class Job:
    """One picture: where it is, where it goes, and the input that named it (the file or its folder)."""

    source: Path
    target: Path
    named_by: Path


def plan_files(inputs: Sequence[Path], output: Path) -> list[Job]:
    """Pairs each picture with its target.

    An `output` with an ending is a file, unless a folder of that name exists; one input file goes there. Otherwise
    `output` is a folder: files go there under their names, and what an input folder holds, at any depth, under its
    path within that folder. An input is overwritten only where `output` is that very input.

    Raises:
        PlanError: they don't fit together.
    """
    if not inputs:
        raise PlanError("expected at least one picture or folder, got none")
    if Path("-") in (*inputs, output):
        raise PlanError("- is no file: pictures are not read from or written to standard streams, name files")
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
    """True for an output that is meant as a file: .gif is an ending, .5 is part of a folder's name."""
    return not output.is_dir() and output.suffix[1:2].isalpha()


def left_out(inputs: Sequence[Path], output: Path) -> list[str]:
    """Says how many files of the input folders are not edited, by their kind and with the reason."""
    kinds: Counter[str] = Counter()
    for folder in filter(Path.is_dir, inputs):
        taken = set(_pictures(folder))
        others = (file for file in folder.rglob("*") if file not in taken and file.is_file())
        is_own = output.resolve() == folder.resolve()
        kinds.update(_kind(file) for file in others if is_own or not _is_in(file, output))
    return [f"left out {count} {kind}" for kind, count in sorted(kinds.items())]


def _kind(file: Path) -> str:
    suffix = file.suffix.lower()
    if file.name.startswith("."):
        return "hidden (the name begins with a dot)"
    if suffix in NEEDS:
        return f"{suffix} (reading it needs {NEEDS[suffix]})"
    return f"{suffix or 'without an ending'} (no format that is read: {', '.join(FORMATS)})"


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
    mark: bool = True,
    model_name: str = "",
    signer: Signer | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> dict[Job, Outcome]:
    """Edits and writes every picture; gives what came of each job, in their order.

    Threads decode and look for faces ahead and write behind, so that no more than three batches are in memory. The
    faces of a batch go through the model together. Metadata is kept: `editing.metadata`. Any error of one picture is
    its outcome, and the rest is done.

    Args:
        editor: edits faces in photos; a model takes pictures that are aligned already.
        values: as the editor's `edit` takes them.
        jobs: what `plan_files` gave.
        face: which faces of a photo: see `FaceEditor.open`.
        keep_size: write the whole picture in its own size; else the decoded face as the model gives it.
        batch_size: pictures that the model edits at once; large photos are fewer.
        mark: write into each edited picture that it is one, with library, model and values: see `editing.xmp`.
        model_name: for the mark.
        signer: signs what is marked, where the file's format holds a C2PA manifest.
        advance: called with the number of pictures just done or given up.

    Raises:
        UnknownAttributeError: the model has no such attribute.
        ValueError: `face` is "all" where sizes are not kept.
    """
    batches = BatchEditor(editor, values, face, keep_size)
    outcomes: dict[Job, Outcome] = {}
    saving: list[tuple[Job, Edited, Future[list[str]]]] = []
    words = history(model_name, values) if mark else ""

    def finish_saving() -> None:
        for job, edited, future in saving:
            try:
                outcomes[job] = replace(edited.outcome, notes=(*edited.outcome.notes, *future.result()))
            except Exception as error:  # Pillow raises anything
                outcomes[job] = Outcome(f"{job.source}: can't write {job.target}: {_told(error)}")
        if saving:
            advance(len(saving))
        saving.clear()

    def prepare(job: Job) -> _Ready:
        picture, metadata = open_with_metadata(job.source)
        return _Ready(job, metadata, picture.width * picture.height, batches.prepare(picture))

    def give_up(job: Job, error: Exception) -> None:
        named = "" if str(error).startswith(f"{job.source}: ") else f"{job.source}: "
        outcomes[job] = Outcome(f"{named}{_told(error)}")
        advance(1)

    def edited_ones(batch: Sequence[_Ready]) -> Iterator[tuple[_Ready, Edited]]:
        try:
            yield from zip(batch, batches.edit([ready.content for ready in batch]), strict=True)
        except Exception as error:
            if len(batch) == 1:
                give_up(batch[0].job, error)
            else:  # the fault of one is not that of the others
                for ready in batch:
                    yield from edited_ones([ready])

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for batch in _batches(_ahead(pool, jobs, prepare, give_up), batch_size):
            edited = list(edited_ones(batch))
            finish_saving()
            for ready, result in edited:
                is_marked = bool(words) and result.is_changed
                metadata = replace(ready.metadata, mark=words) if is_marked else ready.metadata
                sign = partial(signer.sign, source=ready.job.source, words=words) if signer and is_marked else None
                future = pool.submit(save_picture, result.picture, ready.job.target, metadata, sign)
                saving.append((ready.job, result, future))
        finish_saving()
    return {job: outcomes[job] for job in jobs}


@dataclass(frozen=True)
class _Ready:
    """A job that the model can take."""

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
    waiting: deque[tuple[Job, int, Future[_Ready]]] = deque()

    def oldest() -> Iterator[_Ready]:
        job, _, future = waiting.popleft()
        try:
            yield future.result()
        except Exception as error:
            give_up(job, error)

    for job in jobs:
        pixels = pixels_in(job.source)
        while waiting and pixels + sum(each for _, each, _ in waiting) > MAX_AHEAD_PIXELS:
            yield from oldest()
        waiting.append((job, pixels, pool.submit(prepare, job)))
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


def save_picture(
    picture: Image.Image,
    path: Path,
    metadata: Metadata | None = None,
    sign: Callable[[Path, str], None] | None = None,
) -> list[str]:
    """Writes a picture (L, LA, RGB or RGBA) in the format of its ending, whole or not at all; makes the folder.

    Without metadata it writes the picture's own colour profile. `sign` is called with the written file and its format,
    if that holds a C2PA manifest. Gives notes, each on something that the file could not
    hold: metadata, or transparency, which becomes white.

    Raises:
        KeyError: the ending is none of `FORMATS`.
        OSError: it can't be written.
    """
    kind = FORMATS[path.suffix.lower()]
    metadata = metadata or Metadata(picture.info.get("icc_profile"))
    notes: list[str] = []
    if kind in ("JPEG", "BMP") and picture.mode.endswith("A"):
        picture, was_seen_through = _on_white(picture)
        notes += [f"what was transparent is white: {kind} has no transparency"] * was_seen_through
    kept, lost = metadata.for_file(kind, picture.mode, picture.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        try:
            picture.save(temporary, kind, **kept.options(kind, picture.size))
        except Exception:  # Pillow raises anything, by the metadata
            kept, unwritable = kept.storable(kind, picture.mode)
            if not unwritable:
                raise
            lost += unwritable
            picture.save(temporary, kind, **kept.options(kind, picture.size))
        if sign is not None and kind in KINDS:
            sign(temporary, kind)
    if sign is not None and kind not in KINDS:
        lost.append("C2PA manifest")
    lost = [*metadata.left_out, *lost]
    return notes + ([f"left out: {', '.join(dict.fromkeys(lost))}"] if lost else [])


def _on_white(picture: Image.Image) -> tuple[Image.Image, bool]:
    """The picture without transparency, white where it was seen through, if anywhere."""
    white = Image.new(picture.mode.removesuffix("A"), picture.size, "white")
    was_seen_through = False
    for top in range(0, picture.height, 64):  # little memory beside the two pictures
        strip = picture.crop((0, top, picture.width, min(top + 64, picture.height)))
        alpha = strip.getchannel("A")
        was_seen_through |= alpha.getextrema() != (255, 255)
        white.paste(strip.convert(white.mode), (0, top), alpha)
    return white, was_seen_through


def _told(error: Exception) -> str:
    """The words of an error; of one that is not ours its kind, too."""
    return str(error) if isinstance(error, ImageError | OSError) else f"{type(error).__name__}: {error}"
