"""For torch.hub: `torch.hub.load("FOLDER OF THIS REPOSITORY", "csvae", source="local")`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from csvae_hub import CSVAE

dependencies = ["numpy", "PIL", "safetensors", "torch", "typing_extensions"]
"""Modules that torch.hub looks for before it calls anything here."""


def csvae(
    name: str = "celeba-64", *, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
) -> CSVAE:
    """A trained CSVAE in eval mode: as `CSVAE.from_pretrained`.

    Args:
        name: a packaged model, or a weights folder.
        device: by default CUDA where there is one, else the CPU.
        dtype: torch's type or its name; by default float32.
    """
    from csvae_hub import CSVAE

    return CSVAE.from_pretrained(name, device=device, dtype=dtype)
