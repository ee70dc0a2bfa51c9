"""Recipes: everything a training run needs but the data, as TOML, and the function that follows one."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from csvae_hub.backbones import with_package
from csvae_hub.config import ModelConfig, check, from_dict, to_dict
from csvae_hub.errors import ConfigError, did_you_mean
from csvae_hub.hub import read_json, write_json
from csvae_hub.training.objective import Objective, ObjectiveConfig
from csvae_hub.training.trainer import Trainer, TrainerConfig

if TYPE_CHECKING:
    from csvae_hub.classifier import AttributeClassifier
    from csvae_hub.data import AttributeData
    from csvae_hub.models import AttributeModel

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

FOLDER = Path(__file__).parent / "recipes"
"""Where the packaged recipes are."""


@dataclass(frozen=True)
class DataConfig:
    """Which data: `source` stands where the user names none; `examples` and `seed` are those of data that is drawn."""

    source: str = ""
    examples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.examples >= 1, "data.examples", "1 or more", self.examples)


@dataclass(frozen=True)
class GuideConfig:
    """How the guide is trained: the classifier of edited pictures, where the objective has a consistency term."""

    epochs: int = 12
    width: int = 32
    depth: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "width", "depth"):
            check(getattr(self, name) >= 1, f"guide.{name}", "1 or more", getattr(self, name))


@dataclass(frozen=True)
class Recipe:
    """The tables of a recipe's TOML file; a field that is left out has the default of its dataclass."""

    model: ModelConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)


def list_recipes() -> list[str]:
    """Names of the recipes that come with the library."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name_or_path: str | Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Reads a recipe by its name or from a TOML file.

    A file that begins with `extends = "NAME"` has that recipe's fields where it gives none.

    Args:
        name_or_path: one of `list_recipes`, or a path that ends in .toml.
        overrides: values in TOML's words by dotted name, as {"trainer.epochs": "3"}; a word that isn't TOML is text.

    Raises:
        ConfigError: no such recipe, no TOML, or a field that is unknown or can't have this value; each is named.
    """
    tables = _read(name_or_path)
    for name, text in (overrides or {}).items():
        _override(tables, name, text)
    return from_dict(Recipe, tables)


def _read(name_or_path: str | Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a recipe, over those of the recipe that it extends."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        known = list_recipes()
        raise ConfigError(
            f"no recipe {str(name_or_path)!r}:{did_you_mean(str(name_or_path), known)} "
            f"Expected one of {', '.join(known)}, or the path of a .toml file"
        )
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    base = tables.pop("extends", None)
    if base is None:
        return tables
    if path in extended_by:
        raise ConfigError(f"{path}: extends itself by way of {base!r}: name a recipe that does without this one")
    return _over(_read(base, (*extended_by, path)), tables)


def _over(base: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    """Both, table by table; where both give a field, that of `tables`."""
    merged = dict(base)
    for name, value in tables.items():
        before = merged.get(name)
        merged[name] = _over(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _override(tables: dict[str, Any], name: str, text: str) -> None:
    *parents, last = name.split(".")
    if not parents:
        raise ConfigError(f"{name!r}: expected TABLE.FIELD=VALUE such as trainer.epochs=3")
    table = tables
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{name!r}: {parent!r} is a value, not a table: it has no field {last!r}")
    try:
        table[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = text


def train(
    recipe: Recipe,
    data: str | Path | None,
    folder: str | Path,
    *,
    resume: bool = True,
    initial: str | Path | None = None,
    cache_dir: str | Path | None = None,
    quiet: bool = False,
) -> AttributeModel:
    """Follows a recipe on data and gives the trained model, in eval mode; what `csvae train` calls.

    Args:
        recipe: what `load_recipe` gave.
        data: anything `load_data` takes; None for the recipe's own source.
        folder: gets all that `Trainer` writes, and the guide.
        resume: go on from the folder's newest checkpoint; else start anew and remove what is there.
        initial: a weights folder or packaged name to start from, of the same model config, instead of random weights.
        cache_dir: where decoded pictures are kept.
        quiet: no progress on stderr.

    Raises:
        ConfigError: neither the user nor the recipe names data, its shape isn't the model's, the initial weights
            are of another model config, or the folder's checkpoint is of another recipe.
        DataError: the data can't be read.
    """
    folder = Path(folder)
    source = recipe.data.source if data is None else str(data)
    if not source:
        raise ConfigError(
            "data: expected a folder of pictures or the name of a data set, got none: this recipe names none"
        )
    train_data = _load(recipe, source, "train", cache_dir)
    valid_data = _load(recipe, source, "valid", cache_dir) if _has_valid(source) else None
    if train_data.shape != recipe.model.shape:
        raise ConfigError(f"model.shape: expected {train_data.shape}, that of the data, got {recipe.model.shape}")
    guide = _guide(recipe, train_data, folder / "guide", resume) if recipe.objective.consistency > 0 else None
    from csvae_hub.models import create_model

    share = torch.from_numpy(train_data.labels).nanmean(0).nan_to_num(0.5)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.trainer.seed)
        model = create_model(recipe.model) if initial is None else _initial(recipe, initial)
        objective = Objective(model, recipe.objective, guide, share)
    record = {name: table for name, table in to_dict(recipe).items() if name != "guide" or guide is not None}
    return Trainer(objective, recipe.trainer, train_data, valid_data, folder, record=record, quiet=quiet).fit(resume)


def _initial(recipe: Recipe, initial: str | Path) -> AttributeModel:
    from csvae_hub.models import AttributeModel

    model = AttributeModel.from_pretrained(initial, device="cpu")
    mine = to_dict(replace(recipe.model, backbone=with_package(recipe.model.backbone)))
    theirs = to_dict(model.config)
    for name, value in mine.items():
        if theirs[name] != value:
            raise ConfigError(
                f"model.{name}: expected {theirs[name]!r} as in the initial weights {initial}, got {value!r}"
            )
    return model


def _load(recipe: Recipe, source: str, split: str, cache_dir: str | Path | None) -> AttributeData:
    from csvae_hub.data import load_data

    model, data = recipe.model, recipe.data
    size = model.image_size if model.is_image else 64
    return load_data(source, model.attributes, split, size, cache_dir, data.examples, data.seed)


def _has_valid(source: str) -> bool:
    """Whether there is a split `valid`; only a table of one's own may have none."""
    from csvae_hub.data import table_splits

    folder = Path(source).expanduser()
    return not (folder / "attributes.csv").is_file() or "valid" in table_splits(folder)


def _guide(recipe: Recipe, data: AttributeData, folder: Path, resume: bool) -> AttributeClassifier:
    """The guide of an earlier start of the same run, or one trained now."""
    from csvae_hub.classifier import AttributeClassifier, train_classifier

    made_with = {**to_dict(recipe.guide), "data_fingerprint": data.fingerprint}
    record = folder / "guide.json"
    if resume and record.is_file() and read_json(record) == made_with:
        return AttributeClassifier.load(folder)
    shutil.rmtree(folder, ignore_errors=True)
    guide = train_classifier(
        data,
        epochs=recipe.guide.epochs,
        width=recipe.guide.width,
        depth=recipe.guide.depth,
        seed=recipe.guide.seed,
        precision=recipe.trainer.precision,
    )
    guide.save(folder)
    write_json(record, made_with)
    return guide
