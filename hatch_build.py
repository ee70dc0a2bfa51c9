"""Gives the package its readme, and its addresses where the project has one.

The release workflow sets `CSVAE_REPOSITORY`, such as https://github.com/OWNER/csvae-hub, and `CSVAE_REVISION`, its tag.
README's links and pictures are absolute then, so that the page of a package index shows them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Sets `readme`, and `urls` where there is an address."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling when it builds."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        address = os.environ.get("CSVAE_REPOSITORY", "").rstrip("/")
        if address:
            revision = os.environ.get("CSVAE_REVISION") or "main"
            text = absolute(text, address, revision)
            changes = f"{address}/blob/{revision}/CHANGELOG.md"
            metadata["urls"] = {"Repository": address, "Issues": f"{address}/issues", "Changelog": changes}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, address: str, revision: str) -> str:
    """Markdown whose relative links and pictures are those of a revision of the repository."""

    def replaced(found: re.Match[str]) -> str:
        kind = "raw" if found[2].endswith((".png", ".svg")) else "blob"
        return f"{found[1]}{address}/{kind}/{revision}/{found[2]}"

    return re.sub(r'(\]\(|src=")(?![a-z]+:|#)([^)"]+)', replaced, text)
