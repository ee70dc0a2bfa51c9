"""Draws docs/images/photo-edits.png: the photo of an astronaut, and the same edited, with the edits in words.

    python benchmarks/photo_sheet.py --model celeba-128

Every edit is one call of `FaceEditor.set_attribute`; nothing is chosen by hand but the crop that is shown, and the
number of the glasses: True gives sunglasses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from csvae_hub import CSVAE, FaceEditor
from csvae_hub.hub import replacing

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples/astronaut-512.png"
CROP = (110, 0, 340, 230)
EDITS: list[tuple[str, bool | float, str]] = [
    ("Eyeglasses", 0.6, "with glasses"),
    ("Eyeglasses", True, "with sunglasses"),
    ("Bangs", False, "no fringe"),
    ("Black_Hair", True, "black hair"),
    ("Blond_Hair", True, "blond"),
    ("Mouth_Slightly_Open", False, "mouth closed"),
    ("Smiling", False, "not smiling"),
    ("Young", False, "older"),
    ("Wearing_Hat", True, "with a hat"),
    ("No_Beard", False, "with a beard"),
    ("Male", 1.0, "as a man"),  # a number: q(y | x) takes this face for a man's, and True would change nothing
]
SIDE, LINE, GAP, COLUMNS = 230, 38, 6, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="celeba-128")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/images/photo-edits.png")
    arguments = parser.parse_args()
    editor = FaceEditor(CSVAE.from_pretrained(arguments.model, device="cpu"))
    photo = Image.open(PHOTO).convert("RGB")
    tiles = [("the photo", photo)]
    tiles += [(words, editor.set_attribute(photo, name, value)) for name, value, words in EDITS]
    save(sheet(tiles), arguments.output)


def sheet(tiles: list[tuple[str, Image.Image]]) -> Image.Image:
    """The crop of each picture over its words, `COLUMNS` a row, on white."""
    rows = -(-len(tiles) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + LINE + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(27)  # legible on a phone, too
    for i, (words, picture) in enumerate(tiles):
        left, top = GAP + i % COLUMNS * (SIDE + GAP), GAP + i // COLUMNS * (SIDE + LINE + GAP)
        whole.paste(picture.convert("RGB").crop(CROP), (left, top))
        draw.text((left + SIDE / 2, top + SIDE + LINE / 2), words, fill="black", font=font, anchor="mm")
    return whole


def save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG whole."""
    with replacing(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    main()
