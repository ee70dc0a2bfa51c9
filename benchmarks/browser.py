"""Measures the page of `examples/browser`: its size, how long it takes to open, and how quickly a change is shown.

    python examples/browser/prepare.py
    python benchmarks/browser.py -o docs/results/browser.json

The page runs in headless Chromium, in single-threaded WebAssembly without a GPU, from files on this machine. The
photo is the astronaut of examples/, enlarged to 1,000 pixels a side. `open` is from the address to an example photo
whose face is found, aligned and encoded. `change` is from the slider's event to the changed photo on the canvas: a
decode, the mask, the blend. `decode` is the network's part alone. Milliseconds; run it on idle cores.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo import summary
from PIL import Image

from csvae_hub import hub

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "examples/browser"
SIDE = 1000
LIMIT = 150.0
"""Of the median change, in milliseconds."""
SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
CHANGE = """([name, values]) => (async () => {
  const times = [], range = [...document.querySelectorAll("#sliders label")]
    .find((label) => label.textContent.startsWith(name)).querySelector("input");
  for (const value of values) {
    const edited = new Promise((done) => document.addEventListener("edited", done, { once: true }));
    const start = performance.now();
    range.value = value;
    range.dispatchEvent(new Event("input"));
    await edited;
    times.push(performance.now() - start);
    await new Promise((done) => setTimeout(done, 30));
  }
  return times;
})()"""
DECODE = """([folder, count]) => (async () => {
  const { Model } = await import("./model.js"), model = await Model.load(folder), times = [];
  const code = {
    z: new Float32Array(model.decoder.inputMetadata[0].shape[1]).fill(0.1),
    w: new Float32Array(model.about.attributes.length * model.width),
  };
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await model.decode(code);
    times.push(performance.now() - start);
  }
  return times;
})()"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static host without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a static host of its own."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def sizes(names: list[str]) -> dict[str, Any]:
    """Bytes of what the page loads."""
    files = PAGE / "files"
    sources = sum(path.stat().st_size for path in PAGE.iterdir() if path.suffix in (".html", ".css", ".js"))
    runtime = sum(path.stat().st_size for path in files.glob("ort*"))
    models = {
        name: sum((files / name / part).stat().st_size for part in ("encoder.onnx", "decoder.onnx")) for name in names
    }
    detector = sum(path.stat().st_size for path in files.glob("face_detection*"))
    return {"page": sources, "runtime": runtime, "detector": detector, "models": models}


def measure(browser: Any, address: str, name: str, photo: Path, changes: int) -> dict[str, Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    first = f'["{name}"]'
    page.route("**/files/models.json", lambda route: route.fulfill(body=first, content_type="application/json"))
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("#download:enabled")
    opened = 1000 * (time.perf_counter() - start)
    page.wait_for_selector("#plane[data-faces='25']")
    page.evaluate("() => { window.edited = new Promise((done) => document.addEventListener('edited', () => done())); }")
    page.set_input_files("#file", photo)
    page.evaluate("() => window.edited")
    values = [round(-0.4 + 1.8 * i / changes, 2) for i in range(changes)]
    page.evaluate(CHANGE, ["Eyeglasses", values[:3]])
    page.wait_for_selector("#plane[data-faces='25']")
    found = {
        "open": round(opened),
        "change": summary(page.evaluate(CHANGE, ["Eyeglasses", values])),
        "decode": summary(page.evaluate(DECODE, [name, changes])),
    }
    page.close()
    return found


def take(browser: Any, address: str, target: Path) -> None:
    """A picture of the page."""
    page = browser.new_page(viewport={"width": 1280, "height": 1020})
    page.goto(address)
    page.wait_for_selector("#download:enabled", timeout=120_000)
    page.get_by_label("Eyeglasses", exact=True).fill("1.2")
    page.wait_for_selector("#plane[data-faces='25']", timeout=120_000)
    page.screenshot(path=target)
    page.close()
    picture = Image.open(target).convert("RGB")
    picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=40)
    parser.add_argument("--screenshot", type=Path, help="where a picture of the page goes")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/browser.json"))
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    if not (PAGE / "files/models.json").is_file():
        raise SystemExit("files/ is missing: run python examples/browser/prepare.py first")
    names = json.loads((PAGE / "files/models.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary, served(PAGE) as address, sync_playwright() as playwright:
        photo = Path(temporary) / "photo.jpg"
        Image.open(ROOT / "examples/astronaut-512.png").convert("RGB").resize((SIDE, SIDE)).save(photo, quality=95)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=SWITCHES)
        version = browser.version
        load = os.getloadavg()[0]
        times = {name: measure(browser, address, name, photo, arguments.changes) for name in names}
        if arguments.screenshot is not None:
            take(browser, address, arguments.screenshot)
        browser.close()
    result = {
        "command": shlex.join(["python", "benchmarks/browser.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start",
        "chromium": version,
        "photo": [SIDE, SIDE],
        "changes": arguments.changes,
        "bytes": sizes(names),
        "milliseconds": times,
        "within_limit": {name: its["change"]["median"] < LIMIT for name, its in times.items()},
    }
    hub.write_json(arguments.output, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
