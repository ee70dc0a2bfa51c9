"""The house: nothing concrete is overridden, options are few, the way from README to a training step is short."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

from torch import nn

import csvae_hub
from csvae_hub.config import ModelConfig
from csvae_hub.training.recipes import PARTS, Recipe, find_part

ROOT = Path(__file__).resolve().parents[1]


def classes():
    found = set()
    for module in pkgutil.walk_packages(csvae_hub.__path__, "csvae_hub."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and value.__module__.startswith("csvae_hub"):
                found.add(value)
    return found


def test_no_concrete_method_of_ours_is_overridden():
    overridden = []
    for cls in classes():
        for name, value in vars(cls).items():
            if name.startswith("__") or not inspect.isfunction(inspect.unwrap(getattr(value, "__func__", value))):
                continue
            for base in cls.__mro__[1:]:
                before = vars(base).get(name)
                ours = base.__module__.startswith("csvae_hub")
                if ours and before is not None and not getattr(before, "__isabstractmethod__", False):
                    overridden.append(f"{cls.__name__}.{name} overrides {base.__name__}.{name}")
    assert len(classes()) > 60
    assert overridden == []


def options(cls):
    """The fields of a dataclass, those of nested ones in their place."""
    found = []
    for f in dataclasses.fields(cls):
        hint = re.sub(r"^dict\[str, (.*)\]$", r"\1", str(f.type))
        nested = getattr(importlib.import_module(cls.__module__), hint, None)
        found += options(nested) if dataclasses.is_dataclass(nested) else [f"{cls.__name__}.{f.name}"]
    return found


def test_there_are_at_most_fifty_options():
    found = options(Recipe)
    found.remove("Recipe.parts")
    for path in sorted(PARTS.glob("[a-z]*.py")):
        found += options(find_part(path.stem).Options)
    assert len(options(ModelConfig)) > 20
    assert len(found) <= 50, found


def test_the_way_from_the_readme_to_a_training_step_is_short():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## Read the code") :]
    path = re.findall(r"\]\(([\w/.]+\.(?:py|md))\)", section[: section.index("\n\n", 20)])
    assert path == [
        "docs/equations.md",
        "csvae_hub/losses.py",
        "csvae_hub/networks.py",
        "csvae_hub/models/csvae.py",
        "csvae_hub/training/steps.py",
        "csvae_hub/training/trainer.py",
    ]
    assert sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in path) <= 900
    step = "".join((ROOT / name).read_text(encoding="utf-8") for name in path[1:])
    for part in (
        "def forward",
        "def bound",
        "def generative_step",
        "def train_step",
        ".backward(",
        "optimizers[name].step()",
    ):
        assert part in step


def test_modules_of_torch_keep_their_methods():
    kept = {"train", "eval", "to", "state_dict", "load_state_dict", "parameters"}
    assert not [c for c in classes() if issubclass(c, nn.Module) and kept & set(vars(c))]
