"""Edits one face through a clip: it is followed, its landmarks are smoothed over time, and frames are streamed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from csvae_hub.editing.editor import FaceEditor
from csvae_hub.editing.files import FORMATS
from csvae_hub.errors import FaceError, ImageError, require
from csvae_hub.images import open_image
from csvae_hub.models.editable import Value
from csvae_hub.models.latents import Latents

Frame: TypeAlias = NDArray[np.uint8]
"""(H, W, 3), RGB."""
Points: TypeAlias = NDArray[np.float64]
"""Landmarks (5, 2) in pixels."""

PILLOW = (".gif", ".png", ".apng", ".webp")
FOLDER_FPS = 25.0
HOLD = 5
"""Frames without a face for which the last landmarks are taken."""
SLOWEST, EAGERNESS, SPEED_CUTOFF = 0.5, 1.0, 1.0
"""Cut-off of the smoothing for a face at rest in Hz, how much it rises with the face's speed, and that of the speed."""


@dataclass(frozen=True)
class Clip:
    """A clip on disk; each walk reads it anew, frame by frame, so that its length costs no memory.

    A folder of pictures, in the order of their names and at 25 frames a second; GIF, APNG or WebP; or what OpenCV
    reads. Sound is not read.

    Raises:
        ImageError: `of` can't read it, or there is no frame in it.
    """

    path: Path
    fps: float
    count: int
    """The number of frames; 0 where it is not known before they are read."""

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Clip:
        """The clip in a file or a folder."""
        path = Path(path)
        if path.is_dir():
            clip = cls(path, FOLDER_FPS, len(_pictures(path)))
            if not clip.count:
                raise ImageError(f"{path}: expected a folder of frames, got none that ends in {', '.join(FORMATS)}")
            return clip
        if path.suffix.lower() in PILLOW:
            with _opened(path) as frames:
                return cls(path, 1000 / (frames.info.get("duration") or 40), getattr(frames, "n_frames", 1))
        cv2 = require("cv2", "align")
        video = cv2.VideoCapture(os.fspath(path))
        readable, _ = video.read()
        if not readable:
            raise ImageError(f"{path}: expected a clip that OpenCV reads, or a folder, GIF, APNG or WebP")
        return cls(path, video.get(cv2.CAP_PROP_FPS) or FOLDER_FPS, max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))))

    def __iter__(self) -> Iterator[Frame]:
        if self.path.is_dir():
            for file in _pictures(self.path):
                yield np.array(open_image(file).convert("RGB"))
        elif self.path.suffix.lower() in PILLOW:
            with _opened(self.path) as frames:
                for frame in ImageSequence.Iterator(frames):
                    yield np.array(frame.convert("RGB"))
        else:
            video = require("cv2", "align").VideoCapture(os.fspath(self.path))
            while (read := video.read())[0]:
                yield read[1][..., ::-1].copy()


def follow(editor: FaceEditor, frames: Iterable[Frame]) -> Iterator[Points | None]:
    """The landmarks of one face in each frame, the largest and then the nearest; None where it is lost."""
    last, missed = None, 0
    for frame in frames:
        found = [face.landmarks for face in editor.detect(frame)]  # largest first
        if found:
            last, missed = min(found, key=lambda p: 0 if last is None else np.square(p.mean(0) - last.mean(0)).sum()), 0
        else:
            last, missed = (last if missed < HOLD else None), missed + 1
        yield last


def one_euro(track: Sequence[Points], fps: float) -> list[Points]:
    """The One-Euro filter (Casiez, Roussel, Vogel, CHI 2012): smooths the more, the slower the face moves.

    Speeds are in distances of the eyes a second, so that the settings hold for any size of face.
    """
    smooth, speed = [track[0]], np.zeros(2)
    for points in track[1:]:
        eyes = np.hypot(*(points[1] - points[0]))
        speed = speed + _share(SPEED_CUTOFF, fps) * ((points - smooth[-1]).mean(0) / eyes * fps - speed)
        share = _share(SLOWEST + EAGERNESS * np.hypot(*speed), fps)
        smooth.append(smooth[-1] + share * (points - smooth[-1]))
    return smooth


def _share(cutoff: float, fps: float) -> float:
    return 1 / (1 + fps / (2 * np.pi * cutoff))


def smoothed(track: Sequence[Points | None], fps: float) -> list[Points | None]:
    """Each run of found frames filtered forwards and backwards; the mean of both does not lag."""
    result: list[Points | None] = list(track)
    ends = [i for i, points in enumerate([*track, None]) if points is None]
    for start, end in zip([0, *(i + 1 for i in ends)], ends, strict=False):
        if run := [points for points in track[start:end] if points is not None]:
            both = zip(one_euro(run, fps), one_euro(run[::-1], fps)[::-1], strict=True)
            result[start:end] = [(there + back) / 2 for there, back in both]
    return result


def edit_frames(
    editor: FaceEditor,
    frames: Iterable[Frame],
    track: Iterable[Points | None],
    values: Mapping[str, Value],
    *,
    ramp: int = 0,
) -> Iterator[Frame]:
    """The frames with attributes set, as `AttributeModel.edit` sets them; frames without a face stay as they are.

    In each frame an attribute goes to the same point, "sample" too. The first `ramp` frames go towards it step by step.

    Args:
        editor: of a model of the family.
        frames: of the clip.
        track: the landmarks in each frame, from `smoothed`.
        values: what attributes are set to.
        ramp: frames until the edit is whole.

    Raises:
        UnknownAttributeError: the model has no such attribute.
        ValueError: a value can't be understood.
    """
    for i, (frame, points) in enumerate(zip(frames, track, strict=True)):
        try:
            photo = editor.open(frame, landmarks=points) if points is not None else None
        except FaceError:  # half out of the frame
            photo = None
        if photo is None:
            yield frame
            continue
        own = photo.latents
        there = editor.model.edit(own, values, generator=torch.Generator().manual_seed(0))
        share = min(1.0, i / ramp) if ramp else 1.0
        z, w, y = (a.lerp(b, share) for a, b in ((own.z, there.z), (own.w, there.w), (own.y, there.y)))
        yield photo.render(Latents(z, w, y, own.attributes))


def write_clip(frames: Iterable[Frame], path: str | os.PathLike[str], fps: float) -> int:
    """Writes a clip as what its ending says, and gives the number of frames; without an ending a folder of PNG files.

    It appears whole or not at all. WebP and APNG keep the pixels; GIF has 256 colours a frame; OpenCV writes the rest,
    without sound, as MPEG-4. All frames of WebP and APNG are in memory at once.

    Raises:
        ImageError: there is no frame, the folder is there already, or OpenCV can't write such a file.
    """
    path = Path(path)
    if not path.suffix and path.exists():
        raise ImageError(f"{path} is there already: expected the name of a new folder for the frames")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".clip-") as folder:
        partial, written = Path(folder) / f"clip{path.suffix}", _Counted(frames)
        first = next(written, None)
        if first is None:
            raise ImageError(f"{path}: expected at least one frame, got none")
        every = chain([first], written)
        if not path.suffix:
            partial.mkdir()
            for i, frame in enumerate(every):
                Image.fromarray(frame).save(partial / f"{i:05d}.png")
        elif path.suffix.lower() in PILLOW:
            pictures = (Image.fromarray(frame) for frame in every)
            start, further = next(pictures), pictures if path.suffix.lower() == ".gif" else list(pictures)
            lossless = path.suffix.lower() == ".webp"
            options: dict[str, Any] = {"duration": round(1000 / fps), "loop": 0, "lossless": lossless}
            start.save(partial, save_all=True, append_images=further, **options)
        else:
            cv2 = require("cv2", "align")
            video = cv2.VideoWriter(os.fspath(partial), cv2.VideoWriter.fourcc(*"mp4v"), fps, first.shape[1::-1])
            if not video.isOpened():
                raise ImageError(f"{path}: expected an ending that OpenCV writes, such as .mp4, or .gif or .webp")
            for frame in every:
                video.write(np.ascontiguousarray(frame[..., ::-1]))
            video.release()
        os.replace(partial, path)
    return written.count


class _Counted(Iterator[Frame]):
    def __init__(self, frames: Iterable[Frame]) -> None:
        self.frames, self.count = iter(frames), 0

    def __next__(self) -> Frame:
        frame = next(self.frames)
        self.count += 1
        return frame


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in FORMATS)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=("GIF", "PNG", "WEBP")) as clip:
            yield clip
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: expected a clip in GIF, APNG or WebP: {error}") from error
