"""Puts the notebook of the examples among the site's files, so that pages can link to it."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NAME = "quickstart.ipynb"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds examples/quickstart.ipynb as quickstart.ipynb."""
    files.append(File.generated(config, NAME, abs_src_path=str(Path(config.docs_dir).parent / "examples" / NAME)))
    return files
