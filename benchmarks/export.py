"""Times one edit in a fresh process, through `csvae_hub.onnx` beside torch, and the memory that it takes.

    python benchmarks/export.py -o docs/results/export.json

Each edit is of one aligned picture, from the start of Python to the edited picture in memory, in a process of its own,
with the threads that each library chooses. The two ways take turns, after one round that fills the system's cache and
does not count. Medians are of all turns; a ratio is the median of the turns' own ratios. `inside` begins where Python
has started. `warm` is one further edit in the same process. Linux only: memory is the process's peak in /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
PICTURE = Path(__file__).resolve().parents[1] / "examples/astronaut.png"
START = "import time; start = time.perf_counter()"
EDIT = """
model.set_attribute(picture, "Eyeglasses", True)
cold = time.perf_counter()
model.set_attribute(picture, "Eyeglasses", True)
warm = time.perf_counter() - cold
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
print(json.dumps({"warm": warm, "peak_bytes": peak, "inside": cold - start}))
"""
LOAD = {
    "onnx": "from csvae_hub.onnx import OnnxModel\nmodel = OnnxModel.from_folder(folder)",
    "torch": "from csvae_hub import CSVAE\nmodel = CSVAE.from_pretrained(folder, device='cpu')",
}


def measure(way: str, folder: Path) -> dict[str, float]:
    """Seconds and bytes of one edit in a fresh process."""
    setting = f"import json, sys\nfrom PIL import Image\npicture, folder = Image.open({str(PICTURE)!r}), sys.argv[1]"
    code = "\n".join([START, setting, LOAD[way], EDIT])
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {"whole_process": time.perf_counter() - start, **json.loads(run.stdout)}


def summary(folders: dict[str, Path], rounds: int) -> dict[str, object]:
    """Medians over fresh processes, and the ratios of onnx to torch."""
    turns = [{way: measure(way, folder) for way, folder in folders.items()} for _ in range(rounds + 1)][1:]
    keys = turns[0]["onnx"]
    return {
        "medians": {way: {key: statistics.median(turn[way][key] for turn in turns) for key in keys} for way in folders},
        "onnx_over_torch": {
            key: statistics.median(turn["onnx"][key] / turn["torch"][key] for turn in turns) for key in keys
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="celeba-64", help="a packaged model")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fresh processes for each way")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/export.json"))
    arguments = parser.parse_args()
    import onnxruntime
    import torch

    from csvae_hub import hub
    from csvae_hub.export import export_model

    with tempfile.TemporaryDirectory() as temporary:
        export_model(arguments.model, temporary)
        folders = {"onnx": Path(temporary), "torch": hub.resolve(arguments.model)}
        result = summary(folders, arguments.rounds)
    about = {
        "command": shlex.join(["python", "benchmarks/export.py", *sys.argv[1:]]),
        "model": arguments.model,
        "rounds": arguments.rounds,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end",
    }
    hub.write_json(arguments.output, {**about, **result})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
