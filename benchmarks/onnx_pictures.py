"""Compares edited pictures: of the ONNX export with torch's, and of the export in int8 with the export in float32.

    python benchmarks/onnx_pictures.py --faces FOLDER -o docs/results/onnx-pictures.json

Each picture is edited by numbers between -0.5 and 1.5, two thirds of the attributes left as they are. `largest` is the
largest difference of any value of any picture, in levels of 255; `levels` the same after rounding to 8 bits.

The int8 graphs are decoders by `onnxruntime.quantization`, weights per channel; the encoder, which a photo needs once,
stays in float32. "dynamic" finds the range of the activations as it runs. "static" knows it from edits of pictures that
the model draws; "inner convolutions" leaves all else in float32, the first and the last convolution too; "16 bits" has
activations of 16 bits. `lowest` is the PSNR of the worst picture against the decoder in float32, in dB. Times are of
one picture and one thread, in turns.

Pictures are drawn faces, and with --faces those of the split "valid" of a data folder, which has attributes.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from einops import rearrange
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from csvae_hub import hub
from csvae_hub.data import SyntheticFaces
from csvae_hub.export import export_model
from csvae_hub.export.graphs import Edit, in_subspaces
from csvae_hub.models import AttributeModel, Latents
from csvae_hub.preprocessing import square_of

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]
MODELS = ("celeba-64", "celeba-128")
LIMIT = 40.0
"""Of the PSNR, in dB: pictures above it look the same."""
BATCH = 20
CALIBRATION = 25
"""Batches of 4 pictures."""


class Drawn(CalibrationDataReader):
    """Inputs for the calibration, of pictures that the model draws."""

    def __init__(self, feeds: list[Feed]) -> None:
        self.feeds = iter(feeds)

    def get_next(self) -> Feed | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next one."""
        return next(self.feeds, None)


def dynamic(source: Path, target: Path, _: list[Feed]) -> None:
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def static(
    activations: QuantType, operators: Sequence[str] | None = None, inner: bool = False
) -> Callable[[Path, Path, list[Feed]], None]:
    """Quantises operators, or all that can be; `inner` leaves the first and the last convolution in float32."""

    def quantise(source: Path, target: Path, feeds: list[Feed]) -> None:
        convolutions = [node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"]
        quantize_static(
            source,
            target,
            Drawn(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operators,
            nodes_to_exclude=[convolutions[0], convolutions[-1]] if inner else [],
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            extra_options={"UseQDQContribOps": True},
        )

    return quantise


WAYS = {
    "dynamic": dynamic,
    "static": static(QuantType.QUInt8),
    "static, inner convolutions": static(QuantType.QUInt8, ["Conv"], inner=True),
    "static, 16 bits": static(QuantType.QUInt16, ["Conv", "Gemm"]),
}


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(graph: onnxruntime.InferenceSession, feed: Feed) -> list[Array]:
    """The outputs, in batches that fit into memory."""
    total = len(next(iter(feed.values())))
    names = [its.name for its in graph.get_inputs()]
    parts = [graph.run(None, {n: feed[n][i : i + BATCH] for n in names}) for i in range(0, total, BATCH)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def valid(folder: Path, count: int, side: int) -> Array:
    """Pictures (count, 3, side, side) in [0, 1] of the split "valid"."""
    with (folder / "attributes.csv").open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == "valid"][:count]
    pictures = np.stack([np.asarray(square_of(Image.open(folder / "images" / name), side)) for name in names])
    return rearrange(pictures.astype(np.float32) / np.float32(255), "b h w c -> b c h w")


def drawn(count: int, side: int) -> Array:
    return SyntheticFaces(count, seed=1, image_size=side).batch(range(count))[0].numpy()


def edits(pictures: Array, attributes: int, seed: int = 0) -> Feed:
    """Pictures with the values of their edits."""
    generator = np.random.default_rng(seed)
    values = generator.uniform(-0.5, 1.5, (len(pictures), attributes)).astype(np.float32)
    values[generator.random(values.shape) < 2 / 3] = np.nan
    return {"x": pictures, "values": values}


def psnr(got: Array, wanted: Array) -> dict[str, float]:
    """Of each picture, in dB: the lowest and the median."""
    errors = ((got - wanted) ** 2).mean((1, 2, 3))
    each = (-10 * np.log10(np.maximum(errors, 1e-12))).tolist()
    return {"lowest": round(min(each), 2), "median": round(statistics.median(each), 2)}


def side_by_side(graphs: Sequence[onnxruntime.InferenceSession], feed: Feed) -> list[float]:
    """Milliseconds of one picture: the median of each graph, in turns."""
    one, times = {name: value[:1] for name, value in feed.items()}, []
    for _ in range(40):
        ends = [time.perf_counter()]
        for graph in graphs:
            run(graph, one)
            ends.append(time.perf_counter())
        times.append(np.diff(ends))
    return [round(1000 * each, 2) for each in np.median(times, axis=0).tolist()]


def megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 1)


def in_float32(model: AttributeModel, folder: Path, feed: Feed) -> dict[str, Any]:
    """The export beside torch."""
    module = Edit(model).eval()
    (got,) = run(session(folder / "edit.onnx"), feed)
    batches = zip(*(torch.from_numpy(feed[name]).split(BATCH) for name in ("x", "values")), strict=True)
    with torch.no_grad():
        wanted = torch.cat([module(*batch) for batch in batches]).numpy()
    difference = np.abs(got - wanted)
    levels = np.abs(np.rint(got * 255) - np.rint(wanted * 255))
    return {"pictures": len(got), "largest": float(f"{255 * difference.max():.2g}"), "levels": int(levels.max())}


def codes(model: AttributeModel, feed: Feed) -> Feed:
    """The code of pictures after their edits."""
    with torch.no_grad():
        parts = torch.from_numpy(feed["x"]).split(BATCH)
        moved = in_subspaces(
            model, Latents.cat([model.encode(part) for part in parts]), torch.from_numpy(feed["values"])
        )
    return {"z": moved.z.numpy(), "w": moved.w.numpy()}


def in_int8(model: AttributeModel, folder: Path, feeds: dict[str, Feed]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The decoder of each way beside the one in float32."""
    samples = [model.sample(4, generator=torch.Generator().manual_seed(i)).numpy() for i in range(CALIBRATION)]
    calibration = [codes(model, edits(its, len(model.attributes), seed)) for seed, its in enumerate(samples, 1)]
    moved = {kind: codes(model, feed) for kind, feed in feeds.items()}
    source, prepared, target = (folder / f"{name}.onnx" for name in ("decoder", "prepared", "int8"))
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    exact = session(source)
    wanted = {kind: run(exact, feed)[0] for kind, feed in moved.items()}
    for way, quantise in WAYS.items():
        quantise(prepared, target, calibration)
        graph = session(target)
        found = {kind: psnr(run(graph, feed)[0], wanted[kind]) for kind, feed in moved.items()}
        times = side_by_side([graph, exact], next(iter(moved.values())))
        yield (
            way,
            {
                **found,
                "looks_the_same": all(its["lowest"] >= LIMIT for its in found.values()),
                "megabytes": {"int8": megabytes(target), "float32": megabytes(source)},
                "milliseconds": dict(zip(("int8", "float32"), times, strict=True)),
            },
        )


def measure(name: str, faces: Path | None, count: int) -> dict[str, Any]:
    model = AttributeModel.from_pretrained(name, device="cpu")
    side, k = model.preprocessor.size, len(model.attributes)
    feeds = {"drawn faces": edits(drawn(count, side), k)}
    if faces is not None:
        feeds["faces"] = edits(valid(faces, count, side), k)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        export_model(name, folder)
        return {
            "onnx_and_torch": {kind: in_float32(model, folder, feed) for kind, feed in feeds.items()},
            "int8": dict(in_int8(model, folder, feeds)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, help="a data folder with aligned faces")
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/onnx-pictures.json"))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantiser's advice
    result = {
        "command": shlex.join(["python", "benchmarks/onnx_pictures.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "machine": platform.machine(),
        "limit_db": LIMIT,
        **{name: measure(name, arguments.faces, arguments.count) for name in MODELS},
    }
    hub.write_json(arguments.output, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
