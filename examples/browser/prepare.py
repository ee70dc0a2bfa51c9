"""Puts what the page needs beside it, into files/: the runtime, the exported models, the detector, the example photo.

    python examples/browser/prepare.py                              # celeba-128 and celeba-64
    python examples/browser/prepare.py --model my/weights           # a folder, a packaged name or a Hub repo

Needs npm, which fetches onnxruntime-web (MIT licence) from its registry, and the extra `export`. The page itself
fetches nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from csvae_hub.editing.detection import MODEL as DETECTOR
from csvae_hub.export import export_model

HERE = Path(__file__).resolve().parent
RUNTIME = "onnxruntime-web@1.30.0"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the package, as the registry states it."""
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
GRAPHS = ("encoder.onnx", "decoder.onnx", "onnx.json")
"""Of an export; the page has no use for edit.onnx."""


def fetch_runtime(target: Path) -> None:
    """Unpacks the two files of onnxruntime-web that the page loads."""
    if all((target / name).is_file() for name in RUNTIME_FILES):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing: expected it to fetch onnxruntime-web; install Node.js, which brings it")
    with tempfile.TemporaryDirectory() as temporary:
        packed = subprocess.run(
            [npm, "pack", RUNTIME, "--silent"], cwd=temporary, capture_output=True, text=True, check=False
        )
        files = list(Path(temporary).glob("*.tgz"))
        if packed.returncode or len(files) != 1:
            raise SystemExit(f"npm pack {RUNTIME} failed: {packed.stderr.strip() or packed.stdout.strip()}")
        digest = base64.b64encode(hashlib.sha512(files[0].read_bytes()).digest()).decode()
        if digest != INTEGRITY:
            raise SystemExit(f"{RUNTIME}: expected a package of SHA-512 {INTEGRITY}, got {digest}: nothing was kept")
        with tarfile.open(files[0]) as package:
            for name in RUNTIME_FILES:
                content = package.extractfile(f"package/dist/{name}")
                assert content is not None
                (target / name).write_bytes(content.read())


def add_model(name: str, target: Path) -> str:
    """Exports a model; gives the name of its folder."""
    folder = Path(name).name
    with tempfile.TemporaryDirectory() as temporary:
        export_model(name, temporary)
        (target / folder).mkdir(exist_ok=True)
        for file in GRAPHS:
            shutil.copyfile(Path(temporary) / file, target / folder / file)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="may be given several times; the page opens with the first")
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="where the page is to be; default: here")
    arguments = parser.parse_args()
    target = arguments.output / "files"
    target.mkdir(parents=True, exist_ok=True)
    if arguments.output.resolve() != HERE:
        for path in (path for path in HERE.iterdir() if path.suffix in (".html", ".css", ".js")):
            shutil.copyfile(path, arguments.output / path.name)
    fetch_runtime(target)
    names = [add_model(name, target) for name in arguments.model or ["celeba-128", "celeba-64"]]
    shutil.copyfile(DETECTOR, target / DETECTOR.name)
    shutil.copyfile(HERE.parent / "astronaut-512.png", target / "example.png")
    (target / "models.json").write_text(json.dumps(names), encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 1e6:.0f} MB for {', '.join(names)}")
    print(f"python -m http.server -d {arguments.output} --bind 127.0.0.1 8000    # then http://127.0.0.1:8000")


if __name__ == "__main__":
    main()
