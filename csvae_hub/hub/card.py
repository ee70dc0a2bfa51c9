"""The model card of a weights folder: README.md with front matter for the Hub, made from the folder's JSON files.

A card says only what the files say: anything else is left out or called "not stated".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csvae_hub.config import to_dict
from csvae_hub.errors import CardError
from csvae_hub.hub.card_tables import at, eval_results, framed, is_number, plain, renewed, table, texts
from csvae_hub.hub.folder import CARD, PICTURE, load_tensors, read_model_config
from csvae_hub.hub.safe_files import inside, read_bytes, read_json

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

LIBRARY = "csvae-hub"
WEAK = 0.75
"""The card calls an edit weak below this share of edits that reach the wished class."""
LEAKING = 0.55
"""The card says that z leaks above this mean AUC of MLP probes on z."""

MAX_FRONT_MATTER = 1 << 16
"""Upper bound in characters, since YAML is read slowly."""

_TOLD = "The decoder is told the attributes; an edit tells it another one."
CLASSES = {
    "csvae": (
        "CSVAE",
        "Conditional Subspace VAE (Klys, Snell, Zemel, NeurIPS 2018)",
        "Each attribute has a small latent subspace of its own; an edit moves within it.",
    ),
    "vae": (
        "VAE",
        "VAE whose edits add the difference of two class means, a baseline of Klys, Snell, Zemel (2018)",
        "An edit adds the difference between the mean codes of examples with and without the attribute.",
    ),
    "cond-vae": ("CondVAE", "conditional VAE, a baseline of Klys, Snell, Zemel (2018)", _TOLD),
    "cond-vae-info": ("CondVAEInfo", "conditional VAE with an adversary on z (Creswell et al. 2017)", _TOLD),
}
"""For each value of `ModelConfig.model`: its class, its description, and the way it changes an attribute."""


def make_card(folder: str | Path, name: str, fields: Mapping[str, Any] | None = None) -> str:
    """Gives the card of a weights folder: its own README.md if it has one, else one made from its JSON files.

    Args:
        folder: holds config.json and model.safetensors, and perhaps training.json, evaluation.json, samples.png.
        name: the name for `from_pretrained`, such as a repo id.
        fields: go into the front matter in place of the files' own: `license`, `license_name`, `license_link`,
            `datasets`, …

    Raises:
        WeightsError: a file is missing or corrupt.
        CardError: the Hub could not read the front matter of README.md.
    """
    folder = Path(folder)
    own = inside(folder, CARD)
    text = read_bytes(own).decode("utf-8", errors="replace") if own.is_file() else None
    if text is None or not text.lstrip().startswith("---"):
        facts = _Facts(folder, name, dict(fields or {}))
        return f"---\n{facts.front_matter().to_yaml()}\n---\n\n{facts.text() if text is None else text}"
    card = _read(text, str(own))
    for key, value in (fields or {}).items():
        card.data[key] = value
    return str(card) if fields else text


def with_results(text: str, evaluation: Mapping[str, Any], name: str) -> str:
    """Puts the figures of an evaluation into a card: into its front matter and its tables.

    Args:
        text: a card with front matter, perhaps with the tables of an earlier evaluation.
        evaluation: the result of `evaluate`.
        name: the model's name, for the table of results.

    Raises:
        CardError: the front matter can't be read.
    """
    card = _read(text, CARD)
    card.data["model_name"] = name
    card.data["eval_results"] = eval_results(
        evaluation, texts(card.data.get("datasets")), card.data.get("pipeline_tag")
    )
    card.text = renewed(card.text, evaluation)
    return str(card)


def licence_of(folder: str | Path) -> dict[str, str]:
    """Gives `license`, `license_name` and `license_link`, as far as the card that `make_card` gives has them.

    Raises:
        WeightsError: a file is missing or corrupt.
        CardError: the front matter of README.md can't be read.
    """
    data = _read(make_card(folder, Path(folder).name), CARD).data
    fields = {name: data.get(name) for name in ("license", "license_name", "license_link")}
    return {name: str(value) for name, value in fields.items() if value}


class _Facts:
    """The contents of a folder's files, worded as the parts of a card."""

    def __init__(self, folder: Path, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields
        self.config, tensors = read_model_config(folder), load_tensors(folder)
        self.training, self.evaluation = (_optional(folder, file) for file in ("training.json", "evaluation.json"))
        self.has_picture = inside(folder, PICTURE).is_file()
        self.numbers = sum(tensor.numel() for tensor in tensors.values())
        floating = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
        self.types = sorted(str(dtype).removeprefix("torch.") for dtype in floating)
        self.attributes, self.shape, self.is_image = self.config.attributes, self.config.shape, self.config.is_image
        model = self.config.model
        self.class_name, self.description, self.edits = CLASSES.get(model, ("AttributeModel", model, ""))
        self.runs = _runs(self.training)
        tables = [run["data"] for run in self.runs.values() if isinstance(run.get("data"), dict)]
        self.datasets = texts(fields.get("datasets")) or texts([_data_name(table) for table in tables])
        licences = texts([table.get("license") for table in tables])
        self.license = fields.get("license") or (licences[0] if len(licences) == 1 else None)

    def front_matter(self) -> ModelCardData:
        from huggingface_hub import ModelCardData

        task = "image-to-image" if self.is_image else None
        tags = [LIBRARY, self.config.model, "vae", "face-editing" if self.is_image else "disentanglement"]
        results = eval_results(self.evaluation, self.datasets, task)
        known = {
            "license": self.license,
            "library_name": LIBRARY,
            "pipeline_tag": task,
            "datasets": self.datasets or None,
            "tags": texts([*tags, *texts(self.fields.get("tags"))]),
        }
        data = ModelCardData(**{**known, **{k: v for k, v in self.fields.items() if k not in known}})
        if results:
            data.model_name, data.eval_results = self.name.rpartition("/")[2], results
        return data

    def text(self) -> str:
        parts = [
            f"# {plain(self.name.rpartition('/')[2])}",
            self._summary(),
            self._three_lines(),
            f"![Pictures made by the model]({PICTURE})" if self.has_picture else "",
            self._licence(),
            f"## What it is for\n\n{_uses('pictures' if self.is_image else 'vectors')}",
            "## Limits and bias\n\n" + self._limits(),
            "## What it is\n\n" + self._sizes(),
            "## How it was made\n\n" + self._training(),
            "## Measured\n\n" + self._measured(),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _summary(self) -> str:
        kind = f"{self.shape[1]}×{self.shape[2]} pictures" if self.is_image else f"vectors of {self.shape[0]} numbers"
        names = ", ".join(plain(name) for name in self.attributes)
        count = "1 attribute" if len(self.attributes) == 1 else f"{len(self.attributes)} attributes"
        groups = (
            f"A picture has exactly one of {', '.join(map(plain, group))}; an edit to one makes the others absent."
            for group in self.config.exclusive
        )
        return " ".join([f"A {plain(self.description)} of {kind} with {count}: {names}.", *groups, self.edits]).rstrip()

    def _three_lines(self) -> str:
        wanted = next((a for a in ("Eyeglasses", "Smiling", "Happy") if a in self.attributes), self.attributes[0])
        if self.is_image:
            use = f'model.set_attribute("face.jpg", {_quoted(wanted)}, True).save("edited.png")'
        else:
            use = f"model.set_attribute(x, {_quoted(wanted)}, True)  # x: a float tensor (B, {self.shape[0]})"
        name = _quoted(self.name)
        load = f"from csvae_hub import {self.class_name}\nmodel = {self.class_name}.from_pretrained({name})"
        return f"```python\n{load}\n{use}\n```\n\nIt takes `pip install csvae-hub`."

    def _licence(self) -> str:
        named = self.fields.get("license_name") or self.license
        if not named:
            return (
                "**Licence of the weights**: not stated. Ask their author before you use them; the data that they were"
                " trained on may set terms of its own."
            )
        link = self.fields.get("license_link")
        return f"**Licence of the weights**: {f'[{plain(named)}]({link})' if link else plain(named)}."

    def _sizes(self) -> str:
        config = self.config
        rows = [
            ("model", f"`{plain(config.model)}`, {self.numbers:,} numbers stored as {', '.join(self.types)}"),
            ("data", " × ".join(map(str, self.shape))),
            (
                "z",
                f"{config.z_dim} numbers"
                + (f" at {config.z_grid}×{config.z_grid} places" if config.z_grid > 1 else ""),
            ),
            ("backbone", ", ".join([f"`{plain(config.backbone.name)}`", *_options(to_dict(config.backbone))])),
        ]
        if config.model == "csvae":
            rows.insert(3, ("w", f"{len(self.attributes)} subspaces of {config.w_dim} numbers"))
        return table(("part", "size"), rows)

    def _training(self) -> str:
        if not self.runs:
            return "Not stated: there is no training.json."
        data = f"Data: {', '.join(plain(d) for d in self.datasets)}." if self.datasets else "The data is not named."
        keys = ("epochs", "batch_size", "learning_rate", "precision", "seed")
        rows = [
            (
                plain(name),
                f"{n:,}" if isinstance(n := run.get("examples"), int) else "–",
                *(plain(str(at(run, "trainer", key, default="–"))) for key in keys),
                plain(str(run.get("device", "–"))),
                f"{seconds / 60:.0f}" if is_number(seconds := run.get("elapsed_seconds")) else "–",
            )
            for name, run in self.runs.items()
        ]
        head = ("run", "examples", "epochs", "batch", "learning rate", "precision", "seed", "device", "minutes")
        return f"{data} Everything else is in `training.json`.\n\n{table(head, rows)}"

    def _measured(self) -> str:
        if not self.evaluation:
            return "Not yet: `csvae eval` measures it."
        count = at(self.evaluation, "data", "test", "count")
        said = f"On {count:,} examples of the test split.\n\n" if isinstance(count, int) else ""
        return said + framed(self.evaluation, self.attributes)

    def _limits(self) -> str:
        lines = [
            "An attribute means how examples were labelled, not what a person is. Attributes that go together in the"
            " data can go together in edits, and who is rare in the data is served worse."
        ]
        if self.is_image:
            lines.append(
                f"The model sees {self.shape[1]} pixels a side and gives soft pictures; it knows only pictures framed"
                " like those it was trained on."
            )
        leak = at(self.evaluation, "leakage", "z", "mlp", "mean")
        if is_number(leak) and leak > LEAKING:
            lines.append(f"z still says something of the attributes: MLP probes on it reach a mean AUC of {leak:.3f}.")
        weak = [
            f"{plain(name)} {to.replace('_', ' ')} ({100 * wished:.0f} %)"
            for name in self.attributes
            for to in ("to_present", "to_absent")
            if is_number(wished := at(self.evaluation, "attribute_change", "attributes", name, to, "wished"))
            and wished < WEAK
        ]
        if weak:
            lines.append(f"These edits often fail to convince a separate classifier: {', '.join(weak)}.")
        if not self.evaluation:
            lines.append("Nothing was measured: how well its edits do is not known.")
        return "\n".join(f"- {line}" for line in lines)


def _uses(things: str) -> str:
    return (
        f"- Changing the attributes above in {things} like those that the model was trained on, and studying how a"
        " latent space keeps attributes apart.\n"
        "- Not for identifying people, not for deciding anything about a person, and not for pictures that deceive"
        " others about a real one. Say that a picture was edited where you show it."
    )


def _read(text: str, where: str) -> ModelCard:
    """Parses a card with the Hub's own class."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        end = re.search(r"[\r\n]---[\r\n]", text)
        if end and end.start() > MAX_FRONT_MATTER:
            raise ValueError(f"{end.start()} characters of it: expected at most {MAX_FRONT_MATTER}")
        return ModelCard(text)
    except (ValueError, TypeError, AttributeError, RecursionError, YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CardError(
            f"{where}: expected front matter of YAML between two lines of ---, as the Hub reads it, got {reason}"
        ) from error


def _optional(folder: Path, name: str) -> dict[str, Any]:
    path = inside(folder, name)
    return read_json(path) if path.is_file() else {}


def _runs(training: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The records of training.json by name, in order; a file that is one record gets the name "1"."""
    if not training:
        return {}
    if "trainer" in training or not all(isinstance(value, dict) for value in training.values()):
        return {"1": dict(training)}
    return {name: dict(value) for name, value in training.items()}


def _options(backbone: Mapping[str, Any]) -> list[str]:
    """The options of a backbone other than its name: "width 32", "film"."""
    options = ((str(k), v) for k, v in backbone.items() if k != "name" and v not in ("", False))
    return [plain(key if value is True else f"{key} {value}") for key, value in options]


def _data_name(table: Mapping[str, Any]) -> str | None:
    """The name of a data set; None for a path, which is private to the author."""
    name = table.get("name") or table.get("source")
    return name if isinstance(name, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) else None


def _quoted(text: str) -> str:
    """Quotes a text for one line of Python in a Markdown block; no text can end the block."""
    return json.dumps(" ".join(text.split()).replace("`", "'"), ensure_ascii=False)
