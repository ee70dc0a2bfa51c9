"""Measures how quickly the page of `csvae demo` answers, in the server alone and from a slider to the picture shown.

    python benchmarks/demo.py -o docs/results/demo.json --screenshot docs/images/demo.png

The photo is the astronaut of examples/, enlarged to 1,000 pixels a side and shown whole. "server" is what a change
costs in Python: latents, decoder, blending, JPEG. "browser" is from the slider's event to the changed photo, decoded,
in a Chromium on the same machine. "again" moves one slider on, "another" the next slider, whose plane is drawn after
the photo; "click" picks a point of a plane. Milliseconds by the clock: the machine is to be idle otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

PHOTO = Path(__file__).resolve().parents[1] / "examples/astronaut-512.png"
SIDE = 1000
COLOURS = 255
"""Of the screenshot, so that it stays small."""
CHANGED = """async ([id, act, value]) => {
  const after = () => document.querySelector('#after img');
  const old = after().src, start = performance.now();
  const part = document.querySelector(id);
  if (act === 'slide') { part.value = value; part.dispatchEvent(new Event('input', {bubbles: true})); }
  else {
    const box = part.getBoundingClientRect();
    const place = {clientX: box.left + value * box.width, clientY: box.top + 0.3 * box.height, bubbles: true};
    part.dispatchEvent(new MouseEvent('click', place));
  }
  while (after().src === old) {
    if (performance.now() - start > 20000) throw new Error(`${act} ${id} to ${value}: the photo stays`);
    await new Promise(done => setTimeout(done, 1));
  }
  await after().decode();
  return performance.now() - start;
}"""


def large_photo() -> bytes:
    file = BytesIO()
    Image.open(PHOTO).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


def summary(times: list[float]) -> dict[str, float]:
    """Of milliseconds."""
    ordered = sorted(times)
    return {
        "median": round(statistics.median(times), 1),
        "p90": round(ordered[int(0.9 * (len(times) - 1))], 1),
        "most": round(ordered[-1], 1),
    }


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def levels(changes: int) -> Iterator[float]:
    """So many numbers, none twice."""
    return (round(-0.4 + 1.8 * i / changes, 2) for i in range(changes))


def measure_server(changes: int) -> dict[str, Any]:
    from csvae_hub.demo import Session
    from csvae_hub.demo.editors import Editors

    editor = Editors("celeba-64", "cpu")["celeba-64"]
    photo = large_photo()
    here = Session(editor, photo)
    here.close_up = False

    def change(name: str, value: float) -> None:
        here.move(name, value)
        here.before()
        here.after()
        if here.plane_is_quick:
            here.plane()

    names = here.attributes
    change(names[0], 0.0)
    here.plane()
    again = [timed(lambda value=value: change(names[0], value)) for value in levels(changes)]
    another, planes = [], []
    for i, value in enumerate(levels(changes)):
        another.append(timed(lambda i=i, value=value: change(names[(i + 1) % len(names)], value)))
        planes.append(timed(here.plane))
    return {
        "open": summary([timed(lambda: Session(editor, photo)) for _ in range(10)]),
        "again": summary(again),
        "another": summary(another),
        "plane": summary(planes),
        "download": summary([timed(here.download) for _ in range(5)]),
        "jpeg_bytes": len(here.after()),
    }


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address of a server of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from csvae_hub.cli import main; main()", "demo", "--port", str(port)]
    server = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        while server.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address).close()
                break
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def measure_browser(changes: int, screenshot: Path | None) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with served() as address, sync_playwright() as playwright, tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "photo.jpg"
        path.write_bytes(large_photo())
        switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=switches)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(address)
        page.wait_for_selector("#after img")
        if screenshot is not None:
            take(page, screenshot)
        page.click("#photo button[aria-label='Remove Image']")
        page.wait_for_selector("#after img", state="detached")
        page.set_input_files("#photo input[type=file]", path)
        page.wait_for_selector("#after img")
        page.click("#close-up input")
        page.wait_for_function(f"() => document.querySelector('#after img').naturalWidth === {SIDE}")
        sliders = page.locator("#sliders input[type=range]:visible").count()

        def slide(i: int, value: float) -> float:
            return page.evaluate(CHANGED, [f"#slider-{i % sliders} input[type=range]", "slide", value])

        def settled(measure: Callable[[], float]) -> float:
            page.wait_for_timeout(400)
            return measure()

        slide(0, 0.0)
        result = {
            "again": [slide(0, value) for value in levels(changes)],
            "another": [settled(lambda i=i, v=v: slide(i + 1, v)) for i, v in enumerate(levels(changes))],
            "click": [
                settled(lambda v=v: page.evaluate(CHANGED, ["#plane img", "click", 0.2 + 0.4 * v]))
                for v in levels(changes)
            ],
        }
        browser.close()
    return {name: summary(times) for name, times in result.items()}


def take(page: Any, target: Path) -> None:
    """The example photo with another kind of glasses, picked in their plane."""
    page.get_by_role("slider", name="range slider for Eyeglasses").fill("0.9")
    page.wait_for_timeout(2000)
    box = page.locator("#plane img").bounding_box()
    page.mouse.click(box["x"] + 0.46 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.move(5, 5)
    page.wait_for_timeout(2000)
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=60, help="of each kind")
    parser.add_argument("--screenshot", type=Path, help="where a picture of the page goes")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/demo.json"))
    arguments = parser.parse_args()
    import gradio
    import torch

    from csvae_hub import hub

    result = {
        "command": shlex.join(["python", "benchmarks/demo.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "torch": torch.__version__,
        "gradio": gradio.__version__,
        "photo": [SIDE, SIDE],
        "changes": arguments.changes,
        "server_ms": measure_server(arguments.changes),
        "browser_ms": measure_browser(arguments.changes, arguments.screenshot),
    }
    hub.write_json(arguments.output, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
