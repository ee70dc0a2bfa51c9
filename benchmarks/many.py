"""Times the edit of many aligned pictures and the memory that it takes, beside the bare layers.

    python benchmarks/many.py -o docs/results/many.json

One call edits what it is given; more pictures than fit in memory are given in batches, by the loop of `edit_all`. Each
number of pictures has a process of its own, the smaller ones five each, spread over the time, of which the medians
count: for the two seconds of one a machine may be a tenth quicker or slower than by mean. The batches, uint8, are drawn
one after the other, as they would come from a memory-mapped file; drawing is not counted. `bytes_over_before` are the
process's peak less what it held when the model was loaded. `seconds_a_picture` are those of all pictures, by the clock;
`processor_seconds_a_picture` those of the processor. Afterwards, in the same process, more batches are edited in turns
with the model's own layers called one by one (`speed.py`), batch norm unfolded, from pixels to pixels: `bare_over_ours`
is the median over the turns. One thread; Linux only; run it on idle cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

COUNTS, QUICK_COUNTS = (1_000, 10_000, 100_000), (64, 256)
BEFORE, AFTER = 3, 2
"""Runs of each smaller number before those of the greatest one, and after it."""
BATCH = 64


def edit_all(model: Any, batches: Iterable[Any]) -> Iterator[Any]:
    """Sets an attribute of pictures that come in batches of uint8 (B, 3, S, S); gives them edited, as uint8."""
    for images in batches:
        yield (model.set_attribute(images.float() / 255, "Smiling") * 255).round().byte()


def drawn(count: int, side: int, batch: int = BATCH) -> Iterator[Any]:
    """`count` pictures of noise in batches of uint8 (B, 3, side, side)."""
    import torch

    source = torch.Generator().manual_seed(0)
    for start in range(0, count, batch):
        shape = (min(batch, count - start), 3, side, side)
        yield torch.randint(256, shape, dtype=torch.uint8, generator=source)


def status(name: str) -> int:
    """Bytes that the system says of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


class Clock:
    """Seconds that the consumer of an iterator takes, without those of the iterator."""

    def __init__(self) -> None:
        self.wall, self.processor = 0.0, 0.0

    def outside(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches; runs from the time that one is given to the time that the next one is asked for."""
        for batch in batches:
            wall, processor = time.perf_counter(), time.process_time()
            yield batch
            self.wall += time.perf_counter() - wall
            self.processor += time.process_time() - processor


def measure(count: int, model_name: str, turns: int) -> dict[str, Any]:
    """Seconds and bytes for so many pictures, in this process."""
    import torch

    from csvae_hub import CSVAE

    torch.set_num_threads(1)
    model = CSVAE.from_pretrained(model_name, device="cpu")
    side, clock = model.config.image_size, Clock()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the highest so far
    before = status("VmRSS")
    for _ in edit_all(model, drawn(2 * BATCH, side)):  # what is done once
        pass
    assert count == sum(map(len, edit_all(model, clock.outside(drawn(count, side)))))
    peak = status("VmHWM")
    return {
        "seconds_a_picture": clock.wall / count,
        "processor_seconds_a_picture": clock.processor / count,
        "peak_bytes": peak,
        "bytes_over_before": peak - before,
        "bare_over_ours": beside_bare(model, turns),
    }


def beside_bare(model: Any, turns: int) -> float:
    """How many times as long as our edit the bare layers take: the median over the turns."""
    import torch
    from speed import bare_decode, bare_encode

    (images,) = drawn(BATCH, model.config.image_size)
    w = model.encode(images.float() / 255).w.flatten(1)

    def bare() -> object:
        z, _ = bare_encode(model, images.float() / 255).chunk(2, 1)
        return (bare_decode(model, z, w) * 255).round().byte()

    with torch.no_grad():
        seen = [(seconds(bare), seconds(lambda: next(edit_all(model, [images])))) for _ in range(turns + 1)]
    return statistics.median(bare / ours for bare, ours in seen[1:])


def seconds(call: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes."""
    start = time.process_time()
    call()
    return time.process_time() - start


def constancy(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The most of each figure over the least, over the numbers of pictures."""
    names = ("seconds_a_picture", "processor_seconds_a_picture", "peak_bytes", "bytes_over_before")
    return {name: max(one[name] for one in found.values()) / min(one[name] for one in found.values()) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="celeba-64", help="packaged weights of the backbone conv")
    parser.add_argument("--quick", action="store_true", help="few pictures and turns, to try the command")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/many.json"))
    arguments = parser.parse_args()
    if arguments.count:
        print(json.dumps(measure(arguments.count, arguments.model, 3 if arguments.quick else 30)))
        return
    import torch

    from csvae_hub import hub

    *smaller, greatest = QUICK_COUNTS if arguments.quick else COUNTS
    runs: dict[int, list[dict[str, Any]]] = {}
    command = [sys.executable, __file__, "--model", arguments.model, *["--quick"] * arguments.quick]
    before, after = (1, 0) if arguments.quick else (BEFORE, AFTER)
    for count in [*smaller * before, greatest, *smaller * after]:
        run = subprocess.run([*command, "--count", str(count)], capture_output=True, text=True, check=True)
        runs.setdefault(count, []).append(json.loads(run.stdout))
        print(count, runs[count][-1], flush=True)
    found = {
        str(count): {"runs": len(of), **{name: statistics.median(one[name] for one in of) for name in of[0]}}
        for count, of in runs.items()
    }
    about = {
        "command": shlex.join(["python", "benchmarks/many.py", *sys.argv[1:]]),
        "model": arguments.model,
        "batch": BATCH,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, one thread",
    }
    hub.write_json(arguments.output, {**about, "pictures": found, "most_over_least": constancy(found)})


if __name__ == "__main__":
    main()
