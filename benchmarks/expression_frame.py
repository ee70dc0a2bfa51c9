"""Measures where the faces of a set that is not aligned lie: the template for weights that are trained on it.

    python benchmarks/expression_frame.py --data FOLDER

YuNet looks for the five landmarks in random pictures of the train split, enlarged, with the border's pixels continued
to all sides. Each face that it finds counts twice, as it is and mirrored, as in training. Of each coordinate the median
is taken, so that single faces found in a wrong place don't matter. `landmarks` are these medians as a preprocessor has
them; `pixels` are the same in the set's own pictures, and `quartiles` say how far the faces differ there. `frame`
compares each face with the template: its eyes' distance, its turn, and the distance of its landmarks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csvae_hub import hub
from csvae_hub.data import load_data
from csvae_hub.editing import YuNet
from csvae_hub.editing.alignment import Points, fit, from_crop

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs/results/expression-frame.json"
MIRRORED = [1, 0, 2, 4, 3]
"""The order of the landmarks in a mirrored picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="pictures with attributes.csv")
    parser.add_argument("--side", type=int, default=48, help="of the pictures, in pixels")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--enlarge", type=int, default=6)
    parser.add_argument("--margin", type=int, default=16, help="pixels that are continued on each side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    arguments = parser.parse_args()

    data = load_data(arguments.data, None, "train", arguments.side, channels=1)
    rows = np.random.default_rng(arguments.seed).permutation(len(data))[: arguments.pictures]
    faces = found(data.images[rows, 0], arguments.enlarge, arguments.margin)
    options = {name: getattr(arguments, name) for name in ("side", "enlarge", "margin", "seed")}
    result = {"command": "python benchmarks/expression_frame.py --data FOLDER", **options, "split": "train"}
    result |= {"pictures": len(rows), "found": len(faces), **measured(faces, arguments.side)}
    hub.write_json(arguments.output, result)
    print(f"{len(faces)} of {len(rows)} faces; landmarks {result['landmarks']}")


def found(pictures: NDArray[np.uint8], enlarge: int, margin: int) -> Points:
    """The landmarks (F, 5, 2) of the largest face in each grey picture (N, S, S), where there is one, in its pixels."""
    detector, faces = YuNet(), []
    for picture in pictures:
        wide = Image.fromarray(np.pad(picture, margin, mode="edge")).convert("RGB")
        large = wide.resize((enlarge * wide.width, enlarge * wide.height), Image.Resampling.BICUBIC)
        faces += [face.landmarks / enlarge - margin for face in detector.detect(large)[:1]]
    return np.array(faces)


def measured(faces: Points, side: int) -> dict[str, Any]:
    """The template of faces (F, 5, 2) in pictures of `side` pixels, and their spread around it."""
    both = np.concatenate([faces, (faces * (-1, 1) + (side, 0))[:, MIRRORED]])
    low, middle, high = np.quantile(both, (0.25, 0.5, 0.75), axis=0)
    transforms = [fit(middle, face) for face in faces]
    turns = [abs(np.degrees(np.arctan2(*one.linear[::-1, 0]))) for one in transforms]
    apart = [one.scale * np.hypot(*(middle[1] - middle[0])) for one in transforms]
    distances = np.hypot(*np.moveaxis(faces - middle, -1, 0)).mean(1)
    return {
        "landmarks": from_crop(middle, side).round(1).tolist(),
        "pixels": middle.round(2).tolist(),
        "quartiles": [low.round(2).tolist(), high.round(2).tolist()],
        "frame": {
            "eyes_apart": spread(apart),
            "turn_degrees": spread(turns),
            "distance_pixels": spread(distances),
        },
    }


def spread(values: Any) -> dict[str, float]:
    """Median, and the two values between which the middle nine tenths lie."""
    names = {"median": 0.5, "lowest": 0.05, "highest": 0.95}
    return {name: round(float(np.quantile(values, share)), 2) for name, share in names.items()}


if __name__ == "__main__":
    main()
