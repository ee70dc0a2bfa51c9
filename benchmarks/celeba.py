"""Makes the packaged weights `celeba-64` or `celeba-128`: train, store as float16, measure, draw.

    python benchmarks/celeba.py celeba-64 --data FOLDER --run runs/celeba-64
    python benchmarks/celeba.py celeba-128 --data FOLDER --trained runs/celeba-128/model

A run that was stopped is resumed; the second command takes weights that were trained already. The judges are trained by
the same script, apart from the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from csvae_hub import hub
from csvae_hub.data import AttributeData, load_data
from csvae_hub.editing.aligned import put_back
from csvae_hub.evaluation import Judges, attribute_change, evaluate, reconstruction, train_judges
from csvae_hub.evaluation.judges import EPOCHS
from csvae_hub.hub import CARD, replacing
from csvae_hub.hub.card import make_card, with_results
from csvae_hub.hub.card_tables import figures
from csvae_hub.images import grid, load_images
from csvae_hub.models import CSVAE
from csvae_hub.training import load_recipe, train

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples/astronaut.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["celeba-64", "celeba-128"])
    parser.add_argument("--data", required=True, help="pictures with attributes.csv, splits train, valid, test")
    parser.add_argument("--run", type=Path, help="by default runs/NAME")
    parser.add_argument("--trained", type=Path, help="weights to store, instead of training")
    parser.add_argument("--judges", type=Path, default=Path("runs/judges"), help="kept here between starts")
    arguments = parser.parse_args()

    name, weights, run = arguments.name, hub.PACKAGED / arguments.name, arguments.run or Path("runs") / arguments.name
    if arguments.trained is None:
        train(load_recipe(name), arguments.data, run)
    folder = arguments.trained or run / "model"
    CSVAE.from_pretrained(folder, device="cpu").save_pretrained(
        weights, dtype=torch.float16, extra={"training.json": history(folder)}
    )
    model = CSVAE.from_pretrained(weights, device="cpu")
    size = model.config.image_size
    splits = [load_data(arguments.data, model.attributes, split, size) for split in ("train", "valid", "test")]
    judges = load_judges(arguments.judges, splits[0])
    result = evaluate(model, *splits, judges, put_back=put_back, progress=lambda line: print(line, flush=True))
    result["command"] = f"csvae eval {name} --data FOLDER --judges runs/judges -o evaluation.json"
    hub.write_json(weights / "evaluation.json", result)
    renew_card(weights / CARD, result)
    print(figures(result, model.attributes))
    valid = {
        "command": f"python benchmarks/celeba.py {name} --data FOLDER",
        "split": "valid",
        "reconstruction": reconstruction(model, splits[1]),
        "attribute_change": attribute_change(model, splits[1], judges),
    }
    hub.write_json(ROOT / f"docs/results/{name}-valid.json", valid)
    draw(model, weights / "samples.png", ROOT / f"docs/images/edits-{size}.png")


def history(folder: Path) -> dict[str, Any]:
    """The records of how weights were trained, and before them those of the weights that they started from, by name."""
    record = hub.read_json(folder / "training.json")
    if all(isinstance(value, dict) for value in record.values()):
        return record  # of several trainings already
    initial = record.pop("initial", None)
    return {**(history(hub.resolve(initial)) if initial else {}), folder.parent.name: record}


def renew_card(path: Path, evaluation: dict[str, Any]) -> None:
    """Puts the figures into a card; what is said of them in words stays, and is to be read again."""
    with replacing(path) as temporary:
        card = path.read_text(encoding="utf-8") if path.is_file() else make_card(path.parent, path.parent.name)
        temporary.write_text(with_results(card, evaluation, path.parent.name), encoding="utf-8")


def load_judges(folder: Path, data: AttributeData, epochs: int = EPOCHS) -> Judges:
    """The judges in a folder, trained where there are none yet."""
    if not folder.is_dir():
        train_judges(data, seed=1, epochs=epochs, progress=lambda line: print(line, flush=True)).save(folder)
    return Judges.load(folder)


@torch.no_grad()
def draw(model: CSVAE, samples: Path, edits: Path) -> None:
    """Draws `samples`, z from the prior and w at class means, and `edits`: the photo and three of them, edited."""
    generator = torch.Generator().manual_seed(3)
    k = len(model.attributes)
    y = torch.bernoulli(torch.full((48, k), 0.2), generator=generator)
    y[:, model.index("No_Beard")] = 1 - y[:, model.index("Male")] * y[:, model.index("No_Beard")]
    y[:, model.index("Young")] = 1.0
    z = torch.randn(48, model.config.z_dim, generator=generator)
    drawn = model.decode(z, model.class_means[torch.arange(k), y.long()])
    save_enlarged(grid(drawn, columns=12), samples, 2)

    photo = load_images(PHOTO, model.preprocessor).tensor
    pictures = torch.cat([photo, drawn[:3]])
    latents = model.encode(pictures)
    columns = [pictures, model.decode(latents)]
    for i, name in enumerate(model.attributes):
        on, off = (model.decode(model.edit(latents, {name: value})) for value in (True, False))
        columns.append(torch.where((latents.y[:, i] > 0.5)[:, None, None, None], off, on))
    save_enlarged(grid(torch.stack(columns, 1).flatten(0, 1), columns=len(columns)), edits, 2)


def save_enlarged(picture: Image.Image, path: Path, zoom: int) -> None:
    """Writes a picture as a PNG, `zoom` times as large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.resize((zoom * picture.width, zoom * picture.height), Image.Resampling.BICUBIC).save(temporary, "PNG")


if __name__ == "__main__":
    main()
