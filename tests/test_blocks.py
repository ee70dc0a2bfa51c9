"""The Python blocks of README, of the site and of the models' cards run as they are pasted, a page after the other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"holiday.jpg": "astronaut-512.png", "photo.jpg": "astronaut-512.png", "face.jpg": "astronaut.png"}
"""The reader's own pictures, and those of the examples that stand for them."""
ELSEWHERE = {
    "CONTRIBUTING.md": "backbones/test_backbones.py",
    "docs/demo.md": "test_demo_server.py",
    "docs/evaluation.md": "evaluation/test_compare.py",
    "docs/expressions.md": "test_expressions_48.py",
    "docs/hub.md": "hub/test_client.py",
    "docs/part.md": "training/test_parts_folder.py",
    "docs/training.md": "test_docs.py",
}
"""Pages whose blocks need more than a folder of pictures (a server, a Hub, weights), and what runs the like."""
BEFORE = {"docs/export.md": ["export", "celeba-64", "-o", "celeba-128-onnx"]}
"""A command of the page that its blocks need; by the smaller model, which is as good here."""


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


FILES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("csvae_hub/weights/*/README.md")]
PAGES = sorted(page for path in FILES if blocks(page := path.relative_to(ROOT).as_posix()))


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("runs"))
    for name, photo in PICTURES.items():
        with Image.open(ROOT / "examples" / photo) as picture:
            picture.convert("RGB").save(tmp_path / name, quality=95)
    with Image.open(ROOT / "examples/astronaut-512.png") as picture:
        small = picture.convert("RGB").resize((256, 256))
    np.save(tmp_path / "pictures.npy", np.zeros((3, 3, 64, 64), np.uint8))
    small.save(tmp_path / "clip.gif", save_all=True, append_images=[small.rotate(2), small.rotate(4)], duration=40)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_the_blocks_of_a_page_run_one_after_another(page, folder):
    before = {path.name for path in folder.iterdir()}
    if command := BEFORE.get(page):
        subprocess.run([sys.executable, "-m", "csvae_hub", *command], cwd=folder, check=True, capture_output=True)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks(page))], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    saved = set(re.findall(r'(?:\.save\(f?|write_clip\(edited, )"([\w-]+\.\w+)"', "\n".join(blocks(page))))
    assert saved <= {path.name for path in folder.iterdir()} - before


def test_each_page_with_blocks_is_run_here_or_elsewhere():
    assert set(ELSEWHERE) <= set(PAGES)
    assert len(PAGES) > 15
    assert all((ROOT / "tests" / place).is_file() for place in ELSEWHERE.values())
