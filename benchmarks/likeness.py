"""Measures how near to real pictures edits could come: what keeping the other attributes costs, and reconstruction.

    python benchmarks/likeness.py --data FOLDER --judges runs/judges -o docs/results/likeness.json

`frechet_over_floor` of `csvae eval` compares edited pictures with real ones that have the wished value. These are other
people, with other attributes, and they are not decoded. For each attribute and direction, of the stricter judge:

- `others_kept`: real pictures in the place of the edited ones, of people who have the wished value, chosen so that
  their other attributes are those of the people to be edited: edits that change nothing but the wished attribute.
- `reconstructed`: decoded pictures, without an edit, of people who have the wished value.

The first uses the train split, where there are people enough to choose from (`unlike`: labels a picture that still
differ), the second the valid split. All sets are as large as those of edited pictures of the valid split.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvae_hub import CSVAE, hub
from csvae_hub.data import load_data
from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation import Judges
from csvae_hub.evaluation.attribute_change import DIRECTIONS, FEWEST, frechet_distance, frechet_over_floor
from csvae_hub.evaluation.encoding import BATCH, decode_in_batches, encode_data
from csvae_hub.evaluation.metrics import mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="celeba-64", help="a packaged model or a folder")
    parser.add_argument("--data", required=True, help="pictures with attributes.csv, splits train and valid")
    parser.add_argument("--judges", type=Path, required=True, help="the folder of judges trained on the train split")
    parser.add_argument("--pictures", type=int, default=12_000, help="of the train split at most so many")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    model, judges = CSVAE.from_pretrained(arguments.model, device="cpu"), Judges.load(arguments.judges)
    train, valid = (load_data(arguments.data, model.attributes, s, model.config.image_size) for s in ("train", "valid"))
    train = train.subset(range(min(len(train), arguments.pictures)))
    result = measure(model, train, valid, judges)
    result["command"] = shlex.join(["python", "benchmarks/likeness.py", *sys.argv[1:]])
    hub.write_json(arguments.output, result)
    print({key: value for key, value in result.items() if key != "attributes"})


def measure(model: CSVAE, train: AttributeData, valid: AttributeData, judges: Judges) -> dict[str, Any]:
    """Both figures for each attribute and direction, and their means; None where there are too few pictures."""
    many, real = features(train, judges), features(valid, judges)
    _, decoded = judges.read(decode_in_batches(model, encode_data(model, valid)))
    attributes: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(model.attributes):
        attributes[name] = {}
        for direction, value in DIRECTIONS:
            lacking, having = (np.flatnonzero(valid.labels[:, i] == kind) for kind in (not value, value))
            count = min(len(lacking), len(having) // 2)
            chosen = torch.from_numpy(np.random.default_rng(0).permutation(having)[:count])
            ratios = (frechet_over_floor(own[chosen], r[having]) for own, r in zip(decoded, real, strict=True))
            attributes[name][direction] = {
                **others_kept(many, train.labels, i, value, count),
                "reconstructed": max((ratio for ratio in ratios if ratio is not None), default=None),
                "count": count,
            }
            print(name, direction, attributes[name][direction], flush=True)
    found = [entry for directions in attributes.values() for entry in directions.values()]
    figures = {key: mean(entry[key] for entry in found) for key in ("others_kept", "reconstructed", "unlike")}
    return {**figures, "attributes": attributes}


def others_kept(
    pictures: list[Tensor], labels: NDArray[np.float32], i: int, value: bool, count: int
) -> dict[str, float | None]:
    """The Fréchet distance over the floor of `count` real pictures, from features (N, D) of each judge."""
    generator = np.random.default_rng(0)
    lacking, having = (generator.permutation(np.flatnonzero(labels[:, i] == kind)) for kind in (not value, value))
    real, rest = having[: len(having) // 2], having[len(having) // 2 :]
    if not FEWEST <= count <= min(len(lacking), len(rest) // 2):
        return {"others_kept": None, "unlike": None}
    others = np.delete(labels, i, axis=1)
    alike, unlike = most_alike(others[rest], others[lacking[:count]])
    ratios = [
        frechet_distance(own[rest[alike]], own[real[:count]]) / frechet_distance(own[rest[:count]], own[real[:count]])
        for own in pictures
    ]
    return {"others_kept": max(ratios), "unlike": unlike}


def most_alike(labels: NDArray[np.float32], wished: NDArray[np.float32]) -> tuple[NDArray[np.int_], float]:
    """Rows of labels (N, k), each once: for each of `wished` (n, k) the most alike left; labels a row that differ."""
    chosen, unlike, taken = [], 0, np.zeros(len(labels), bool)
    for row in wished:
        differ = (labels != row).sum(1)
        chosen.append(int(np.where(taken, labels.shape[1] + 1, differ).argmin()))
        taken[chosen[-1]] = True
        unlike += int(differ[chosen[-1]])
    return np.array(chosen), unlike / len(wished)


def features(data: AttributeData, judges: Judges) -> list[Tensor]:
    """The features (N, D) of the pictures by each judge."""
    return judges.read(data.batch(rows)[0] for rows in torch.arange(len(data)).split(BATCH))[1]


if __name__ == "__main__":
    main()
