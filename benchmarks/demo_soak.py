"""Uses the page of `csvae demo` for a while with many clients at once, and watches the files that it keeps.

    python benchmarks/demo_soak.py --minutes 20 --clients 16 -o docs/results/demo-soak.json

Each client uploads a photo of its own, opens it, moves sliders, downloads the result, and begins again. The server is
a process with an empty folder for its files. Every second the files there are counted and their ages (since the last
use) taken. At the end the server gets SIGTERM. The exit code is 1 if a file was older than the page promises plus one
minute, a file is left after SIGTERM, or an answer was none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image

PHOTO = Path(__file__).resolve().parents[1] / "examples/astronaut-512.png"
GRACE = 60
CHANGES = 12
"""Sliders that a client moves in each photo."""
PAUSE = 4.0
"""Mean time between two changes, in seconds."""


class Client:
    """One visitor: speaks with the page's server as its script in the browser does."""

    def __init__(self, address: str, seed: int) -> None:
        self.address, self.random = address, random.Random(seed)
        with urllib.request.urlopen(f"{address}config", timeout=60) as answer:
            config = json.load(answer)
        ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
        by_target = {tuple(target): d for d in config["dependencies"] for target in d["targets"]}
        self.open = by_target[ids["photo"], "change"]["id"]
        self.save = by_target[ids["download"], "click"]["id"]
        self.moves = [by_target[ids[name], "input"]["id"] for name in ids if str(name).startswith("slider-")]
        self.models = next(c["props"]["choices"] for c in config["components"] if c["id"] == ids["model"])

    def visit(self, until: float) -> Iterator[str]:
        """Opens a photo of its own, changes it and saves it; gives the name of each thing done."""
        self.session = uuid4().hex[:11]
        path = self.upload()
        yield "uploads"
        self.ask(self.open, [{"path": path, "meta": {"_type": "gradio.FileData"}}, self.models[0][1]])
        yield "photos opened"
        for _ in range(CHANGES):
            if time.monotonic() > until:
                return
            time.sleep(self.random.expovariate(1 / PAUSE))
            self.ask(self.random.choice(self.moves[:4]), [None, round(self.random.uniform(-0.4, 1.4), 2)])
            yield "changes"
        (saved,) = self.ask(self.save, [None])
        with urllib.request.urlopen(saved["url"], timeout=60) as answer:
            Image.open(BytesIO(answer.read())).load()
        yield "downloads"

    def upload(self) -> str:
        """Sends a photo that no other client has; gives its path on the server."""
        file = BytesIO()
        photo = Image.open(PHOTO).convert("RGB")
        photo.putpixel((0, 0), tuple(self.random.randrange(256) for _ in range(3)))
        photo.save(file, "PNG")
        head = '--soak\r\nContent-Disposition: form-data; name="files"; filename="photo.png"\r\n\r\n'
        request = urllib.request.Request(
            f"{self.address}gradio_api/upload",
            head.encode() + file.getvalue() + b"\r\n--soak--\r\n",
            {"Content-Type": "multipart/form-data; boundary=soak"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)[0]

    def ask(self, function: int, data: list[Any]) -> list[Any]:
        """Asks for a function of the page and waits for its answer."""
        body = json.dumps({"fn_index": function, "data": data, "session_hash": self.session}).encode()
        request = urllib.request.Request(
            f"{self.address}gradio_api/queue/join", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=60).close()
        with urllib.request.urlopen(
            f"{self.address}gradio_api/queue/data?session_hash={self.session}", timeout=120
        ) as stream:
            for line in stream:
                told = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if told.get("msg") == "process_completed":
                    if not told["success"]:
                        raise RuntimeError(f"function {function}: {told['output']}")
                    return told["output"]["data"]
        raise RuntimeError(f"function {function}: no answer")


class Watch:
    """Counts the files in a folder, and takes the age of the oldest and the server's memory."""

    def __init__(self, folder: Path, process: int) -> None:
        self.folder, self.process = folder, process
        self.oldest, self.most, self.memory = 0.0, 0, 0.0
        self.seen: set[str] = set()

    def look(self) -> None:
        """Looks once."""
        now, count = time.time(), 0
        paths = [Path(where, name) for where, _, names in os.walk(self.folder) for name in names]
        for path in paths:
            with suppress(OSError):  # it goes meanwhile
                if path.is_file():
                    self.oldest = max(self.oldest, now - path.stat().st_mtime)
                    self.seen.add(str(path))
                    count += 1
        self.most = max(self.most, count)
        with suppress(OSError):
            pages = int(Path(f"/proc/{self.process}/statm").read_text().split()[1])
            self.memory = max(self.memory, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of its own whose files are in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from csvae_hub.cli import main; main()", "demo", "--port", str(port)]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder)}
    server = subprocess.Popen([*command, "--device", "cpu"], env=environment, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        while server.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(address).close()
                break
            time.sleep(0.5)
        yield address, server
    finally:
        server.kill()
        server.wait()


def soak(minutes: float, clients: int) -> dict[str, Any]:
    from csvae_hub.demo.folder import KEPT

    done: dict[str, int] = dict.fromkeys(("uploads", "photos opened", "changes", "downloads"), 0)
    faults: list[str] = []
    lock = threading.Lock()
    with tempfile.TemporaryDirectory() as temporary, served(Path(temporary)) as (address, server):
        until = time.monotonic() + 60 * minutes
        watch = Watch(Path(temporary), server.pid)

        def visit(seed: int) -> None:
            client = Client(address, seed)
            while time.monotonic() < until:
                try:
                    for step in client.visit(until):
                        with lock:
                            done[step] += 1
                except Exception as error:
                    with lock:
                        faults.append(f"{type(error).__name__}: {error}")
                    time.sleep(1)

        threads = [threading.Thread(target=visit, args=[seed], daemon=True) for seed in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            watch.look()
            time.sleep(1)
        there = sum(path.is_file() for path in Path(temporary).rglob("*"))
        server.send_signal(signal.SIGTERM)
        server.wait(120)
        left = sorted(str(path.relative_to(temporary)) for path in Path(temporary).rglob("*") if path.is_file())
    return {
        "minutes": minutes,
        "clients": clients,
        "done": done,
        "faults": len(faults),
        "first_faults": faults[:5],
        "promise_s": KEPT,
        "oldest_file_s": round(watch.oldest, 1),
        "files_seen": len(watch.seen),
        "most_files_at_once": watch.most,
        "server_memory_mib": round(watch.memory),
        "files_before_sigterm": there,
        "left_after_sigterm": left[:5],
        "held": watch.oldest <= KEPT + GRACE and not left and not faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/demo-soak.json"))
    arguments = parser.parse_args()
    import gradio

    from csvae_hub import hub

    result = {
        "command": shlex.join(["python", "benchmarks/demo_soak.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "gradio": gradio.__version__,
        **soak(arguments.minutes, arguments.clients),
    }
    hub.write_json(arguments.output, result)
    print(json.dumps(result, indent=2))
    sys.exit(not result["held"])


if __name__ == "__main__":
    main()
