"""Reads the same pictures as a folder, as parquet files and as tar files: the same epoch, and how much memory it takes.

    python benchmarks/streaming.py -o docs/results/streaming.json

Drawn faces of 64 pixels, 1,000 and 5,000 of them, as PNG files. Each source is read into an empty cache, and an epoch
of batches is drawn from it, in a process of its own. Memory is what the process adds to its size after the imports:
`reading` is its peak while the source is read; `epoch` is the peak in the epoch of what is its own, without the pages
of the mapped cache, which the system takes back when it needs them (`mapped`). Needs the extra `data`; Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import webdataset
from PIL import Image

from csvae_hub import hub
from csvae_hub.data import AttributeData, SyntheticFaces, load_data
from csvae_hub.training.config import batch_order

COUNTS, SIZE, BATCH = (1_000, 5_000), 64, 64
KINDS = {"folder": "{}", "parquet": "hf:{}", "shards": "wds:{}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    found: dict[str, Any] = {"command": shlex.join(["python", "benchmarks/streaming.py", *sys.argv[1:]]), "runs": {}}
    found["versions"] = {"python": platform.python_version(), "datasets": datasets.__version__}
    found["versions"]["webdataset"] = webdataset.__version__
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as name:
            write(SyntheticFaces(count, 0, SIZE), Path(name))
            for kind, spec in KINDS.items():
                words = [sys.executable, __file__, "--measure", spec.format(f"{name}/{kind}")]
                run = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
                found["runs"].setdefault(kind, {})[str(count)] = run
                print(count, kind, run, flush=True)
    by_count = [{run[str(count)]["epoch_sha256"] for run in found["runs"].values()} for count in COUNTS]
    found["same_epoch"] = all(len(digests) == 1 for digests in by_count)
    if arguments.output is not None:
        hub.write_json(arguments.output, found)


def write(data: AttributeData, folder: Path) -> None:
    """The faces as a folder with a table, as a parquet file in groups of 100 rows, and as two tar files."""
    for kind in KINDS:
        (folder / kind).mkdir()
    (folder / "folder/images").mkdir()
    files = [png(data, i) for i in range(len(data))]
    names = [f"{i:06}" for i in range(len(data))]
    table = ["file," + ",".join(data.attributes)]
    for name, content, labels in zip(names, files, data.labels.astype(int).tolist(), strict=True):
        (folder / f"folder/images/{name}.png").write_bytes(content)
        table.append(f"{name}.png,{','.join(map(str, labels))}")
    (folder / "folder/attributes.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    columns = {name: (data.labels[:, i] == 1).tolist() for i, name in enumerate(data.attributes)}
    pictures = [{"bytes": content, "path": f"{name}.png"} for name, content in zip(names, files, strict=True)]
    features = datasets.Features({"image": datasets.Image(), **{name: datasets.Value("bool") for name in columns}})
    made = datasets.Dataset.from_dict({"image": pictures, **columns}, features)
    made.to_parquet(folder / "parquet/train.parquet", batch_size=100)
    with webdataset.ShardWriter(str(folder / "shards/%06d.tar"), maxcount=len(data) // 2, verbose=0) as shards:
        for i, (name, content) in enumerate(zip(names, files, strict=True)):
            told = {attribute: values[i] for attribute, values in columns.items()}
            shards.write({"__key__": name, "png": content, "json": json.dumps(told).encode()})


def png(data: AttributeData, row: int) -> bytes:
    """A face as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(data.images[row].transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def measure(spec: str) -> dict[str, Any]:
    """Megabytes of one source, in this process."""
    if spec.startswith("hf:"):
        datasets.IterableDataset  # noqa: B018  what it imports is no memory of the data
    with tempfile.TemporaryDirectory() as cache:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the highest so far
        before = status("VmRSS")
        data = load_data(spec, image_size=SIZE, cache_dir=cache)
        reading, own, digest = status("VmHWM"), 0.0, hashlib.sha256()
        anonymous = status("RssAnon")
        for rows in batch_order(len(data), 0, 0).split(BATCH):
            for part in data.batch(rows):
                digest.update(part.numpy().tobytes())
            own = max(own, status("RssAnon"))
        return {
            "reading": round(reading - before, 1),
            "epoch": round(own - anonymous, 1),
            "mapped": round(data.images.nbytes / 2**20, 1),
            "epoch_sha256": digest.hexdigest(),
        }


def status(name: str) -> float:
    """A size of this process in megabytes, as the system tells it."""
    found = re.search(rf"{name}:\s*(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
