"""Runs `csvae train` as a newcomer types it, and holds what it says against what then happened; run it on idle cores.

    python benchmarks/first_minutes.py -o docs/results/first-minutes.json

The command has no options but the folder, and runs on a pseudo-terminal and on as many cores as there are. `starts` are
the seconds until it says its first word, over several starts that are ended then. The whole run follows: the seconds
until its bar, the time left that it tells after one minute, two, …, beside the time that it did take, and its end. The
first figures count from the start of the process, so that imports are in them; `cold` is the first start of all.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import select
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from csvae_hub import hub

MINUTE, FIRST_WORD, SHARE, PROMISE = 60.0, 2.0, 0.2, 300.0
"""Seconds until the time left is believed, until the first word, the share by which it may be wrong, and of a run."""
LEFT = re.compile(r"(\d+)%, (\d+):(\d\d):(\d\d) left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("train", nargs="*", help="options of csvae train, for a trial of this file: -- --recipe …")
    arguments = parser.parse_args()
    command = ["csvae", "train", *arguments.train]
    starts = [watched(command, until_first_word=True)[0][0][0] for _ in range(arguments.starts)]
    said, end = watched(command)
    frames = [(at, int(h) * 3600 + int(m) * 60 + int(s)) for at, text in said for _, h, m, s in LEFT.findall(text)]
    left = after_minutes(frames, end)
    found = {
        "command": shlex.join(["python", "benchmarks/first_minutes.py", *sys.argv[1:]]),
        "trained_by": shlex.join([*command, "-o", "FOLDER"]),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "torch": torch.__version__},
        "seconds_until_first_word": {"cold": starts[0], "median": statistics.median(starts), "all": starts},
        "seconds_until_the_bar": frames[0][0] if frames else None,
        "time_left": left,
        "seconds": round(end, 1),
        "kept": {
            f"first word within {FIRST_WORD:g} s": statistics.median(starts) <= FIRST_WORD,
            f"time left after a minute within {SHARE:.0%}": bool(left) and abs(left[0]["said_of_true"] - 1) <= SHARE,
            f"a run of {PROMISE / 60:g} minutes": end <= PROMISE,
        },
    }
    print(found)
    hub.write_json(arguments.out, found)


def watched(command: list[str], until_first_word: bool = False) -> tuple[list[tuple[float, str]], float]:
    """What a run writes on its terminal, with the seconds since its start; and the seconds until it ended."""
    master, slave = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    script = str(Path(sys.executable).with_name(command[0]))
    program = [script] if Path(script).exists() else [sys.executable, "-m", "csvae_hub"]
    said: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        options = {"stdin": slave, "stdout": slave, "stderr": slave, "env": environment}
        process = subprocess.Popen([*program, *command[1:], "-o", f"{folder}/run"], **options)
        os.close(slave)
        try:
            while True:
                select.select([master], [], [])
                try:
                    part = os.read(master, 65536)
                except OSError:  # Linux's way to say that it is closed
                    break
                if not part:
                    break
                said.append((round(time.monotonic() - started, 2), part.decode(errors="replace")))
                if until_first_word:
                    process.kill()
                    break
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            os.close(master)
    if status and not until_first_word:
        raise RuntimeError(
            f"{shlex.join(command)} ended with status {status}: {''.join(text for _, text in said)[-2000:]}"
        )
    return said, time.monotonic() - started


def after_minutes(frames: list[tuple[float, int]], end: float) -> list[dict[str, Any]]:
    """The time left that the run told at each full minute since its bar, beside the true one."""
    found: list[dict[str, Any]] = []
    for minute in range(1, int((end - frames[0][0]) // MINUTE) + 1 if frames else 1):
        at, left = next(frame for frame in frames if frame[0] >= frames[0][0] + minute * MINUTE)
        if end - at >= 1:
            found.append({"at": at, "said": left, "true": round(end - at, 1), "said_of_true": left / (end - at)})
    return found


if __name__ == "__main__":
    main()
