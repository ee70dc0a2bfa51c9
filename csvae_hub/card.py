"""The model card of a weights folder: README.md made from the folder's JSON files, with front matter for the Hub.

A card says what the files say and nothing else: what a file leaves out, the card leaves out or calls not stated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from csvae_hub.errors import CardError
from csvae_hub.hub import open_weights, read_config, read_json
from csvae_hub.safe_files import inside

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

LIBRARY = "csvae-hub"
CARD, PICTURE = "README.md", "samples.png"

CLASSES = {
    "csvae": ("CSVAE", "Conditional Subspace VAE (Klys, Snell, Zemel, NeurIPS 2018)"),
    "vae": ("VAE", "VAE whose edits add the difference of two class means, a baseline of Klys, Snell, Zemel (2018)"),
    "cond-vae": ("CondVAE", "conditional VAE, a baseline of Klys, Snell, Zemel (2018)"),
    "cond-vae-info": ("CondVAEInfo", "conditional VAE with an adversary on z (Creswell et al. 2017)"),
}
"""The class and the description of each value of `ModelConfig.model`."""

EDITS = {
    "csvae": "Each attribute has a small latent subspace of its own; an edit moves within it.",
    "vae": "An edit adds the difference between the mean codes of examples with and without the attribute.",
    "cond-vae": "The decoder is told the attributes; an edit tells it another one.",
    "cond-vae-info": "The decoder is told the attributes; an edit tells it another one.",
}
"""How each model changes an attribute."""

METRICS = (
    (("reconstruction", "mse"), "mse", "Reconstruction, mean squared error of values in [0, 1]"),
    (("reconstruction", "psnr"), "psnr", "Reconstruction, PSNR in dB"),
    (("reconstruction", "ssim"), "ssim", "Reconstruction, SSIM"),
    (("attribute_change", "wished"), "accuracy", "Edits that a separate classifier takes for the wished class, mean"),
    (("attribute_change", "worst"), "accuracy", "The same, worst attribute and direction"),
    (("attribute_change", "others"), "mae", "Change of the other attributes' probabilities by an edit"),
    (("leakage", "z", "logistic", "mean"), "roc_auc", "Leakage: logistic probes that read the attributes from z"),
    (("leakage", "z", "mlp", "mean"), "roc_auc", "Leakage: MLP probes that read the attributes from z"),
)
"""Where a figure is in evaluation.json, the Hub's name of the metric, and ours."""


def make_card(folder: str | Path, name: str, fields: Mapping[str, Any] | None = None) -> str:
    """Gives the card of a weights folder: its own README.md where there is one, else one made of its JSON files.

    Args:
        folder: with config.json and model.safetensors, and training.json, evaluation.json, samples.png where known.
        name: what `from_pretrained` takes, such as a repo id.
        fields: of the front matter, over what the files say: `license`, `license_name`, `license_link`, `datasets`, …

    Raises:
        WeightsError: a file is missing or corrupt.
        CardError: README.md begins with front matter that the Hub would not read.
    """
    folder = Path(folder)
    own = inside(folder, CARD)
    if not own.is_file():
        facts = _Facts(folder, name, dict(fields or {}))
        return f"---\n{facts.front_matter().to_yaml()}\n---\n\n{facts.text()}"
    text = own.read_bytes().decode("utf-8", errors="replace")
    if not text.lstrip().startswith("---"):
        return f"---\n{_Facts(folder, name, dict(fields or {})).front_matter().to_yaml()}\n---\n\n{text}"
    card = _read(text, str(own))
    for key, value in (fields or {}).items():
        card.data[key] = value
    return str(card) if fields else text


def with_results(text: str, evaluation: Mapping[str, Any], name: str) -> str:
    """Gives a card with the figures of an evaluation in its front matter; the rest stays.

    Args:
        text: a card with front matter.
        evaluation: what `evaluate` gave.
        name: the model's, for the table of results.

    Raises:
        CardError: the front matter can't be read.
    """
    card = _read(text, CARD)
    card.data["model_name"] = name
    datasets = card.data.get("datasets") or []
    datasets = [datasets] if isinstance(datasets, str) else datasets
    card.data["eval_results"] = eval_results(evaluation, datasets, card.data.get("pipeline_tag"))
    return str(card)


def eval_results(evaluation: Mapping[str, Any], datasets: list[str], task: str | None) -> list[EvalResult]:
    """Gives the figures of an evaluation as the Hub's `EvalResult`s; those that were not measured are left out."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=task or "other",
            dataset_type=datasets[0] if datasets else "custom",
            dataset_name=datasets[0] if datasets else "not stated",
            dataset_split="test",
            metric_type=kind,
            metric_name=title,
            metric_value=float(f"{value:.4g}"),
        )
        for path, kind, title in METRICS
        if _is_number(value := _at(evaluation, *path))
    ]


WEAK = 0.75
"""The share of edits taken for the wished class below which the card calls an edit weak."""


class _Facts:
    """What the files of a folder say, in the parts of a card."""

    def __init__(self, folder: Path, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields
        self.config = read_config(folder)
        self.training, self.evaluation = (_optional(folder, file) for file in ("training.json", "evaluation.json"))
        self.has_picture = inside(folder, PICTURE).is_file()
        file = open_weights(folder)
        self.numbers = file.numbers
        self.types = sorted({str(t).removeprefix("torch.") for t in file.dtypes.values() if t.is_floating_point})
        self.attributes: list[str] = list(self.config["attributes"])
        self.shape: list[int] = list(self.config["shape"])
        self.is_image = len(self.shape) == 3
        self.class_name, self.description = CLASSES.get(self.config["model"], ("AttributeModel", self.config["model"]))
        self.runs = _runs(self.training)
        tables = [run["data"] for run in self.runs if isinstance(run.get("data"), dict)]
        self.datasets = fields.get("datasets") or _unique(_data_name(table) for table in tables)
        licences = _unique(table.get("license") for table in tables)
        self.license = fields.get("license") or (licences[0] if len(licences) == 1 else None)

    def front_matter(self) -> ModelCardData:
        from huggingface_hub import ModelCardData

        task = "image-to-image" if self.is_image else None
        tags = [LIBRARY, self.config["model"], "vae", "face-editing" if self.is_image else "disentanglement"]
        results = eval_results(self.evaluation, self.datasets, task)
        known = {
            "license": self.license,
            "library_name": LIBRARY,
            "pipeline_tag": task,
            "datasets": self.datasets or None,
            "tags": _unique([*tags, *self.fields.get("tags", [])]),
        }
        data = ModelCardData(**{**known, **{k: v for k, v in self.fields.items() if k not in known}})
        if results:
            data.model_name, data.eval_results = self.name.rpartition("/")[2], results
        return data

    def text(self) -> str:
        parts = [
            f"# {_plain(self.name.rpartition('/')[2])}",
            self._summary(),
            self._three_lines(),
            f"![Pictures made by the model]({PICTURE})" if self.has_picture else "",
            self._licence(),
            "## What it is for\n\n" + self._uses(),
            "## What it is\n\n" + self._sizes(),
            "## How it was made\n\n" + self._training(),
            "## Measured\n\n" + self._measured(),
            "## Limits and bias\n\n" + self._limits(),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _summary(self) -> str:
        kind = f"{self.shape[1]}×{self.shape[2]} pictures" if self.is_image else f"vectors of {self.shape[0]} numbers"
        names = ", ".join(_plain(name) for name in self.attributes)
        return (
            f"A {_plain(self.description)} of {kind} with {_count(len(self.attributes), 'attribute')}: {names}."
            f" {EDITS.get(self.config['model'], '')}".rstrip()
        )

    def _three_lines(self) -> str:
        wanted = next((a for a in ("Eyeglasses", "Smiling") if a in self.attributes), self.attributes[0])
        if self.is_image:
            use = f'model.set_attribute("photo.jpg", {_quoted(wanted)}, True).save("edited.png")'
        else:
            use = f"model.set_attribute(x, {_quoted(wanted)}, True)  # x: a float tensor (B, {self.shape[0]})"
        name = _quoted(self.name)
        load = f"from csvae_hub import {self.class_name}\nmodel = {self.class_name}.from_pretrained({name})"
        return f"```python\n{load}\n{use}\n```"

    def _licence(self) -> str:
        named = self.fields.get("license_name") or self.license
        if not named:
            return (
                "**Licence of the weights**: not stated. Ask their author before you use them; the data that they were"
                " trained on may set terms of its own."
            )
        link = self.fields.get("license_link")
        return f"**Licence of the weights**: {f'[{named}]({link})' if link else named}."

    def _uses(self) -> str:
        things = "pictures" if self.is_image else "vectors"
        return (
            f"- Changing the attributes above in {things} like those that the model was trained on, and studying how a"
            " latent space keeps attributes apart.\n"
            "- Not for identifying people, not for deciding anything about a person, and not for pictures that deceive"
            " others about a real one."
        )

    def _sizes(self) -> str:
        config, backbone = self.config, self.config.get("backbone") or {}
        rows = [
            ("model", f"`{config['model']}`, {self.numbers:,} numbers stored as {', '.join(self.types)}"),
            ("data", " × ".join(map(str, self.shape))),
            ("z", f"{config.get('z_dim', 'not stated')} numbers"),
            ("backbone", ", ".join(f"{_plain(str(k))} {_plain(str(v))}" for k, v in backbone.items() if v != "")),
        ]
        if config["model"] == "csvae":
            rows.insert(3, ("w", f"{len(self.attributes)} subspaces of {config.get('w_dim', 'not stated')} numbers"))
        return _table(("", ""), rows)

    def _training(self) -> str:
        if not self.runs:
            return "Not stated: there is no training.json."
        data = f"Data: {', '.join(_plain(d) for d in self.datasets)}." if self.datasets else "The data is not named."
        keys = ("epochs", "batch_size", "learning_rate", "precision", "seed")
        rows: list[tuple[str, ...]] = []
        for number, run in enumerate(self.runs, 1):
            seconds = run.get("elapsed_seconds")
            rows.append(
                (
                    str(number),
                    str(run.get("examples", "–")),
                    *(_plain(str(_at(run, "trainer", key, default="–"))) for key in keys),
                    _plain(str(run.get("device", "–"))),
                    f"{seconds / 60:.0f}" if _is_number(seconds) else "–",
                )
            )
        head = ("run", "examples", "epochs", "batch", "learning rate", "precision", "seed", "device", "minutes")
        return f"{data} Everything else is in `training.json`.\n\n{_table(head, rows)}"

    def _measured(self) -> str:
        if not self.evaluation:
            return "Not yet: `csvae eval` measures it."
        rows = [
            (title, f"{value:.4g}") for path, _, title in METRICS if _is_number(value := _at(self.evaluation, *path))
        ]
        count = _at(self.evaluation, "data", "test", "count")
        said = f"On {count:,} examples of the test split. " if isinstance(count, int) else ""
        said += "AUC of 0.5: z says nothing about the attribute; 1: everything."
        parts = [said, _table(("figure", "measured"), rows)]
        change = _at(self.evaluation, "attribute_change", "attributes")
        if isinstance(change, dict):
            parts.append(
                _table(("attribute", "wished: to present", "wished: to absent", "AUC from z (MLP)"), self._rows())
            )
        return "\n\n".join(parts)

    def _rows(self) -> list[tuple[str, ...]]:
        evaluation, rows = self.evaluation, []
        for name in self.attributes:
            change = [_at(evaluation, "attribute_change", "attributes", name, to, "wished") for to in _DIRECTIONS]
            auc = _at(evaluation, "leakage", "z", "mlp", "attributes", name, "auc")
            shares = [f"{100 * v:.1f} %" if _is_number(v) else "–" for v in change]
            rows.append((_plain(name), *shares, f"{auc:.3f}" if _is_number(auc) else "–"))
        return rows

    def _limits(self) -> str:
        lines = [
            "An attribute means how examples were labelled, not what a person is. Attributes that go together in the"
            " data can go together in edits, and who is rare in the data is served worse.",
        ]
        if self.is_image:
            lines.append(
                f"The model sees {self.shape[1]} pixels a side and gives soft pictures; it knows only pictures framed"
                " like those it was trained on."
            )
        leak = _at(self.evaluation, "leakage", "z", "mlp", "mean")
        if _is_number(leak) and leak > 0.55:
            lines.append(f"z still says something of the attributes: MLP probes on it reach a mean AUC of {leak:.3f}.")
        weak = [
            f"{_plain(name)} {to.replace('_', ' ')} ({100 * wished:.0f} %)"
            for name in self.attributes
            for to in _DIRECTIONS
            if _is_number(wished := _at(self.evaluation, "attribute_change", "attributes", name, to, "wished"))
            and wished < WEAK
        ]
        if weak:
            lines.append(f"These edits often fail to convince a separate classifier: {', '.join(weak)}.")
        if not self.evaluation:
            lines.append("Nothing was measured: how well its edits do is not known.")
        return "\n".join(f"- {line}" for line in lines)


_DIRECTIONS = ("to_present", "to_absent")


def _read(text: str, where: str) -> ModelCard:
    """A card, taken apart by the Hub's own class."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        return ModelCard(text)
    except (ValueError, TypeError, YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CardError(
            f"{where}: expected front matter of YAML between two lines of ---, as the Hub reads it, got {reason}"
        ) from error


def _optional(folder: Path, name: str) -> dict[str, Any]:
    path = inside(folder, name)
    return read_json(path) if path.is_file() else {}


def _runs(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of training.json, in order: one, or one under each name where the weights took several runs."""
    if not training:
        return []
    if "trainer" in training or not all(isinstance(value, dict) for value in training.values()):
        return [dict(training)]
    return [dict(value) for value in training.values()]


def _data_name(table: Mapping[str, Any]) -> str | None:
    """The name of a data set; a path on its author's disk is nobody's business."""
    name = table.get("name") or table.get("source")
    return name if isinstance(name, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) else None


def _at(content: Any, *path: str, default: Any = None) -> Any:
    """What nested objects hold at a path, or under its names joined by dots."""
    dotted = content.get(".".join(path)) if isinstance(content, Mapping) else None
    for key in path:
        content = content.get(key) if isinstance(content, Mapping) else None
    found = content if content is not None else dotted
    return default if found is None else found


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(value for value in values if isinstance(value, str) and value))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _plain(text: str) -> str:
    """Text without what Markdown, its tables or HTML would act on."""
    return re.sub(r"([|`\[\]*\\])", r"\\\1", " ".join(text.split()).replace("<", "&lt;"))


def _quoted(text: str) -> str:
    """Text in double quotes, as code of one line that no text ends early."""
    return json.dumps(" ".join(text.split()).replace("`", "'"), ensure_ascii=False)


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
