"""The models that the page offers."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import torch

from csvae_hub import hub
from csvae_hub.editing import FaceEditor, YuNet
from csvae_hub.models import AttributeModel


class Editors:
    """The packaged models of pictures and the one that is named, which comes first; each is loaded when first used."""

    def __init__(self, model: str, device: torch.device | str | None = None) -> None:
        self.first, self._device, self._detector = model, device, YuNet()
        self._lock = threading.Lock()
        self._loaded: dict[str, FaceEditor] = {}
        others = {name: hub.read_model_config(hub.resolve(name)) for name in hub.list_packaged() if name != model}
        configs = {model: self[model].model.config, **{name: c for name, c in others.items() if c.is_image}}
        self.attributes = {name: config.attributes for name, config in configs.items()}
        """By the models' names."""
        self.groups = {name: config.exclusive for name, config in configs.items()}
        """Attributes that exclude one another, by the models' names."""

    def __getitem__(self, name: str) -> FaceEditor:
        """The editor with a model, loaded once."""
        with self._lock:
            if name not in self._loaded:
                model = AttributeModel.from_pretrained(name, device=self._device)
                self._loaded[name] = FaceEditor(model, self._detector)
            return self._loaded[name]

    @property
    def choices(self) -> list[tuple[str, str]]:
        """For each model its label and its key on the page, which tells no more of a folder than its own name."""
        return [(Path(name).name if Path(name).exists() else name, str(i)) for i, name in enumerate(self.attributes)]

    def cards(self) -> dict[str, str]:
        """The cards of the packaged models, without front matter and pictures."""
        packaged = [name for name in hub.list_packaged() if name in self.attributes]
        texts = {name: hub.inside(hub.resolve(name), hub.CARD).read_text(encoding="utf-8") for name in packaged}
        return {
            name: re.sub(r"\A---\n.*?\n---\n|!\[[^]]*\]\([^)]*\)", "", text, flags=re.S) for name, text in texts.items()
        }

    def name(self, key: str) -> str:
        """The name of a model by its key on the page."""
        return list(self.attributes)[int(key)]

    @property
    def most_groups(self) -> int:
        """The greatest number of groups."""
        return max(map(len, self.groups.values()))

    @property
    def most(self) -> int:
        """The greatest number of attributes."""
        return max(map(len, self.attributes.values()))
