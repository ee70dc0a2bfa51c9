"""Makes the packaged weights `expressions-48` of trained ones: store as float16, measure, draw.

    python benchmarks/expressions_48.py --data FOLDER --trained runs/expressions-48/model
    python benchmarks/expressions_48.py --data FOLDER --trained runs/expressions-48/model --split valid

The first command measures on the test split. It writes the weights with their card and samples, the figures as
docs/results/expressions-48.json and .md, and docs/images/expressions.png. The second measures on the valid split and
packages nothing: it is for choices, and leaves evaluation-valid.json in the trained folder. The judges are trained on
the train split, apart from the model, and kept in a folder for the next start.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from celeba import history, load_judges, save_enlarged
from PIL import Image
from torch import Tensor

from csvae_hub import hub, plotting
from csvae_hub.data import AttributeData, load_data
from csvae_hub.editing.aligned import put_back
from csvae_hub.evaluation import Judges, evaluate, reconstruction
from csvae_hub.evaluation.encoding import encode_data
from csvae_hub.evaluation.exclusive import group_change, group_probes
from csvae_hub.hub import CARD, PICTURE, replacing
from csvae_hub.hub.card import make_card
from csvae_hub.hub.card_tables import said, table
from csvae_hub.images import grid
from csvae_hub.models import CSVAE, Latents

ROOT = Path(__file__).resolve().parents[1]
NAME = "expressions-48"
FRAME = ROOT / "docs/results/expression-frame.json"
"""Where the faces of the set lie, by `expression_frame.py`."""
ADVERSARY = "adversary_net."
JUDGE_EPOCHS, JUDGE_SEED = 40, 0
"""Of real valid faces, `convnext` knows 46 % after 14 epochs, the number for CelebA, and 56 % after 40."""
AT_MOST = 4_000_000
"""Bytes of the packaged weights."""
BEHIND, WORST, ABOVE = 0.05, 0.40, 0.10
"""Aims: edits at most so far behind a judge's accuracy on real faces, none of the expressions below, and probes at most
so far above the base rate."""
PROBES = {"logistic": "a logistic", "mlp": "an MLP"}
SHOWN = "Happy"
"""The expression whose plane is drawn."""
FIELDS = {
    "license": "other",
    "license_name": "fer2013-research",
    "license_link": "https://arxiv.org/abs/1307.0414",
    "datasets": ["fer2013"],
}

OF_PHOTOS = """FER2013 (Goodfellow et al. 2013) was gathered for research, and the rights to its pictures are their
photographers': use these weights for research only.

## The frame of a photo

The faces of FER2013 are not aligned: in nine of ten training pictures the eyes are {lowest:.0f} to {highest:.0f} of
{side} pixels apart, and many faces are turned. `preprocessor.json` has the medians of the landmarks, measured on
{found} faces, and `csvae_hub.FaceEditor` brings the face in a photo there. The frame is closer than CelebA's: little
hair and background lie inside. For a picture that is a face already, framed about like this, there are the three lines
above.

The model is grey. In a colour photo `FaceEditor` changes the luminance and leaves the colours; the three lines give the
grey face that the model draws.

"""
OF_LABELS = """- FER2013 was gathered by a search engine, and its labels are noisy: people agree with them in about
  65 % of the cases. *{rarest}* has {count} of {all} test pictures, and as small a part of the training pictures. An
  expression means how a picture was labelled, not what a person feels.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="pictures with attributes.csv, splits train, valid, test")
    parser.add_argument("--trained", type=Path, required=True, help="the weights folder of a training")
    parser.add_argument("--split", choices=("test", "valid"), default="test", help="valid: packages nothing")
    parser.add_argument("--judges", type=Path, default=Path("runs/expression-judges"), help="kept between starts")
    parser.add_argument("--judge-epochs", type=int, default=JUDGE_EPOCHS)
    parser.add_argument("--pictures", type=int, help="at most so many of each split, to try the command")
    parser.add_argument("--weights", type=Path, default=hub.PACKAGED / NAME)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="gets results/ and images/")
    arguments = parser.parse_args()

    if arguments.split == "test":
        package(arguments.trained, arguments.weights)
    model = CSVAE.from_pretrained(arguments.weights if arguments.split == "test" else arguments.trained)
    names = ("train", "valid", "test") if arguments.split == "test" else ("train", "valid")
    splits = [split_of(arguments.data, model, name, arguments.pictures) for name in names]
    exclusive, epochs = model.config.exclusive, arguments.judge_epochs
    judges = load_judges(arguments.judges, splits[0], epochs, exclusive, JUDGE_SEED).to(model.device)
    command = "python benchmarks/expressions_48.py --data FOLDER --trained FOLDER"
    if arguments.split == "valid":
        found = summary(f"{command} --split valid", "valid", splits, measured(model, splits, judges))
        hub.write_json(arguments.trained / "evaluation-valid.json", found)
        say(figures(found))
        return
    result = evaluate(model, *splits, judges, put_back=put_back, progress=say)
    hub.write_json(arguments.weights / "evaluation.json", {**result, "command": command})
    found = summary(command, "test", splits, result)
    path = arguments.docs / "results" / f"{NAME}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    hub.write_json(path, found)
    with replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(figures(found), encoding="utf-8")
    model = model.to("cpu")
    averages = averages_of(model, splits[-1])
    draw(model, averages, arguments.weights / PICTURE, arguments.docs / "images/expressions.png")
    write_card(arguments.weights)
    say(figures(found))


def package(trained: Path, weights: Path) -> None:
    """Stores a trained model as float16, with the template of the set and the records of its training.

    The adversary, which training alone asks, would be a quarter of the file: a new one without hidden layers stands in
    its place.
    """
    whole = CSVAE.from_pretrained(trained, device="cpu")
    if SHOWN not in whole.attributes or len(whole.config.exclusive) != 1:
        raise SystemExit(f"{trained}: expected one group of expressions with {SHOWN}, got {whole.config.exclusive}")
    model = CSVAE(replace(whole.config, adversary=()), whole.preprocessor).eval()
    kept = {name: value for name, value in whole.state_dict().items() if not name.startswith(ADVERSARY)}
    missing, unexpected = model.load_state_dict(kept, strict=False)
    assert not unexpected
    assert all(name.startswith(ADVERSARY) for name in missing)
    size = 2 * sum(tensor.numel() for tensor in model.state_dict().values())
    if size > AT_MOST:
        raise SystemExit(f"{trained}: expected at most {AT_MOST} bytes as float16, got {size}: train a smaller model")
    landmarks = tuple((float(x), float(y)) for x, y in hub.read_json(FRAME)["landmarks"])
    model.preprocessor = replace(model.preprocessor, landmarks=landmarks)
    model.save_pretrained(weights, dtype=torch.float16, extra={"training.json": history(trained)})


def split_of(data: str, model: CSVAE, split: str, most: int | None) -> AttributeData:
    """A split as the model takes it; each picture has exactly one expression."""
    config = model.config
    found = load_data(data, config.attributes, split, config.image_size, channels=config.shape[0])
    return found.exclusive(config.exclusive).subset(range(min(len(found), most or len(found))))


def measured(model: CSVAE, splits: list[AttributeData], judges: Judges) -> dict[str, Any]:
    """Of what `evaluate` gives, reconstruction and groups, on the last split."""
    latents = tuple(encode_data(model, data) for data in splits)
    changes = group_change(model, splits[-1], judges, latents[-1])
    probes = group_probes(model, latents, tuple(data.labels for data in splits))
    return {
        "reconstruction": reconstruction(model, splits[-1], latents[-1]),
        "groups": [{**change, "z": probe} for change, probe in zip(changes, probes, strict=True)],
    }


def summary(command: str, split: str, splits: list[AttributeData], result: dict[str, Any]) -> dict[str, Any]:
    """The figures that the docs show, with the aims."""
    (group,) = result["groups"]
    counts = list(group["counts"].values())
    judges: dict[str, Any] = {}
    for name, judge in group["judges"].items():
        hits = (n * (row[i] or 0.0) for i, (n, row) in enumerate(zip(counts, judge["own_confusion"], strict=True)))
        judges[name] = {"own_rate": sum(hits) / sum(counts), **judge}
    return {
        "command": command,
        "split": split,
        "pictures": {"train": len(splits[0]), split: len(splits[-1])},
        "reconstruction": result["reconstruction"],
        "aims": aims(group),
        "group": {**group, "judges": judges},
    }


def aims(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Each aim with its limit, the figure and whether it is met; None where a figure is not known."""
    judges, z = group["judges"], group["z"]
    worst = {(name, to): share for name, judge in judges.items() for to, share in judge["to"].items()}
    known = {key: share for key, share in worst.items() if share is not None}
    judge, to = min(known, key=lambda key: known[key], default=("", ""))
    entries = [("edits taken for the wished expression, behind the judge's own accuracy", BEHIND, group["below_own"])]
    entries += [
        (f"{words} probe on z, above the base rate", ABOVE, z[kind] - z["base_rate"]) for kind, words in PROBES.items()
    ]
    found = [
        {"aim": words, "at_most": limit, "measured": figure, "met": None if figure is None else figure <= limit}
        for words, limit, figure in entries
    ]
    lowest = known.get((judge, to))
    words = f"edits taken for the wished expression, the worst ({to}, judge {judge})"
    met = None if len(known) < len(worst) or lowest is None else lowest >= WORST
    return [*found[:1], {"aim": words, "at_least": WORST, "measured": lowest, "met": met}, *found[1:]]


def figures(found: dict[str, Any]) -> str:
    """The figures as Markdown: the aims, the judges and probes, and for each judge the two matrices from → to."""
    group, members = found["group"], found["group"]["members"]
    rows = []
    for aim in found["aims"]:
        sign, limit, unit = ("≤", aim["at_most"], "points") if "at_most" in aim else ("≥", aim["at_least"], "%")
        came = "–" if aim["measured"] is None else f"{100 * aim['measured']:.1f} {unit}"
        met = {True: "met", False: "**missed**", None: "not known"}[aim["met"]]
        rows.append((aim["aim"], f"{sign} {100 * limit:g} {unit}", came, met))
    z, mse = group["z"], found["reconstruction"]["mse"]
    probes = ", ".join(f"{words} one {said(z[kind], 'accuracy')}" for kind, words in PROBES.items())
    parts = [
        table(("aim", "goal", "measured", ""), rows),
        f"{found['pictures'][found['split']]:,} pictures of the {found['split']} split; reconstruction: mean squared"
        f" error {mse:.4f}. Of softmax probes that read the expression from z, {probes} is right; the base rate is"
        f" {said(z['base_rate'], 'accuracy')}.",
    ]
    for name, judge in group["judges"].items():
        own, rate = (said(judge[key], "accuracy") for key in ("own_accuracy", "own_rate"))
        parts += [
            f"**Judge `{name}`.** Of edited faces {said(judge['accuracy'], 'accuracy')} are taken for the wished"
            " expression, the mean over from ≠ to. Rows: the expression of the real face; columns: the wished one.",
            matrix(members, judge["edits"]),
            f"Of real faces {own} are taken for their own, the mean over the expressions; {rate} of all pictures. Rows:"
            " the expression; columns: what it is taken for.",
            matrix(members, judge["own_confusion"]),
        ]
    return "\n\n".join(parts) + "\n"


def matrix(members: list[str], shares: list[list[float | None]]) -> str:
    """Shares from (row) → to (column) as a table in percent."""
    rows = [
        (name, *("–" if share is None else f"{100 * share:.0f}" for share in row))
        for name, row in zip(members, shares, strict=True)
    ]
    return table(("%", *members), rows)


def write_card(weights: Path) -> None:
    """Writes the card: what the folder's files say, and of the frame what was measured."""
    (weights / CARD).unlink(missing_ok=True)  # an earlier card would be kept
    frame, evaluation = hub.read_json(FRAME), hub.read_json(weights / "evaluation.json")
    apart, counts = frame["frame"]["eyes_apart"], evaluation["groups"][0]["counts"]
    rarest = min(counts, key=counts.__getitem__)
    of_photos = OF_PHOTOS.format(**apart, side=frame["side"], found=frame["found"])
    of_labels = OF_LABELS.format(rarest=rarest, count=counts[rarest], all=sum(counts.values()))
    text = make_card(weights, NAME, FIELDS)
    for heading, more in (("## What it is for\n", of_photos), ("- An attribute means", of_labels)):
        before, found, after = text.partition(heading)
        assert found
        text = before + more + found + after
    with replacing(weights / CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")


def averages_of(model: CSVAE, data: AttributeData) -> Tensor:
    """The mean z (n, z_dim) of all faces with each expression: nobody's face."""
    classes = torch.from_numpy(data.select(model.config.exclusive[0]).labels.argmax(1))
    z = encode_data(model, data).z
    return torch.stack([z[classes == c].mean(0) for c in range(len(model.config.exclusive[0]))])


@torch.no_grad()
def draw(model: CSVAE, averages: Tensor, samples: Path, expressions: Path) -> None:
    """Draws `samples`, averages (rows) with each expression (columns), and `expressions`, their mean and a plane."""
    columns = torch.stack([faces(model, averages, name) for name in model.config.exclusive[0]], 1)
    save_enlarged(grid(columns.flatten(0, 1), columns=len(averages)), samples, 2)

    mean = averages.mean(0, keepdim=True)
    row = labelled(model, mean)
    plane = plotting.traversal(model, latents_of(model, mean, SHOWN), SHOWN, steps=7)
    (axes,) = plane.axes
    axes.set(
        title=f"Kinds of {SHOWN}: the same face over the plane of its subspace",
        xlabel=f"first number of {SHOWN}'s subspace",
        ylabel=f"second number of {SHOWN}'s subspace",
    )
    words = {"absent": f"without {SHOWN}", "present": f"mean of {SHOWN}"}
    for text in axes.texts:
        text.set_text(words[text.get_text()])
    parts = [pictured(figure) for figure in (row, plane)]
    width = max(part.width for part in parts)
    whole = Image.new("RGB", (width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, ((width - part.width) // 2, top))
        top += part.height
    save_enlarged(whole, expressions, 1)


def latents_of(model: CSVAE, z: Tensor, name: str) -> Latents:
    """Faces of z (B, z_dim) with one expression, the others absent."""
    k = len(model.attributes)
    start = Latents(z, z.new_zeros(len(z), k, model.config.w_dim), z.new_zeros(len(z), k), model.attributes)
    return model.edit(start, {name: True})


def faces(model: CSVAE, z: Tensor, name: str) -> Tensor:
    """Decoded faces (B, C, S, S) of z with one expression."""
    return model.decode(latents_of(model, z, name)).float()


def labelled(model: CSVAE, mean: Tensor) -> Any:
    """A figure of the average face with each expression, in a row."""
    from matplotlib.figure import Figure

    names = model.config.exclusive[0]
    figure = Figure(figsize=(1.2 * len(names), 1.75), layout="constrained")
    figure.suptitle("The average face with each expression", fontsize=11)
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        picture = faces(model, mean, name)[0].expand(3, -1, -1).movedim(0, -1)
        axes.imshow(picture.numpy(), interpolation="bicubic")
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    return figure


def pictured(figure: Any) -> Image.Image:
    """A figure as a picture."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return Image.open(file).convert("RGB")


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
