"""For pipelines: `from csvae_hub.transforms import RandomSetAttribute`. Imports torchvision."""

from __future__ import annotations

from csvae_hub.editing.transforms import RandomSetAttribute, counterfactuals

__all__ = ["RandomSetAttribute", "counterfactuals"]
