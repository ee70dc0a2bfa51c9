"""Draws the pictures of the how-to pages from drawn faces and from formulas; no model and no photo is needed.

    python benchmarks/pages.py

`docs/images/` gets photo-steps.png, video-track.png, transform.png, own-data.png, truth.png, and backbone.svg,
concepts.svg, training.svg and sharing.svg.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from csvae_hub import to_images
from csvae_hub.data import SyntheticFaces
from csvae_hub.editing.video import smoothed
from csvae_hub.hub import replacing
from csvae_hub.plotting import save_figure

ROOT = Path(__file__).resolve().parents[1]
SIDE, LINE, GAP = 128, 26, 8
FRAME = "#d32f2f"


def sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]]) -> Image.Image:
    """Pictures in rows, each over its words, on white; as wide as the first row."""
    (width, height), columns = rows[0][0][0].size, len(rows[0])
    down = height + LINE + GAP
    size = (columns * (width + GAP) + GAP, len(rows) * down + GAP)
    whole, font = Image.new("RGB", size, "white"), ImageFont.load_default(15)
    draw = ImageDraw.Draw(whole)
    for y, row in enumerate(rows):
        for x, (picture, words) in enumerate(row):
            left, top = GAP + x * (width + GAP), GAP + y * down
            whole.paste(picture, (left, top))
            draw.text((left + width / 2, top + height + LINE / 2), words, fill="black", font=font, anchor="mm")
    return whole


def pictures(images: Tensor) -> list[Image.Image]:
    return [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in to_images(images)]


def photo_steps() -> Image.Image:
    """A tilted face in a photo: found, aligned, edited, put back. Glasses are the drawn truth, no model's edit."""
    data, angle, across = SyntheticFaces(8, 5, 128, {"Eyeglasses": 0, "Wearing_Hat": 0, "Beard": 0, "Hair": 1}), 12, 120
    crop = to_images(data.batch([2])[0])[0]
    edited = to_images(data.counterfactual([2], "Eyeglasses", True))[0]
    middle, wall = (120, 128), crop.resize((1, 1), box=(0, 0, 128, 40)).getpixel((0, 0))

    def in_the_photo(face: Image.Image) -> Image.Image:
        photo = Image.new("RGB", (256, 192), wall)
        shape = Image.new("L", face.size, 255).rotate(angle, Image.Resampling.BICUBIC, expand=True)
        turned = face.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        side = round(across * turned.width / face.width)
        place = (middle[0] - side // 2, middle[1] - side // 2)
        photo.paste(turned.resize((side, side)), place, shape.resize((side, side)))
        return photo

    def centred(face: Image.Image) -> Image.Image:
        tile = Image.new("RGB", (256, 192), "white")
        tile.paste(face, (64, 32))
        return tile

    found = in_the_photo(crop)
    turn = np.exp(-1j * np.deg2rad(angle)) * across / 2
    corners = [turn * corner for corner in (-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j)]
    outline = [(middle[0] + corner.real, middle[1] + corner.imag) for corner in corners]
    ImageDraw.Draw(found).line([*outline, *outline[:2]], fill=FRAME, width=3)
    steps = [
        (found, "found"),
        (centred(crop), "aligned"),
        (centred(edited), "edited"),
        (in_the_photo(edited), "put back"),
    ]
    return sheet([steps])


def video_track() -> Figure:
    """The height of one landmark over 48 frames: as it is, as a detector sees it and smoothed."""
    frames = np.arange(48)
    face = np.array([(30.0, 40), (70, 40), (50, 60), (35, 80), (65, 80)])
    moved = 4 * np.sin(frames / 15)
    truth = face + np.stack([np.zeros(48), moved], 1)[:, None]
    seen = truth + np.random.default_rng(0).normal(0, 0.5, truth.shape)
    smooth = np.stack([points for points in smoothed(list(seen), 25.0) if points is not None])
    figure = Figure(figsize=(6.4, 3), layout="constrained")
    axes = figure.add_subplot(xlabel="frame", ylabel="height of the nose, pixels")
    for points, words, colour in (
        (seen, "as found", "#bdbdbd"),
        (truth, "true", "black"),
        (smooth, "smoothed", "#3949ab"),
    ):
        axes.plot(frames, points[:, 2, 1], color=colour, label=words, linewidth=1 if words == "true" else 2)
    axes.legend(frameon=False, ncols=3)
    return figure


def transform() -> Image.Image:
    """A batch before and after a transform that switches glasses on every other face; the drawn truth, no model's."""
    data = SyntheticFaces(6, 3, 128, {"Wearing_Hat": 0})
    before, labels = data.batch(range(6))
    after = before.clone()
    for i in range(0, 6, 2):
        after[i] = data.counterfactual([i], "Eyeglasses", not labels[i, 1])[0]
    words = ["switched" if i % 2 == 0 else "as it was" for i in range(6)]
    first = zip(pictures(before), [f"picture {i + 1}" for i in range(6)], strict=True)
    return sheet([list(first), list(zip(pictures(after), words, strict=True))])


def own_data() -> Image.Image:
    """Five pictures and below each its line of attributes.csv."""
    data = SyntheticFaces(5, 11, 128)
    chosen = data.select(["Eyeglasses", "Smiling", "Wearing_Hat"])
    images, labels = chosen.batch(range(5))
    tiles = list(zip(pictures(images), [f"{i + 1}.jpg" for i in range(5)], strict=True))
    faces, font = sheet([tiles]), ImageFont.load_default(15)
    whole = Image.new("RGB", (faces.width + 110, faces.height + 3 * LINE), "white")
    whole.paste(faces, (110, 0))
    draw = ImageDraw.Draw(whole)
    for j, name in enumerate(chosen.attributes):
        height = faces.height + (j + 0.3) * LINE
        draw.text((104, height), name, fill="black", font=font, anchor="rm")
        for i in range(5):
            left = 110 + GAP + i * (SIDE + GAP) + SIDE / 2
            draw.text((left, height), f"{labels[i, j]:.0f}", fill="black", font=font, anchor="mm")
    return whole


def truth() -> Image.Image:
    """A drawn face, then the true result of switching each of its attributes; and the same of a second face."""
    data = SyntheticFaces(8, 4, 128)
    rows = []
    for i in (1, 6):
        image, labels = data.batch([i])
        switched = [data.counterfactual([i], name, not labels[0, j]) for j, name in enumerate(data.attributes)]
        words = [f"{'without' if labels[0, j] else 'with'} {WORDS[name]}" for j, name in enumerate(data.attributes)]
        rows.append(list(zip(pictures(torch.cat([image, *switched])), ["the face", *words], strict=True)))
    return sheet(rows)


WORDS = {"Beard": "beard", "Eyeglasses": "glasses", "Hair": "hair", "Smiling": "smile", "Wearing_Hat": "hat"}


Box = tuple[float, float, float, str, str, bool]
"""Left, top, width, name, words below it, and True for a box that stands out."""
HIGH = 50
"""Pixels from the top of a box to its bottom."""


def diagram(boxes: Sequence[Box], arrows: Sequence[tuple[float, ...]], width: int, height: int) -> str:
    """Boxes, and arrows through the points x1, y1, x2, y2, …, as SVG on white."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' text-anchor="middle">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        f'<path d="M0 0L8 4L0 8z" fill="#455a64"/></marker></defs><rect width="{width}" height="{height}" rx="8"'
        ' fill="#ffffff"/>',
    ]
    for points in arrows:
        line = "L".join(f"{x:g} {y:g}" for x, y in zip(points[::2], points[1::2], strict=True))
        parts += [f'<path d="M{line}" fill="none" stroke="#455a64" stroke-width="1.5" marker-end="url(#head)"/>']
    for x, y, across, name, words, stands_out in boxes:
        colours = 'fill="#3949ab" stroke="#1a237e"' if stands_out else 'fill="#eceff1" stroke="#455a64"'
        ink, middle = "#ffffff" if stands_out else "#212121", x + across / 2
        parts += [f'<rect x="{x:g}" y="{y:g}" width="{across:g}" height="{HIGH}" rx="6" {colours}/>']
        parts += [f'<text x="{middle:g}" y="{y + 22:g}" font-size="15" fill="{ink}">{name}</text>']
        parts += [f'<text x="{middle:g}" y="{y + 40:g}" font-size="12" fill="{ink}">{words}</text>']
    return "\n".join([*parts, "</svg>\n"])


def backbone() -> str:
    """What a backbone does (filled) among what the model does with it, as SVG."""
    boxes: list[Box] = [
        (10, 40, 90, "x", "pictures", False),
        (140, 40, 120, "encode", "your backbone", True),
        (300, 10, 150, "q(z | x)", "z", False),
        (300, 78, 150, "q(w | x, y)", "a subspace each", False),
        (490, 40, 120, "decode", "your backbone", True),
        (650, 40, 100, "p(x | z, w)", "the likelihood", False),
    ]
    arrows = [
        (100, 65, 140, 65),
        (260, 58, 300, 35),
        (260, 72, 300, 103),
        (450, 35, 490, 58),
        (450, 103, 490, 72),
        (610, 65, 650, 65),
    ]
    return diagram(boxes, arrows, 760, 140)


def concepts() -> str:
    """The whole model: z, three subspaces of which an edit replaces one (filled), and two adversaries, as SVG."""
    boxes: list[Box] = [
        (10, 130, 90, "x", "a picture", False),
        (140, 130, 130, "encoder", "q(z | x), q(w | x, y)", False),
        (300, 30, 150, "z", "all but the attributes", False),
        (300, 110, 150, "w: hair", "stays", False),
        (300, 170, 150, "w: glasses", "replaced by an edit", True),
        (300, 230, 150, "w: smile", "stays", False),
        (510, 130, 100, "decoder", "p(x | z, w)", False),
        (650, 130, 100, "x'", "with glasses", True),
        (510, 30, 100, "adversary", "reads y from z?", False),
        (650, 230, 100, "critic", "a real photo?", False),
    ]
    arrows = [
        (100, 155, 140, 155),
        *((270, 155, 300, y) for y in (55, 135, 195, 255)),
        (450, 66, 510, 142),
        *((450, y, 510, end) for y, end in ((135, 150), (195, 160), (255, 168))),
        (450, 55, 510, 55),
        (610, 155, 650, 155),
        (700, 180, 700, 230),
    ]
    return diagram(boxes, arrows, 760, 290)


def training() -> str:
    """What a training run is made of, and what it leaves."""
    boxes: list[Box] = [
        (10, 10, 150, "data", "pictures, attributes", False),
        (10, 78, 150, "recipe", "a TOML file", False),
        (210, 44, 150, "objective", "the model, its losses", True),
        (410, 44, 150, "trainer", "the loop", True),
        (610, 10, 140, "model/", "weights to use", False),
        (610, 78, 140, "checkpoints, logs", "and grids of edits", False),
    ]
    arrows = [
        (160, 35, 210, 62),
        (160, 103, 210, 76),
        (360, 69, 410, 69),
        (560, 62, 610, 35),
        (560, 76, 610, 103),
    ]
    return diagram(boxes, arrows, 760, 140)


def sharing() -> str:
    """From a training run to somebody else's script."""
    boxes: list[Box] = [
        (10, 20, 200, "runs/faces/model", "weights, config, card, figures", False),
        (280, 20, 200, "me/faces", "a repo of the Hub", True),
        (550, 20, 200, "from_pretrained", "anybody's model", False),
    ]
    return diagram(boxes, [(210, 45, 280, 45), (480, 45, 550, 45)], 760, 90)


PICTURES: dict[str, Callable[[], Image.Image | Figure | str]] = {
    "photo-steps.png": photo_steps,
    "video-track.png": video_track,
    "transform.png": transform,
    "own-data.png": own_data,
    "truth.png": truth,
    "backbone.svg": backbone,
    "concepts.svg": concepts,
    "training.svg": training,
    "sharing.svg": sharing,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/images", help="the folder")
    arguments = parser.parse_args()
    for name, draw in PICTURES.items():
        picture = draw()
        if isinstance(picture, Figure):
            save_figure(picture, arguments.output / name)
            continue
        with replacing(arguments.output / name) as temporary:
            if isinstance(picture, str):
                temporary.write_text(picture, encoding="utf-8", newline="\n")
            else:
                picture.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    main()
