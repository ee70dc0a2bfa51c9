"""Makes the packaged weights `celeba-64` or `celeba-128`: train, store as float16, measure, draw.

    python benchmarks/celeba.py celeba-64 --data FOLDER --run runs/celeba-64
    python benchmarks/celeba.py celeba-128 --data FOLDER --trained runs/celeba-128/model

A run that was stopped is resumed; the second command takes weights that were trained already. The judges are trained by
the same script, apart from the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from csvae_hub import hub
from csvae_hub.data import AttributeData, load_data
from csvae_hub.editing.aligned import put_back
from csvae_hub.evaluation import Judges, attribute_change, evaluate, leakage, reconstruction, train_judges
from csvae_hub.evaluation.encoding import encode_data
from csvae_hub.evaluation.judges import EPOCHS
from csvae_hub.hub import CARD, replacing
from csvae_hub.hub.card import make_card, with_results
from csvae_hub.hub.card_tables import at, figures, said, table
from csvae_hub.images import grid, load_images
from csvae_hub.models import CSVAE, Latents
from csvae_hub.training import load_recipe, train

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples/astronaut.png"
FIELDS = {
    "license": "other",
    "license_name": "celeba-non-commercial-research",
    "license_link": "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    "datasets": ["celeba"],
}
PHOTOS = 400
"""Pictures of the valid split that are edited as photos; of the test split all are."""
DECODED = (
    ("Decoded: edits taken for the wished class, mean", ("attribute_change", "wished"), "accuracy", 0.92, None),
    ("Decoded: the same, worst direction", ("attribute_change", "worst"), "accuracy", 0.75, None),
    ("Decoded: change of the other attributes", ("attribute_change", "others"), "mae", None, 0.06),
)
AIMS = {
    "celeba-64": (
        *DECODED,
        ("Reconstruction, mean squared error", ("reconstruction", "mse"), "mse", None, 0.01),
        ("Leakage of z, MLP probes", ("leakage", "z", "mlp", "mean"), "auc", None, 0.85),
    ),
    "celeba-128": (
        *DECODED,
        ("Photos: edits taken for the wished class, mean", ("photos", "wished"), "accuracy", 0.85, None),
        ("Photos: the same, worst direction", ("photos", "worst"), "accuracy", 0.65, None),
        ("Photos: change of the other attributes", ("photos", "others"), "mae", None, 0.06),
        ("Reconstruction, PSNR in dB", ("reconstruction", "psnr"), "psnr", 24.0, None),
    ),
}
"""What the weights are to reach: words, place in evaluation.json, kind, at least, at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["celeba-64", "celeba-128"])
    parser.add_argument("--data", required=True, help="pictures with attributes.csv, splits train, valid, test")
    parser.add_argument("--run", type=Path, help="by default runs/NAME")
    parser.add_argument("--trained", type=Path, nargs="+", help="weights to store, instead of training; or their mean")
    parser.add_argument("--split", choices=["valid", "test"], default="test", help="valid: weights that are no end yet")
    parser.add_argument("--pictures", type=int, help="of the valid split at most so many, and no leakage: sooner")
    parser.add_argument("--judges", type=Path, default=Path("runs/judges"), help="kept here between starts")
    arguments = parser.parse_args()

    name, weights, run = arguments.name, hub.PACKAGED / arguments.name, arguments.run or Path("runs") / arguments.name
    if arguments.trained is None:
        train(load_recipe(name), arguments.data, run)
    folders = arguments.trained or [run / "model"]
    mean_of(folders).save_pretrained(weights, dtype=torch.float16, extra={"training.json": histories(folders)})
    model = CSVAE.from_pretrained(weights, device="cpu")
    size = model.config.image_size
    splits = [load_data(arguments.data, model.attributes, split, size) for split in ("train", "valid", "test")]
    judges = load_judges(arguments.judges, splits[0])
    draw(model, splits[1], weights / "samples.png", ROOT / f"docs/images/edits-{size}.png")
    if arguments.split == "test":
        photos, say = len(splits[2]), partial(print, flush=True)
        result = evaluate(model, *splits, judges, put_back=put_back, photos=photos, progress=say)
        result["command"] = f"csvae eval {name} --data FOLDER --judges runs/judges --photos {photos} -o evaluation.json"
        hub.write_json(weights / "evaluation.json", result)
        renew_card(weights / CARD, result)
    else:
        count = min(len(splits[1]), arguments.pictures or len(splits[1]))
        train_data = splits[0] if arguments.pictures is None else None
        result = measured(model, train_data, splits[1].subset(range(count)), judges)
        less = "" if arguments.pictures is None else f" --pictures {count}"
        result["command"] = f"python benchmarks/celeba.py {name} --data FOLDER --split valid{less}"
        for path in (ROOT / f"docs/results/{name}-valid.json", weights / "evaluation.json"):
            hub.write_json(path, result)
        if not (weights / CARD).is_file():
            (weights / CARD).write_text(make_card(weights, name, FIELDS), encoding="utf-8")
    text = f"{aims(name, result)}\n\n{figures(result, model.attributes)}\n"
    (ROOT / f"docs/results/{name}.md").write_text(text, encoding="utf-8")


@torch.no_grad()
def mean_of(folders: list[Path]) -> CSVAE:
    """The last of models that went on from the same weights, with the mean of all weights (Wortsman et al. 2022)."""
    models = [CSVAE.from_pretrained(folder, device="cpu") for folder in folders]
    states = [model.state_dict() for model in models]
    floats = [name for name, value in states[0].items() if value.is_floating_point()]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in floats}
    models[-1].load_state_dict({**states[-1], **mean})
    return models[-1]


def measured(model: CSVAE, train_data: AttributeData | None, data: AttributeData, judges: Judges) -> dict[str, Any]:
    """Reconstruction, edits and leakage of the valid split, decoded and as photos. Nothing of it goes into the card.

    The probes learn from the train split, stop by the first half of the valid split and are measured on the second;
    without a train split there are none.
    """
    print(f"measuring {len(data)} pictures", flush=True)
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:PHOTOS]
    few = AttributeData(data.images[chosen.numpy()], data.labels[chosen.numpy()], data.attributes)
    codes, half, probes = encode_data(model, data), len(data) // 2, {}
    if train_data is not None:
        halves = (codes[:half], codes[half:]), (data.labels[:half], data.labels[half:])
        probes = {"leakage": leakage((encode_data(model, train_data), *halves[0]), (train_data.labels, *halves[1]))}
    return {
        "split": "valid",
        "count": len(data),
        "attributes": list(model.attributes),
        "reconstruction": reconstruction(model, data),
        **probes,
        "attribute_change": attribute_change(model, data, judges, codes),
        "photos": attribute_change(model, few, judges, put_back=put_back(model)),
    }


def aims(name: str, result: dict[str, Any]) -> str:
    """The aims as a Markdown table."""
    rows = []
    for words, place, kind, least, most in AIMS[name]:
        found = at(result, *place)
        met = found >= least if least is not None else found <= most
        goal = f"≥ {said(least, kind)}" if least is not None else f"≤ {said(most, kind)}"
        rows.append((words, goal, said(found, kind), "met" if met else "**missed**"))
    return table(("aim", "goal", "measured", ""), rows)


def histories(folders: list[Path]) -> dict[str, Any]:
    """The histories of all, and `mean_of`, the names of more than one; a name that is there twice counts twice."""
    found = {name: record for folder in folders for name, record in history(folder).items()}
    return found | ({"mean": {"mean_of": [folder.parent.name for folder in folders]}} if len(folders) > 1 else {})


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
        card = path.read_text(encoding="utf-8") if path.is_file() else make_card(path.parent, path.parent.name, FIELDS)
        temporary.write_text(with_results(card, evaluation, path.parent.name), encoding="utf-8")


def load_judges(
    folder: Path, data: AttributeData, epochs: int = EPOCHS, exclusive: Sequence[Sequence[str]] = (), seed: int = 1
) -> Judges:
    """The judges in a folder, trained where there are none yet."""
    if not folder.is_dir():
        say = partial(print, flush=True)
        train_judges(data, exclusive, seed=seed, epochs=epochs, progress=say).save(folder)
    return Judges.load(folder)


@torch.no_grad()
def draw(model: CSVAE, data: AttributeData, samples: Path, edits: Path) -> None:
    """Draws `samples`, the average woman and man of `data` with each attribute switched, and `edits`, the photo so."""
    codes, male = encode_data(model, data), model.index("Male")
    y = torch.zeros(2, len(model.attributes))
    y[:, [model.index("No_Beard"), model.index("Young")]] = 1.0
    y[1, male] = 1.0
    averages = torch.stack([codes.z[codes.y[:, male] == value].mean(0) for value in (0, 1)])
    w = model.class_means[torch.arange(len(model.attributes)), y.long()]
    drawn = switched(model, Latents(averages, w, y, model.attributes))
    save_enlarged(grid(drawn.flatten(0, 1), columns=drawn.shape[1]), samples, 1)
    photo = load_images(PHOTO, model.preprocessor).tensor
    row = torch.cat([photo[:, None], switched(model, model.encode(photo))], 1)
    save_enlarged(grid(row.flatten(0, 1), columns=row.shape[1] // 2), edits, 256 // model.config.image_size)


def switched(model: CSVAE, latents: Latents) -> Tensor:
    """Latents decoded, and with each attribute switched in turn: (B, 1 + k, C, H, W)."""
    columns = [model.decode(latents)]
    for i, name in enumerate(model.attributes):
        on, off = (model.decode(model.edit(latents, {name: value})) for value in (True, False))
        columns.append(torch.where((latents.y[:, i] > 0.5)[:, None, None, None], off, on))
    return torch.stack(columns, 1)


def save_enlarged(picture: Image.Image, path: Path, zoom: int) -> None:
    """Writes a picture as a PNG, `zoom` times as large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.resize((zoom * picture.width, zoom * picture.height), Image.Resampling.BICUBIC).save(temporary, "PNG")


if __name__ == "__main__":
    main()
