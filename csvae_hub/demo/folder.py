"""The page's folder of temporary files: of this process alone, swept by a clock of ours, gone when the process ends."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

KEPT = 300
"""Seconds after its last use until a file is deleted."""
EVERY = 15
"""Seconds between two sweeps."""

_NAME = "csvae-demo"


@functools.cache
def own_folder() -> Path:
    """Gives the folder, made and named to Gradio (by GRADIO_TEMP_DIR) on the first call; and starts the sweeping.

    It lies in Gradio's own folder. Folders there that processes left behind which were killed are deleted.
    """
    from gradio.utils import get_upload_folder

    parent = Path(get_upload_folder())
    for old in parent.glob(f"{_NAME}-*"):
        if not _is_running(old.name.split("-")[2]):
            shutil.rmtree(old, ignore_errors=True)
    folder = parent / f"{_NAME}-{os.getpid()}-{uuid4().hex[:8]}"
    folder.mkdir(mode=0o700, parents=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(_remove, folder, os.getpid())
    threading.Thread(target=_sweeping, args=[folder], daemon=True).start()
    return folder


def sweep(folder: Path, age: float) -> None:
    """Deletes the files of a folder that were last used before `age` seconds, and empty folders as old."""
    before = time.time() - age
    for place, folders, files in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in files + folders):
            with suppress(OSError):  # it is gone, or not empty
                if path.lstat().st_mtime < before:
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _sweeping(folder: Path) -> None:
    while folder.exists():
        sweep(folder, KEPT)
        time.sleep(EVERY)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True
    return True
