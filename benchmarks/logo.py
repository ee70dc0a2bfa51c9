"""Draws docs/images/logo.svg: a face on a tile, with one attribute, its glasses, in a colour of its own.

    python benchmarks/logo.py

The tile brings its own background, so that the sign is legible on light and dark pages and in a browser's tabs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csvae_hub.hub import replacing

ROOT = Path(__file__).resolve().parents[1]
TILE, FACE, ATTRIBUTE = "#1a237e", "#ffffff", "#ffca28"


def logo(tile: str = TILE, face: str = FACE, attribute: str = ATTRIBUTE) -> str:
    """The SVG, 64 units a side; colours as #rrggbb."""
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" role="img" aria-label="csvae-hub">
  <rect width="64" height="64" rx="14" fill="{tile}"/>
  <g fill="none" stroke-linecap="round">
    <circle cx="32" cy="32" r="23" stroke="{face}" stroke-width="4"/>
    <path d="M22 42 Q32 51 42 42" stroke="{face}" stroke-width="4"/>
    <g stroke="{attribute}" stroke-width="4">
      <circle cx="22.5" cy="28" r="7"/>
      <circle cx="41.5" cy="28" r="7"/>
      <path d="M29.5 27 Q32 25 34.5 27"/>
    </g>
  </g>
</svg>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/images/logo.svg")
    arguments = parser.parse_args()
    with replacing(arguments.output) as temporary:
        temporary.write_text(logo(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
