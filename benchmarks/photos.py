"""Measures the time of `csvae edit` for a folder of photos, its parts, and the memory that it and a large photo take.

    python benchmarks/photos.py -o docs/results/photos.json

The photos are drawn: 1,000 pixels a side, JPEG, the astronaut of examples/ at sizes from 0.4 to 1.6, turned by up to
25°, darker or brighter, on plain colours or noise. The same function as `csvae edit photos/ Smiling=1` edits them, with
torch and OpenCV on one thread each; its own threads decode and write beside that. Parts are milliseconds of the
processor for each photo, of the threads that do them; `wall` is by the clock. Peaks are the most memory that the
process has held since it loaded the model, by the time that so many photos were done. `detector_network` is the median
of the processor's milliseconds for a view of so many pixels a side, by onnxruntime and by OpenCV, measured in turns.

Large photos have 50 megapixels and are edited one by one, each in a process of its own that has edited a small one
before. Their bytes a pixel are the process's peak less its size before. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageEnhance

ROOT = Path(__file__).resolve().parents[1]
SIDE = 1000
FACE = (0.44, 0.2)
"""The middle of the astronaut's face, as shares of that photo's width and height."""
LARGE_SIDE = 7072
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("large.jpg", {"quality": 90}),
    "turned jpeg": ("large.jpg", {"quality": 90}),
    "progressive jpeg": ("large.jpg", {"quality": 90, "progressive": True}),
    "png": ("large.png", {"compress_level": 1}),
    "png with alpha": ("large.png", {"compress_level": 1}),
}
"""Kinds of large photos: names of their files, and options of Pillow."""


def draw_photo(astronaut: Image.Image, rng: random.Random) -> Image.Image:
    """A photo with one face whose middle lies in the middle half."""
    if rng.random() < 0.5:
        canvas = Image.new("RGB", (SIDE, SIDE), tuple(rng.randrange(256) for _ in range(3)))
    else:
        noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        canvas = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    side = round(astronaut.width * rng.uniform(0.4, 1.6))
    person = ImageEnhance.Brightness(astronaut.resize((side, side), Image.Resampling.LANCZOS)).enhance(
        rng.uniform(0.6, 1.4)
    )
    face = np.array(FACE) * side
    layer = Image.new("RGBA", (SIDE, SIDE))
    layer.paste(person, tuple(np.round(SIDE / 2 - face).astype(int).tolist()))
    shift = (rng.uniform(-SIDE / 4, SIDE / 4), rng.uniform(-SIDE / 4, SIDE / 4))
    layer = layer.rotate(rng.uniform(-25, 25), Image.Resampling.BICUBIC, translate=shift)
    canvas.paste(layer, (0, 0), layer)
    return canvas


def draw_folder(folder: Path, count: int, seed: int) -> None:
    """Writes `count` photos of the seed."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    with Image.open(ROOT / "examples/astronaut-512.png") as opened:
        astronaut = opened.convert("RGB")
    for i in range(count):
        draw_photo(astronaut, rng).save(folder / f"{i:03}.jpg", quality=90)


class Stopwatch:
    """Adds up the processor's time of the calls that it watches, by name, whichever thread makes them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def watch(self, name: str, owner: Any, attribute: str) -> None:
        """Replaces a function by one that is timed."""
        call: Callable[..., Any] = getattr(owner, attribute)

        @wraps(call)
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                with self._lock:
                    self.seconds[name] += time.thread_time() - start

        setattr(owner, attribute, timed)


def status(name: str) -> int:
    """Bytes that the system says of this process: VmRSS is what it holds, VmHWM the most that it has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def measure(folder: Path, target: Path, model_name: str) -> dict[str, Any]:
    """Edits the folder; gives times, peaks and what failed."""
    import cv2
    import torch

    from csvae_hub.editing import FaceEditor, edit_files, editor, files, plan_files
    from csvae_hub.models import AttributeModel

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = AttributeModel.from_pretrained(model_name, device="cpu")
    faces = FaceEditor(model)
    jobs = plan_files([folder], target)
    warm_up = plan_files([jobs[0].source], target.with_name("warm-up"))
    edit_files(faces, {"Smiling": 1.0}, warm_up)

    watch = Stopwatch()
    for name, owner, attribute in (
        ("decode_file", files, "open_with_metadata"),
        ("detector", faces.detector, "detect"),
        ("detector", faces.detector, "largest"),
        ("warp", editor, "warped"),
        ("network", model, "encode"),
        ("network", model, "decode"),
        ("blend", editor, "put_back"),
        ("write_file", files, "save_picture"),
    ):
        watch.watch(name, owner, attribute)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    done, before = 0, status("VmHWM")
    marks = [len(jobs) * quarter // 4 for quarter in (1, 2, 3, 4)]
    peaks: dict[str, int] = {}
    quarters: list[float] = []
    wall, start = time.perf_counter(), time.process_time()

    def advance(count: int) -> None:
        nonlocal done
        done += count
        while len(peaks) < len(marks) and done >= marks[len(peaks)]:
            peaks[str(marks[len(peaks)])] = status("VmHWM")
            quarters.append(time.perf_counter() - wall)

    outcomes = edit_files(faces, {"Smiling": 1.0}, jobs, advance=advance)
    wall, processor = time.perf_counter() - wall, time.process_time() - start
    parts = {name: 1000 * seconds / len(jobs) for name, seconds in watch.seconds.items()}
    parts["other"] = 1000 * processor / len(jobs) - sum(parts.values())
    return {
        "wall_ms_a_photo": 1000 * wall / len(jobs),
        "processor_ms_a_photo": 1000 * processor / len(jobs),
        "parts_ms_a_photo": parts,
        "wall_seconds_at_quarters": quarters,
        "bytes_before": before,
        "peak_bytes_at_photos": peaks,
        "failed": [outcome.error for outcome in outcomes.values() if outcome.error],
    }


def beside_opencv(turns: int = 50) -> dict[str, dict[str, float]]:
    """Milliseconds of the processor that the detector's network takes here and in OpenCV's own detector."""
    import cv2

    from csvae_hub.editing import YuNet, detection

    cv2.setNumThreads(1)
    ours, found = YuNet(), {}
    for side in (detection.QUICK_SIDE, detection.ROUGH_VIEW[0]):
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        theirs = cv2.FaceDetectorYN.create(str(detection.MODEL), "", (side, side))
        spent: dict[str, list[float]] = {"onnxruntime": [], "opencv": []}
        for _ in range(turns):
            for name, call in (("onnxruntime", ours._candidates), ("opencv", theirs.detect)):
                start = time.process_time()
                call(pixels)
                spent[name].append(1000 * (time.process_time() - start))
        found[str(side)] = {name: statistics.median(times) for name, times in spent.items()}
    return found


def draw_large(folder: Path, kind: str) -> Path:
    """Writes a photo of 50 megapixels: the astronaut, enlarged, in a format or a way to pack one."""
    name, options = LARGE[kind]
    path = folder / name
    with Image.open(ROOT / "examples/astronaut-512.png") as opened:
        photo = opened.convert("RGBA" if kind == "png with alpha" else "RGB").resize((LARGE_SIDE, LARGE_SIDE))
    if kind == "turned jpeg":
        photo = photo.transpose(Image.Transpose.ROTATE_90)
        options = {**options, "exif": Image.Exif()}
        options["exif"][ExifTags.Base.Orientation] = 6
    photo.save(path, **options)
    return path


def measure_large(kind: str, model_name: str) -> dict[str, Any]:
    """Bytes a pixel of one edit, in this process."""
    import torch

    from csvae_hub.editing import FaceEditor, edit_files, plan_files
    from csvae_hub.models import AttributeModel

    torch.set_num_threads(1)
    faces = FaceEditor(AttributeModel.from_pretrained(model_name, device="cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        small, large = plan_files([ROOT / "examples/astronaut-512.png"], Path(temporary) / "small"), Path(temporary)
        command = [sys.executable, __file__, "--draw", kind, "--keep", temporary]
        subprocess.run(command, check=True)  # elsewhere, so that its memory is not used again
        edit_files(faces, {"Smiling": 1.0}, small)
        ctypes.CDLL(None).malloc_trim(0)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
        (outcome,) = edit_files(faces, {"Smiling": 1.0}, plan_files([large / LARGE[kind][0]], large / "out")).values()
        return {"bytes_a_pixel": (status("VmHWM") - before) / LARGE_SIDE**2, "error": outcome.error}


def large_photos(model_name: str) -> dict[str, Any]:
    """Bytes a pixel of each kind of large photo, in processes of their own."""
    command = [sys.executable, __file__, "--model", model_name, "--large"]
    runs = {kind: subprocess.run([*command, kind], capture_output=True, text=True, check=True) for kind in LARGE}
    return {kind: json.loads(run.stdout) for kind, run in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="celeba-128", help="a packaged model or a folder")
    parser.add_argument("--keep", type=Path, help="a folder to leave the photos in, in/ and out/, to look at")
    parser.add_argument("--large", choices=LARGE, help="print the memory for one kind of large photo alone")
    parser.add_argument("--draw", choices=LARGE, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/photos.json"))
    arguments = parser.parse_args()
    if arguments.draw:
        draw_large(arguments.keep, arguments.draw)
        return
    if arguments.large:
        print(json.dumps(measure_large(arguments.large, arguments.model)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.keep or Path(temporary)
        with ProcessPoolExecutor(1) as elsewhere:  # so that its memory is not used again
            elsewhere.submit(draw_folder, place / "in", arguments.photos, arguments.seed).result()
        result = measure(place / "in", place / "out", arguments.model)
    import torch

    from csvae_hub import hub

    about = {
        "command": shlex.join(["python", "benchmarks/photos.py", *sys.argv[1:]]),
        "model": arguments.model,
        "photos": arguments.photos,
        "side": SIDE,
        "seed": arguments.seed,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
    }
    result["detector_network"] = beside_opencv()
    result["large_photos"] = large_photos(arguments.model)
    hub.write_json(arguments.output, {**about, **result})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
