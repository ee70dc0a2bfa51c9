"""Times the loading of a packaged model and its peak of memory, beside reading the file and building the modules.

    python benchmarks/loading.py -o docs/results/loading.json

Loading builds the modules with random numbers, reads the file into them a part at a time, and looks for NaN. Each
part is timed in processes of its own, in turns, with the file in the system's cache, on one thread. The medians of all
turns are kept. `meta` builds the modules on the meta device instead, which imports much of torch on first use. Packaged
weights are float16 and become float32 when they are loaded, so the same weights as float32 are timed too. Seconds are
of the processor; those of the wall are given beside. Linux only: memory is the process's peak in /proc, less its
size before. torch reads much of its own code from disk when something is done for the first time, which counts as
memory; so the peak of `load warm` is that of a process that has loaded a small model of the same kind before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROUNDS = 15
PARTS = ("read", "build", "meta", "load", "load warm", "read float32", "load float32", "load warm float32")


def measure(part: str, folder: Path) -> dict[str, float]:
    """Seconds and bytes of one part, in this process."""
    import torch
    from safetensors.torch import load_file

    from csvae_hub import hub
    from csvae_hub.models import CSVAE

    torch.set_num_threads(1)
    torch.rand(10, 10) @ torch.rand(10, 10)
    path = folder / hub.WEIGHTS
    path.read_bytes()
    config = hub.read_model_config(folder)

    def meta() -> object:
        with torch.device("meta"):
            return CSVAE(config)

    calls: dict[str, Callable[[], object]] = {
        "read": lambda: load_file(path, backend="pread"),
        "build": lambda: CSVAE(config),
        "meta": meta,
        "load": lambda: CSVAE.from_pretrained(folder, device="cpu"),
    }
    call = calls[part.partition(" ")[0]]
    if "warm" in part:
        small = replace(config, backbone=replace(config.backbone, width=8, features=8))
        with tempfile.TemporaryDirectory() as temporary:
            CSVAE(small).save_pretrained(temporary, dtype="float32" if part.endswith("float32") else "float16")
            CSVAE.from_pretrained(temporary, device="cpu")
        ctypes.CDLL(None).malloc_trim(0)  # what it has freed would be used again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    before = status("VmRSS")
    wall = time.perf_counter()
    seconds, result = timed(call)
    wall = time.perf_counter() - wall
    peak = status("VmHWM") - before
    del result
    return {"seconds": seconds, "again": timed(call)[0], "wall_seconds": wall, "peak_bytes": peak}


def timed(call: Callable[[], object]) -> tuple[float, object]:
    """Seconds of the processor that a call takes, and what it gives."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def status(name: str) -> int:
    """Bytes that the system says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def summary(folder: Path, wide: Path, rounds: int) -> dict[str, object]:
    """Medians over fresh processes, and the ratios that they make."""
    seen: dict[str, list[dict[str, float]]] = {part: [] for part in PARTS}
    for _ in range(rounds):
        for part, results in seen.items():
            place = wide if part.endswith("float32") else folder
            command = [sys.executable, __file__, "--part", part, "--folder", str(place)]
            results.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    medians = {
        part: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for part, results in seen.items()
    }
    size = 4 * numbers(folder)
    return {
        "medians": medians,
        **{f"load_over_read_and_build{kind.replace(' ', '_')}": ratio(seen, kind) for kind in ("", " float32")},
        "model_bytes": size,
        "peak_over_model": medians["load warm"]["peak_bytes"] / size,
        "peak_over_model_float32_file": medians["load warm float32"]["peak_bytes"] / size,
        "peak_over_model_in_a_fresh_process": medians["load"]["peak_bytes"] / size,
    }


def ratio(seen: dict[str, list[dict[str, float]]], kind: str) -> float:
    """Loading over its two parts: the median over the turns."""
    turns = zip(seen[f"load{kind}"], seen[f"read{kind}"], seen["build"], strict=True)
    return statistics.median(load["seconds"] / (read["seconds"] + build["seconds"]) for load, read, build in turns)


def numbers(folder: Path) -> int:
    from csvae_hub import hub

    return sum(tensor.numel() for tensor in hub.load_tensors(folder).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="celeba-64", help="a packaged model")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fresh processes for each part")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/loading.json"))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(measure(arguments.part, arguments.folder)))
        return
    import torch

    from csvae_hub import hub
    from csvae_hub.models import CSVAE

    with tempfile.TemporaryDirectory() as temporary:
        folder, wide = hub.resolve(arguments.model), Path(temporary) / "float32"
        CSVAE.from_pretrained(folder, device="cpu").save_pretrained(wide)
        result = summary(folder, wide, arguments.rounds)
    command = shlex.join(["python", "benchmarks/loading.py", *sys.argv[1:]])
    about = {"command": command, "model": arguments.model, "rounds": arguments.rounds, "torch": torch.__version__}
    hub.write_json(arguments.output, {**about, "machine": f"{platform.machine()}, one thread", **result})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
