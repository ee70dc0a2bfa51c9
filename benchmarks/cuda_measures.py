"""How `cuda.py` times, counts and writes down."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

ROOT = Path(__file__).resolve().parents[1]
Calls = dict[str, Callable[[], object]]
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")


@dataclass(frozen=True)
class Setting:
    """What is measured: sizes, and the seconds for one row of a table."""

    device: torch.device
    quick: bool
    seconds: float

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes of encode, decode and edit; the first is timed call by call."""
        return (1, 2, 4) if self.quick else (1, 64, 512)

    @property
    def training_batches(self) -> tuple[int, ...]:
        """Batch sizes of the training step."""
        return (4,) if self.quick else (64, 128)

    @property
    def row(self) -> float:
        """Seconds for a row: a sixtieth of all, since the start, the tests and the compiler take most."""
        return 0.05 if self.quick else self.seconds / 60

    def synchronise(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Record:
    """The results by section, written after each to a temporary name that takes the place of the file."""

    def __init__(self, path: Path, started: float) -> None:
        self.path, self.started = path, started
        self.found: dict[str, Any] = {}

    def add(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measures a section; what goes wrong is written in its place."""
        try:
            self.found[name] = measure()
        except Exception as error:
            where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            self.found[name] = {"failed": f"{type(error).__name__}: {str(error)[:500]}", "where": where[-3:]}
        self.found["seconds"] = round(time.monotonic() - self.started, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.part")
        temporary.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)
        print(f"{self.found['seconds']:6.1f} s  {name}  {self.found[name].get('failed', '')}", flush=True)


def in_turns(calls: Calls, setting: Setting, repeats: int, warm: int = 3) -> dict[str, float]:
    """Median seconds of each call; each is warmed up, then all are timed in turns until the row's time is up."""
    repeats, warm = (1, min(warm, 1)) if setting.quick else (repeats, warm)
    for call in calls.values():
        for _ in range(warm):
            call()
    took: dict[str, list[float]] = {name: [] for name in calls}
    setting.synchronise()
    end, rounds = time.perf_counter() + setting.row, 0
    while rounds < 3 or (time.perf_counter() < end and rounds < 500):
        rounds += 1
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            setting.synchronise()
            took[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(times) for name, times in took.items()}


class Work(TorchDispatchMode):
    """Adds up the floating point operations of convolutions and products, and the bytes that operations move.

    Each operation reads its inputs and writes its results; views have none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
        if not any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns):
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return result


def counted(call: Callable[[], object]) -> tuple[int, int]:
    """Floating point operations of a call, and the bytes that its operations read and write."""
    with Work() as work:
        call()
    return work.flops, work.bytes


def traced(call: Callable[[], object], setting: Setting, steps: int) -> dict[str, Any]:
    """Launches of kernels, and synchronisations with the lines of csvae_hub that cause them, for one of `steps`."""
    if setting.device.type != "cuda":
        return {"launches": {"failed": "needs CUDA"}, "synchronisations": {"failed": "needs CUDA"}}
    call()
    lines: Counter[str] = Counter()
    with synchronisations(lines):
        call()
    setting.synchronise()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        setting.synchronise()
    launches = sum(event.count for event in profile.key_averages() if event.key.startswith(LAUNCHES))
    return {
        "launches": launches / steps,
        "synchronisations": lines.total() / steps,
        "lines": {line: count / steps for line, count in lines.most_common()},
    }


@contextmanager
def synchronisations(lines: Counter[str]) -> Iterator[None]:
    """Counts by line of csvae_hub the calls that wait for the GPU."""

    def note(message: Warning | str, *_: Any) -> None:
        if "called a synchronizing" not in str(message):
            return
        frames = traceback.extract_stack()[:-1]
        ours = [f for f in frames if "csvae_hub" in Path(f.filename).parts]
        frame = (ours or frames)[-1]
        lines[f"{frame.filename.removeprefix(f'{ROOT}/')}:{frame.lineno} {frame.line}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def run(command: list[str], seconds: float) -> dict[str, Any]:
    """The exit code and the last lines of a command that runs at the root, at most so long."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=seconds, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except subprocess.TimeoutExpired as late:
        tail = (late.stdout or b"").decode(errors="replace").splitlines()[-15:]
        return {"failed": f"took longer than {seconds:.0f} s", "tail": tail}
    return {"code": done.returncode, "tail": done.stdout.decode(errors="replace").splitlines()[-40:]}


def table(found: dict[str, Any]) -> None:
    """Prints the results in short."""
    print(f"\n{found['machine'].get('device')}  {found['limits']}")
    print(f"{'':16}{'':16}{'ms':>10}{'pictures/s':>12}{'of bare':>9}{'of flops':>9}{'of bytes':>9}")
    for row, calls in found.items():
        if not row.startswith(("float32", "bfloat16")):
            continue
        for name, one in calls.items():
            if "of_bare" in one:
                shares = f"{one['of_bare']:9.2f}{one['share_of_arithmetic']:9.3f}{one['share_of_bandwidth']:9.3f}"
                print(f"{row:16}{name:16}{1e3 * one['seconds']:10.3f}{one['pictures_a_second']:12.0f}{shares}")
    for name in found:
        if name.startswith(("training", "edit traced", "agreement", "compiled", "memory")):
            print(f"{name}: {json.dumps({k: v for k, v in found[name].items() if k != 'tail'})[:600]}")
    print("tests:", found["tests"].get("failed", ""), *found["tests"].get("tail", [""])[-1:])
