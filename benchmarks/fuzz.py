"""Spoilt weights folders: whatever happened to its files, loading one gives a named error or a correct model.

    python benchmarks/fuzz.py --files 10000 -o docs/results/fuzz.json

The folders of tests/data/format-1 are spoilt by a seeded generator: folder number i of a seed is always the same, and
`--only I ...` describes and loads these alone. Each is loaded in a worker whose memory and time are limited. What is
neither a named error nor a correct model is a finding, and the script then ends with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import shlex
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from mutations import FILES, Files, parts, spoil
from torch import Tensor

from csvae_hub import hub
from csvae_hub.config import to_dict
from csvae_hub.errors import ConfigError, WeightsError
from csvae_hub.models import AttributeModel
from csvae_hub.models.pretrained import LATER

FOLDERS = Path(__file__).resolve().parents[1] / "tests/data/format-1"
SECONDS, PATIENCE = 5, 300
"""Limits of one load: of CPU time, and of time on the wall, where the machine may be busy with other things."""
GROWTH, ADDRESSES = 128 << 20, 1 << 30
"""Limits of what a load may add: to the memory in use (else it is a finding), and to the addresses (else it fails)."""


def read_folders() -> dict[str, Files]:
    """The files of each whole folder."""
    return {path.name: {name: (path / name).read_bytes() for name in FILES} for path in sorted(FOLDERS.iterdir())}


def load(folder: Path) -> AttributeModel:
    """The model of a folder."""
    return AttributeModel.from_pretrained(folder, device="cpu")


# -- the verdict ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """The outcome of one spoilt folder; `finding` says what is wrong with that, if anything is."""

    index: int
    words: str
    outcome: str
    finding: str = ""
    seconds: float = 0.0
    growth: int = 0


class Judge:
    """Loads spoilt folders, one after the other, in this process."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.folders = read_folders()
        self.whole = {name: load(FOLDERS / name) for name in self.folders}
        self.pictures = {name: model.reconstruct(_some(model)) for name, model in self.whole.items()}

    def __call__(self, index: int) -> Verdict:
        """The verdict on spoilt folder number `index`."""
        base, files, words = spoil(self.folders, self.seed, index)
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        start, before = time.process_time(), _memory(reset=True)
        outcome, finding, model = "", "", None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                model = load(self.folder)
        except (WeightsError, ConfigError) as error:
            outcome = type(error).__name__
        except Exception as error:
            outcome = finding = f"{type(error).__name__}: {str(error)[:300]}"
        seconds, growth = time.process_time() - start, _memory() - before
        if model is not None:
            try:
                outcome, finding = self.check(model, base, files)
            except Exception as error:
                outcome = finding = f"{type(error).__name__}: {str(error)[:300]}"
        if growth > GROWTH:
            finding = finding or f"{growth >> 20} MiB of memory"
        return Verdict(index, words, "finding" if finding else outcome, finding, seconds, growth)

    def check(self, model: AttributeModel, base: str, files: Files) -> tuple[str, str]:
        """Compares a model with its files: outcome and finding."""
        state = model.state_dict()
        later = {name: torch.zeros_like(state[name]) for name in LATER if name in state}
        stored = later | tensors(files[hub.WEIGHTS])
        said = {name: json.loads(files[name]) for name in (hub.CONFIG, hub.PREPROCESSOR)}
        for name, fields, content in (
            (hub.CONFIG, hub.upgraded(said[hub.CONFIG]), model.config),
            (hub.PREPROCESSOR, said[hub.PREPROCESSOR], model.preprocessor),
        ):
            if not _agrees(fields, to_dict(content)):
                return "", f"{name} says other than the model has"
        if state.keys() != stored.keys() or not all(
            torch.equal(state[name], stored[name].to(state[name])) for name in state
        ):
            return "", "other tensors than in the file"
        if not all(tensor.isfinite().all() for tensor in state.values()):
            return "", "numbers that are not finite"
        whole = self.whole[base]
        try:
            picture = model.reconstruct(_some(model))
        except Exception as error:
            return "", f"can't decode: {type(error).__name__}: {str(error)[:300]}"
        if picture.shape != _some(model).shape:
            return "", f"a picture of shape {tuple(picture.shape)}"
        known = whole.state_dict()
        same = model.config == whole.config and all(
            torch.equal(known[name], state.get(name, known[name])) for name in known
        )
        if same and not torch.equal(picture, self.pictures[base]):
            return "", "other pictures from the same weights"
        return "the same model" if same else "a model of other numbers", ""


def tensors(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file by a reader of our own."""
    types = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "U8": "uint8", "BOOL": "bool"}
    header, body = parts(data)
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = getattr(torch, types.get(entry["dtype"]) or entry["dtype"].replace("I", "int"))
            flat = (
                torch.frombuffer(bytearray(body[begin:end]), dtype=dtype)
                if end > begin
                else torch.empty(0, dtype=dtype)
            )
            found[name] = flat.reshape(entry["shape"])
    return found


def _some(model: AttributeModel) -> Tensor:
    """Two inputs."""
    return torch.linspace(0, 1, 2 * torch.Size(model.config.shape).numel()).reshape(2, *model.config.shape)


def _agrees(said: Any, has: Any) -> bool:
    """True where all that a JSON value says is so; the rest has a default."""
    if isinstance(said, dict) and isinstance(has, dict):
        return all(key in has and _agrees(value, has[key]) for key, value in said.items())
    return said == has


def _memory(reset: bool = False) -> int:
    """The largest size of this process in memory, in bytes, since the last reset; 0 where Linux doesn't say."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


# -- workers ----------------------------------------------------------------------------------------------------------


def work(connection: Connection, seed: int) -> None:
    """Judges the indices that come, each within limits that kill the process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(seed, Path(folder))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESSES, resource.RLIM_INFINITY))
        connection.send(None)
        while (index := connection.recv()) is not None:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            verdict = judge(index)
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send(verdict)


class Worker:
    """A process that judges, replaced when it is killed or hangs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.start()

    def start(self) -> None:
        """Starts the process and waits until it is ready."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.seed), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()

    def judge(self, indices: Iterable[int]) -> Iterator[Verdict]:
        """The verdict on each spoilt folder."""
        for index in indices:
            self.connection.send(index)
            verdict = self.answer()
            if isinstance(verdict, str):
                yield Verdict(index, spoil(read_folders(), self.seed, index)[2], "finding", verdict)
                self.start()
            else:
                yield verdict
        self.connection.send(None)
        self.process.join()

    def answer(self) -> Verdict | str:
        """The process's verdict, or what became of the process."""
        try:
            if self.connection.poll(PATIENCE):
                return self.connection.recv()
        except EOFError:
            self.process.join()
            code = -(self.process.exitcode or 0)
            return f"more than {SECONDS} s of CPU time" if code == signal.SIGPROF else f"crash: exit code {-code}"
        self.process.kill()
        return f"no answer in {PATIENCE} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="how many spoilt folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", help="these indices alone, each described")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    indices = range(arguments.files) if arguments.only is None else arguments.only
    shares = [indices[i :: arguments.workers] for i in range(arguments.workers)]
    outcomes: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    slowest = largest = Verdict(-1, "", "")
    one_at_a_time = Lock()
    with ThreadPoolExecutor(arguments.workers) as pool:

        def follow(share: Iterable[int]) -> None:
            nonlocal slowest, largest
            for verdict in Worker(arguments.seed).judge(share):
                with one_at_a_time:
                    outcomes[verdict.outcome] += 1
                    slowest = max(slowest, verdict, key=lambda v: v.seconds)
                    largest = max(largest, verdict, key=lambda v: v.growth)
                    if verdict.finding:
                        findings.append(asdict(verdict))
                    if verdict.finding or arguments.only is not None:
                        print(json.dumps(asdict(verdict)), flush=True)

        list(pool.map(follow, shares))
    result = {
        "command": shlex.join(["python", "benchmarks/fuzz.py", *sys.argv[1:]]),
        "files": len(indices),
        "seed": arguments.seed,
        "outcomes": dict(sorted(outcomes.items())),
        "findings": sorted(findings, key=lambda finding: finding["index"]),
        "slowest": asdict(slowest),
        "largest": asdict(largest),
        "limits": {"cpu_seconds": SECONDS, "memory_growth_bytes": GROWTH},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    print(json.dumps({key: value for key, value in result.items() if key != "findings"}, indent=2))
    if arguments.output is not None:
        hub.write_json(arguments.output, result)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
