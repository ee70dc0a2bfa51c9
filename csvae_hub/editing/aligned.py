"""Aligned pictures taken for photos, as the evaluation edits them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from csvae_hub.editing.alignment import template
from csvae_hub.editing.editor import FaceEditor, UnchangedWarning
from csvae_hub.models.editable import AttributeModel

PHOTO_SIDE = 256
"""Side in pixels of the photos; the faces in them are as large as in photos of people."""


def put_back(model: AttributeModel, side: int = PHOTO_SIDE) -> Callable[[Tensor, Mapping[str, bool]], Tensor]:
    """Makes a function that edits aligned pictures as `FaceEditor` edits photos.

    It enlarges pictures (B, 3, S, S) in [0, 1] to photos (B, 3, side, side) and sets attributes of these to values, if
    there are any. The landmarks are those of the template.
    """
    editor = FaceEditor(model)
    landmarks = template(model.preprocessor) * (side / model.preprocessor.size)

    def edit(images: Tensor, values: Mapping[str, bool]) -> Tensor:
        enlarged = F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        photos = list(rearrange(enlarged * 255, "b c h w -> b h w c").round().to(torch.uint8).numpy())
        if values:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnchangedWarning)  # such photos are measured as they are
                photos = editor.edit(photos, values, landmarks=[landmarks] * len(photos))
        return rearrange(torch.from_numpy(np.stack(photos)), "b h w c -> b c h w").float() / 255

    return edit
