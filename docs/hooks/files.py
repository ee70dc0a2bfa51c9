"""Puts files of the repository that lie outside of docs/ among the site's, so that pages can link to them."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PLACES = {"quickstart.ipynb": "examples/quickstart.ipynb", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds each file under its name in the site."""
    root = Path(config.docs_dir).parent
    for name, place in PLACES.items():
        files.append(File.generated(config, name, abs_src_path=str(root / place)))
    return files
