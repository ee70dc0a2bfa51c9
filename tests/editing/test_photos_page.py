"""The examples of docs/photos.md run as they stand, one after another."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def test_the_examples_on_photos_run(tmp_path, monkeypatch):
    text = (ROOT / "docs/photos.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    written = re.findall(r'save\("([\w-]+\.jpg)"\)', text)
    assert len(examples) == 6
    with Image.open(ROOT / "examples/astronaut-512.png") as photo:
        photo.convert("RGB").save(tmp_path / "photo.jpg", quality=95)
    shutil.copy(tmp_path / "photo.jpg", tmp_path / "before.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(examples), "docs/photos.md", "exec"), {"__name__": "example"})
    assert (tmp_path / "photo.jpg").read_bytes() == (tmp_path / "before.jpg").read_bytes()
    for name in written:
        with Image.open(tmp_path / name) as edited:
            assert edited.size == (512, 512)
