"""The Python blocks of README and of the how-to pages run as they are pasted, one page after another in a folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("index", "get-started", "photos", "pipelines", "backbones")))
PICTURES = {"holiday.jpg": "astronaut-512.png", "photo.jpg": "astronaut-512.png", "face.jpg": "astronaut.png"}
"""The reader's own pictures, and those of the examples that stand for them."""


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("runs"))
    for name, photo in PICTURES.items():
        with Image.open(ROOT / "examples" / photo) as picture:
            picture.convert("RGB").save(tmp_path / name, quality=95)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_one_after_another(page, folder):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    before = {path.name for path in folder.iterdir()}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    saved = set(re.findall(r'\.save\(f?"([\w-]+\.\w+)"', "\n".join(blocks)))
    assert saved <= {path.name for path in folder.iterdir()} - before
