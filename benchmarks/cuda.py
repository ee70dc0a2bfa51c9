"""Measures the packaged weights and a training step on a CUDA GPU, and runs the tests that need one: one command.

    python benchmarks/cuda.py -o OUT.json [--seconds 45] [--device cuda]
    python benchmarks/cuda.py -o OUT.json --device cpu --quick       # tries the command, tiny

Times are medians; those of one table row are taken in turns. A call is timed from before it to the end of its work on
the device, at a batch of 1 alone, else several calls in a row. Ours is the public API on tensors of the device; bare is
the backbone's encode and decode on the same tensors; edit is an encode and two decodes. The limits are a copy (bytes
read and written) and a product of bfloat16 matrices, measured here. `traffic` adds up what each operation reads and
writes. OUT.json is renewed after each section, and a section that fails says so there. It needs no installed csvae-hub:
the folder above is on the path.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from cuda_measures import Calls, Record, Setting, counted, in_turns, run, table, traced  # noqa: E402

import csvae_hub  # noqa: E402
from csvae_hub.data import AttributeData  # noqa: E402
from csvae_hub.models import AttributeModel  # noqa: E402
from csvae_hub.training import load_recipe  # noqa: E402
from csvae_hub.training.recipes import objective_of  # noqa: E402
from csvae_hub.training.trainer import Trainer  # noqa: E402

WEIGHTS, NAME = "celeba-64", "Eyeglasses"
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
PERIOD = 16
"""Batches after which a training step of the recipe repeats: R1 comes every 16th, the eraser's solution every 8th."""


def main() -> None:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=45.0, help="for all, about; the compiler needs a minute more")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few repeats, to try the command")
    parser.add_argument("--compiled", action="store_true", help="only the compiled edit, whose JSON is printed")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "1"
    setting = Setting(torch.device(arguments.device), arguments.quick, arguments.seconds)
    if arguments.compiled:
        print(json.dumps(compiled(setting)))
        return
    record = Record(arguments.out, started)
    record.add("machine", lambda: machine(setting))
    record.add("limits", lambda: limits(setting))
    limit = record.found["limits"]
    for batch in setting.batches:
        for precision in PRECISIONS:
            record.add(f"{precision} {batch}", lambda b=batch, p=precision: weights_row(setting, p, b, limit))
    record.add("agreement", lambda: agreement(setting))
    record.add("edit traced", lambda: edit_traced(setting))
    for batch in setting.training_batches:
        record.add(f"training {batch}", lambda b=batch: training(setting, b, limit))
    record.add("memory", lambda: {"peak_bytes": torch.cuda.max_memory_allocated(setting.device)})
    left = arguments.seconds - (time.monotonic() - started)
    record.add("tests", lambda: tests(max(15.0, left)))
    left = arguments.seconds - (time.monotonic() - started)
    record.add("compiled", lambda: in_a_process(arguments, max(10.0, left)))
    table(record.found)


def machine(setting: Setting) -> dict[str, Any]:
    """The device and the versions."""
    found: dict[str, Any] = {"device": "cpu", "torch": torch.__version__, "python": platform.python_version()}
    found |= {"csvae-hub": csvae_hub.__version__, "tf32_convolutions": torch.backends.cudnn.allow_tf32}
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setting.device)
        found |= {"device": properties.name, "bytes": properties.total_memory, "cuda": torch.version.cuda}
        found |= {"cudnn": torch.backends.cudnn.version(), "processors": properties.multi_processor_count}
    return found


def limits(setting: Setting) -> dict[str, Any]:
    """Bytes a second of a copy and operations a second of a product of bfloat16 matrices."""
    size, side = (2**22, 256) if setting.quick else (2**30, 8192)
    source = torch.empty(size, dtype=torch.uint8, device=setting.device).random_(0, 255)
    target = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    took = in_turns({"copy": lambda: target.copy_(source), "product": lambda: a @ b}, setting, 8)
    return {"bytes_a_second": 2 * size / took["copy"], "flops_a_second": 2 * side**3 / took["product"]}


def weights_row(setting: Setting, precision: str, batch: int, limit: dict[str, float]) -> dict[str, Any]:
    """Seconds of encode, decode, set_attribute and edit, ours and bare, their work, and shares of the limits."""
    calls = weights_calls(load(setting), setting, precision, batch)
    with torch.no_grad():
        work = {name: counted(call) for name, call in calls.items()}
    took = in_turns(calls, setting, 1 if batch == 1 else 8)
    found: dict[str, Any] = {}
    for name, seconds in took.items():
        flops, traffic = work[name]
        found[name] = {
            "seconds": seconds,
            "pictures_a_second": batch / seconds,
            "flops": flops,
            "traffic": traffic,
            "share_of_arithmetic": flops / seconds / limit.get("flops_a_second", torch.nan),
            "share_of_bandwidth": traffic / seconds / limit.get("bytes_a_second", torch.nan),
        }
    for name in ("encode", "decode", "set_attribute", "edit"):
        found[name]["of_bare"] = took[f"bare {name}"] / took[name]
    return found


def weights_calls(model: AttributeModel, setting: Setting, precision: str, batch: int) -> Calls:
    """The calls of a row, ours and bare, on a batch of the model's own faces."""
    generator = torch.Generator().manual_seed(0)
    x = model.sample(batch, generator=generator).contiguous(memory_format=torch.channels_last)
    backbone, last = model.backbone, copy.deepcopy(model.backbone).to(memory_format=torch.channels_last)
    with torch.no_grad():
        latents = model.encode(x)
    z, w = latents.z.clone(), latents.w.flatten(1).clone()

    def edit() -> None:
        found = model.encode(x)
        model.decode(found)
        model.decode(model.set_attribute(found, NAME))

    def bare_edit() -> None:
        backbone.encode(x)
        backbone.decode(z, w)
        backbone.decode(z, w)

    calls: Calls = {
        "encode": lambda: model.encode(x),
        "bare encode": lambda: backbone.encode(x),
        "bare encode, weights channels-last": lambda: last.encode(x),
        "decode": lambda: model.decode(latents),
        "bare decode": lambda: backbone.decode(z, w),
        "bare decode, weights channels-last": lambda: last.decode(z, w),
        "set_attribute": lambda: model.set_attribute(x, NAME),
        "bare set_attribute": lambda: (backbone.encode(x), backbone.decode(z, w)),
        "edit": edit,
        "bare edit": bare_edit,
    }
    return {name: cast(call, setting, precision) for name, call in calls.items()}


def cast(call: Callable[[], object], setting: Setting, precision: str) -> Callable[[], object]:
    """The call in a precision, without gradients."""
    dtype = PRECISIONS[precision]

    def run() -> None:
        with torch.no_grad(), torch.autocast(setting.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            call()

    return run


def agreement(setting: Setting) -> dict[str, Any]:
    """The largest and the mean difference of edited pictures, in 1/255, from those of the CPU in float32."""
    model, n = load(setting), 4 if setting.quick else 32
    on_cpu = AttributeModel.from_pretrained(WEIGHTS, device="cpu")
    with torch.no_grad():
        x = on_cpu.sample(n, generator=torch.Generator().manual_seed(1))
        expected, found = on_cpu.set_attribute(x, NAME), {}
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            with torch.autocast(setting.device.type, dtype, enabled=dtype != torch.float32):
                edited = model.set_attribute(x.to(setting.device), NAME)
            off = 255 * (edited.cpu().float() - expected).abs()
            found[str(dtype).removeprefix("torch.")] = {"largest": off.max().item(), "mean": off.mean().item()}
    return found


def edit_traced(setting: Setting) -> dict[str, Any]:
    """Launches and synchronisations of encode, set_attribute on the latents, decode."""
    model = load(setting)
    x = torch.rand(setting.batches[1], 3, 64, 64, device=setting.device)

    def edit() -> None:
        with torch.no_grad():
            model.decode(model.set_attribute(model.encode(x), NAME))

    return traced(edit, setting, 1)


def training(setting: Setting, batch: int, limit: dict[str, float]) -> dict[str, Any]:
    """Pictures a second, launches and synchronisations of a training step of the recipe, on random pictures."""
    recipe = load_recipe(WEIGHTS)
    rng, names, n = np.random.default_rng(0), recipe.model.attributes, 4 * batch
    labels = rng.integers(0, 2, (n, len(names))).astype(np.float32)
    data = AttributeData(rng.integers(0, 256, (n, *recipe.model.shape), dtype=np.uint8), labels, names)
    torch.manual_seed(0)
    trainer = Trainer(objective_of(recipe, data), replace(recipe.trainer, batch_size=batch), data, quiet=True)
    trainer.last_batch = trainer.rest_at = 10**6
    assert trainer.device.type == setting.device.type, f"accelerate chose {trainer.device}"
    x = torch.from_numpy(data.images[:batch]).to(trainer.device).float() / 255
    x, y = x.contiguous(memory_format=trainer.memory_format), torch.from_numpy(labels[:batch]).to(trainer.device)
    count, steps = iter(range(10**6)), 2 if setting.quick else PERIOD

    def some_steps() -> None:
        for _ in range(steps):
            trainer.train_step(x, y, next(count))

    flops, traffic = counted(some_steps)  # and warms up
    seconds = in_turns({"steps": some_steps}, setting, 1, warm=0)["steps"] / steps
    return {
        "seconds": seconds,
        "pictures_a_second": batch / seconds,
        "flops": flops / steps,
        "traffic": traffic / steps,
        "share_of_arithmetic": flops / steps / seconds / limit.get("flops_a_second", torch.nan),
        "share_of_bandwidth": traffic / steps / seconds / limit.get("bytes_a_second", torch.nan),
        **traced(some_steps, setting, steps),
    }


def tests(seconds: float) -> dict[str, Any]:
    """The tests marked `gpu`: only their files are read, since others need more packages."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    assert files, "no test is marked gpu"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    return run(command, seconds)


def in_a_process(arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """The compiled edit, in a process that can be stopped."""
    command = [sys.executable, __file__, "-o", str(arguments.out), "--device", arguments.device, "--compiled"]
    found = run([*command, "--seconds", str(arguments.seconds), *(["--quick"] if arguments.quick else [])], seconds)
    if found.get("code") != 0:
        errors = [line for line in found.get("tail", []) if "Error" in line or "error:" in line]
        return {"failed": (errors or found.get("tail") or [found["failed"]])[-1], **found}
    return json.loads(found["tail"][-1])


def compiled(setting: Setting) -> dict[str, Any]:
    """Seconds of set_attribute at a batch of 1 and of 64: as it is, and compiled with CUDA graphs."""
    torch.set_grad_enabled(False)
    eager, found = load(setting), {}
    has_option = "compile" in inspect.signature(AttributeModel.from_pretrained).parameters
    options: Any = {"compile": True}
    if has_option:
        call = AttributeModel.from_pretrained(WEIGHTS, device=setting.device, **options).set_attribute
    else:
        call = torch.compile(load(setting).set_attribute, mode="reduce-overhead", dynamic=False)
    for batch in setting.batches[:2]:
        x = torch.rand(batch, 3, 64, 64, device=setting.device)
        first = time.perf_counter()
        call(x, NAME)
        setting.synchronise()
        first = time.perf_counter() - first
        took = in_turns(
            {"eager": lambda x=x: eager.set_attribute(x, NAME), "compiled": lambda x=x: call(x, NAME)}, setting, 1
        )
        found[str(batch)] = {"first_call": first, **took}
    return {"from_pretrained(compile=True)": has_option, **found}


def load(setting: Setting) -> AttributeModel:
    """The packaged weights on the device."""
    return AttributeModel.from_pretrained(WEIGHTS, device=setting.device)


if __name__ == "__main__":
    main()
