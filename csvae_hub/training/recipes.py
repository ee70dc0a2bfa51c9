"""Recipes: everything a training run needs but the data, as TOML, and the function that follows one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from csvae_hub.backbones import with_package
from csvae_hub.config import ModelConfig, check, check_weights, from_dict, to_dict
from csvae_hub.data import AttributeData, balanced, has_split, load_data, watched_by
from csvae_hub.errors import ConfigError, did_you_mean
from csvae_hub.models import AttributeModel, create_model
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.kl import GentleKL
from csvae_hub.training.processes import join
from csvae_hub.training.progress_line import DecodingLine, say
from csvae_hub.training.steps import Objective, ObjectiveConfig, Part
from csvae_hub.training.trainer import Trainer

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

FOLDER = Path(__file__).parent / "recipes"
"""The folder of the packaged recipes."""

PARTS = Path(__file__).parent / "parts"
"""The folder of the parts, a file each."""


@dataclass(frozen=True)
class DataConfig:
    """The data: `source` stands where the user names none; `examples` is the number of drawn ones.

    mask: count a group of exclusive attributes as missing where an example has not exactly one of them.
    """

    source: str = ""
    examples: int = 10_000
    mask: bool = False

    def __post_init__(self) -> None:
        check(self.examples >= 1, "data.examples", "1 or more", self.examples)


@dataclass(frozen=True)
class Recipe:
    """The tables of a recipe's TOML file; a field that is left out has the default of its dataclass.

    `parts` holds the options of each part of ours by the name of its file; without any, the objective is the paper's.
    """

    model: ModelConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    parts: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        parts: dict[str, Any] = {}
        for name, options in self.parts.items():
            cls = find_part(name).Options
            parts[name] = options if isinstance(options, cls) else from_dict(cls, options, f"parts.{name}")
            check_weights(parts[name], f"parts.{name}")
        object.__setattr__(self, "parts", parts)


def find_part(name: str) -> type[Part]:
    """The part in `training/parts/NAME.py`.

    Raises:
        ConfigError: there is none.
    """
    known = sorted(path.stem for path in PARTS.glob("[a-z]*.py"))
    if name not in known:
        raise ConfigError(f"unknown part {name!r}:{did_you_mean(name, known)} Known: {', '.join(known)}")
    module = importlib.import_module(f"{__package__}.parts.{name}")
    own = [c for c in vars(module).values() if getattr(c, "__module__", None) == module.__name__]  # no list[int]
    return next(c for c in own if isinstance(c, type) and issubclass(c, Part))


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
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    base = tables.pop("extends", None)
    if base is None:
        return tables
    check(isinstance(base, str), f"{path}: extends", "the name or path of a recipe", base)
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
    balance: Sequence[str] = (),
    quiet: bool = False,
    accumulation: int = 1,
    clip_norm: float | None = None,
    kl_warm_up: float = 0.0,
    free_nats: float = 0.0,
    compile: bool = False,
    log_with: Sequence[str] = (),
) -> AttributeModel:
    """Follows a recipe on data and gives the trained model, in eval mode; what `csvae train` calls.

    Args:
        recipe: what `load_recipe` gave.
        data: anything `load_data` takes; None for the recipe's own source.
        folder: gets all that `Trainer` writes.
        resume: go on from the folder's newest checkpoint; else start anew and remove the checkpoints.
        initial: a weights folder or packaged name to start from, of the same model config, instead of random weights.
        cache_dir: the place of decoded pictures.
        balance: attributes that half of the examples that an epoch draws are to have, see `data.balanced`.
        quiet: no progress on stderr.
        accumulation: parts in which a batch goes through the networks, for less memory; gradients are added up.
        clip_norm: the greatest norm of the gradient of each minimisation; None for any.
        kl_warm_up: epochs over which the weights of kl_z and kl_w rise from 0, see `kl.GentleKL`.
        free_nats: of each number of z and w, the nats of its divergence that cost nothing.
        compile: compile the backbone, which takes a minute and then saves time.
        log_with: accelerate's trackers by name, as "wandb"; by default TensorBoard.

    Raises:
        ConfigError: neither the user nor the recipe names data, its shape isn't the model's, the initial weights
            are of another model config, the folder's checkpoint is of another recipe, or no epoch comes before the
            rest though there are no initial weights.
        DataError: the data can't be read.
    """
    options = {"initial": initial, "cache_dir": cache_dir, "accumulation": accumulation, "clip_norm": clip_norm}
    options |= {"kl_warm_up": kl_warm_up, "free_nats": free_nats, "compile": compile, "log_with": log_with}
    return prepare(recipe, data, folder, balance=balance, quiet=quiet, **options).fit(resume)


def prepare(
    recipe: Recipe,
    data: str | Path | None,
    folder: str | Path | None,
    *,
    initial: str | Path | None = None,
    cache_dir: str | Path | None = None,
    balance: Sequence[str] = (),
    quiet: bool = False,
    accumulation: int = 1,
    clip_norm: float | None = None,
    kl_warm_up: float = 0.0,
    free_nats: float = 0.0,
    compile: bool = False,
    log_with: Sequence[str] = (),
) -> Trainer:
    """Reads the data and builds the networks: the trainer that `train` starts, with the same arguments and errors."""
    rest, epochs = getattr(recipe.parts.get("rest"), "epochs", 0), recipe.trainer.epochs
    least = f"fewer than trainer.epochs, {epochs} (raise it, or set both); as many from initial weights"
    check(rest < epochs + (initial is not None), "parts.rest.epochs", least, rest)
    source = recipe.data.source if data is None else str(data)
    if not source:
        raise ConfigError(
            "data: expected a folder of pictures or the name of a data set, got none: this recipe names none"
        )
    accelerator = join(accumulation, log_with, folder)
    quiet = quiet or not accelerator.is_main_process
    say(f"reading the training examples of {source}", quiet)
    first = accelerator.local_main_process_first()  # it decodes pictures into the cache, which the others read
    with watched_by(DecodingLine(quiet)), first:
        train_data = _load(recipe, source, "train", cache_dir)
        valid_data = _load(recipe, source, "valid", cache_dir) if has_split(source, "valid") else None
    train_data = balanced(train_data, balance, recipe.model.exclusive)
    if train_data.shape != recipe.model.shape:
        raise ConfigError(f"model.shape: expected {train_data.shape}, that of the data, got {recipe.model.shape}")
    with torch.random.fork_rng():
        torch.manual_seed(recipe.trainer.seed)
        objective = objective_of(recipe, train_data, None if initial is None else _initial(recipe, initial))
    record = {**to_dict(recipe), **({} if initial is None else {"initial": str(initial)})}
    record |= {"balance": list(balance)} if balance else {}
    if kl_warm_up or free_nats:
        batches = round(kl_warm_up * max(1, len(train_data) // recipe.trainer.batch_size))
        objective.instead = GentleKL(batches, free_nats)
        record |= {"kl_warm_up": kl_warm_up, "free_nats": free_nats}
    if compile:
        say("compiling the backbone: the first batches take a minute", quiet)
    say(f"training on {len(train_data)} examples; the first figures come within a minute", quiet)
    options = {"record": record, "quiet": quiet, "accelerator": accelerator, "clip_norm": clip_norm, "compile": compile}
    return Trainer(objective, recipe.trainer, train_data, valid_data, folder, **options)


def objective_of(recipe: Recipe, data: AttributeData, model: AttributeModel | None = None) -> Objective:
    """The objective of a recipe with its parts, over a model; by default over a new one."""
    parts = [(find_part(name), options) for name, options in recipe.parts.items()]
    return Objective(create_model(recipe.model) if model is None else model, recipe.objective, parts, data)


def _initial(recipe: Recipe, initial: str | Path) -> AttributeModel:
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
    model = recipe.model
    size = model.image_size if model.is_image else 64
    channels = model.shape[0] if model.is_image else 3
    data = load_data(source, model.attributes, split, size, cache_dir, recipe.data.examples, channels=channels)
    return data.exclusive(model.exclusive, recipe.data.mask)
