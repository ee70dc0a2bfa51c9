"""Edits an attribute of one face through a clip.

    python examples/video.py clip.gif Eyeglasses=1 -o edited.gif --ramp 24

Clips are folders of frames, GIF, APNG or WebP, and whatever OpenCV reads and writes; sound is not kept. The face that
is nearest to the one before is followed, its landmarks are smoothed over time, and in each frame the attribute goes to
the same point. A frame without a face takes the last landmarks, for up to HOLD frames; after those it is left as it is.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from csvae_hub import CSVAE, FaceEditor
from csvae_hub.editing import FORMATS
from csvae_hub.errors import FaceError
from csvae_hub.images import open_image

Frame, Points = NDArray[np.uint8], NDArray[np.float64]
PILLOW = (".gif", ".png", ".apng", ".webp")
HOLD = 5
SLOWEST, EAGERNESS, SPEED_CUTOFF = 0.5, 1.0, 1.0
"""Cut-off of the smoothing for a face at rest in Hz, how much it rises with the face's speed, and that of the speed."""


def follow(editor: FaceEditor, frames: Sequence[Frame]) -> Iterator[Points | None]:
    """The landmarks (5, 2) of one face in each frame; None where it is lost."""
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
    editor: FaceEditor, frames: Sequence[Frame], name: str, value: Any, *, fps: float = 25, ramp: int = 0
) -> Iterator[Frame]:
    """The frames with an attribute set to a number or point, which the first `ramp` frames go towards step by step."""
    for i, (frame, points) in enumerate(zip(frames, smoothed(list(follow(editor, frames)), fps), strict=True)):
        try:
            photo = editor.open(frame, landmarks=points) if points is not None else None
        except FaceError:  # half out of the frame
            photo = None
        if photo is None:
            yield frame
            continue
        own = photo.latents.w[:, editor.model.index(name)]
        there = editor.model.set_attribute(photo.latents, name, value).w[:, editor.model.index(name)]
        yield photo.render(photo.latents.replace(name, own.lerp(there, min(1, i / ramp) if ramp else 1)))


def read_clip(path: Path) -> tuple[list[Frame], float]:
    """Frames (H, W, 3), and how many a second; folders have 25."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in FORMATS)
        return [np.array(open_image(file).convert("RGB")) for file in files], 25.0
    if path.suffix.lower() in PILLOW:
        with Image.open(path, formats=("GIF", "PNG", "WEBP")) as clip:
            frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)]
            return frames, 1000 / (clip.info.get("duration") or 40)
    import cv2

    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1].copy())
    return frames, video.get(cv2.CAP_PROP_FPS) or 25.0


def write_clip(frames: Sequence[Frame], path: Path, fps: float) -> None:
    """As what the ending says; without one, as a folder of PNG files."""
    pictures = [Image.fromarray(frame) for frame in frames]
    if not path.suffix:
        path.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures):
            picture.save(path / f"{i:05d}.png")
    elif path.suffix.lower() in PILLOW:
        options = {"lossless": True} if path.suffix.lower() == ".webp" else {}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, **options)
    else:
        import cv2

        size = frames[0].shape[1::-1]
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        for frame in frames:
            video.write(frame[..., ::-1])
        video.release()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("edit", metavar="NAME=NUMBER", help="0 is absent, 1 present")
    parser.add_argument("--model", default="celeba-64")
    parser.add_argument("--ramp", type=int, default=0, metavar="FRAMES", help="reach it step by step")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    frames, fps = read_clip(options.clip)
    name, _, number = options.edit.partition("=")
    editor = FaceEditor(CSVAE.from_pretrained(options.model))
    edited = list(edit_frames(editor, frames, name, float(number), fps=fps, ramp=options.ramp))
    write_clip(edited, options.output, fps)
    print(f"{len(edited)} frames written to {options.output}")


if __name__ == "__main__":
    main()
