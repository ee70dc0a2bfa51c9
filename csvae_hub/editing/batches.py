"""The two ways in which files are edited in batches: as photos with faces in them, and as faces aligned already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from PIL import Image

from csvae_hub.editing.editor import AlignedPhoto, FaceEditor
from csvae_hub.editing.selection import Which
from csvae_hub.images import to_picture
from csvae_hub.models import AttributeModel, Latents


@dataclass(frozen=True)
class Edited:
    """An edited picture; of a photo also how many faces were edited, and why others were left out."""

    picture: Image.Image
    faces: int | None = None
    skipped: tuple[str, ...] = ()


class BatchEditor(Protocol):
    """Edits pictures in two steps, of which threads take the first one ahead."""

    def prepare(self, picture: Image.Image) -> Any:
        """What is known of one picture before the model sees it.

        Raises:
            ImageError: it can't be edited.
        """
        ...

    def edit(self, batch: Sequence[Any]) -> list[Edited]:
        """Edits what was prepared; the faces go through the model together."""
        ...


def batch_editor(
    editor: FaceEditor | AttributeModel, values: Mapping[str, Any], face: Which, keep_size: bool
) -> BatchEditor:
    """Gives the way to edit batches: of photos for a `FaceEditor`, of aligned pictures for a model.

    Raises:
        ValueError: all faces of a photo are asked for where there is room for one.
    """
    if not isinstance(editor, FaceEditor):
        return AlignedPictures(editor, values, keep_size)
    if face == "all" and not keep_size:
        raise ValueError(
            "a photo's faces alone, without the photo, are one a file: name the largest or one by its number"
        )
    return Photos(editor, values, face, keep_size)


class AlignedPictures:
    """Pictures in whose centre square a face is, as in the training pictures."""

    def __init__(self, model: AttributeModel, values: Mapping[str, Any], keep_size: bool) -> None:
        self.model, self.values, self.keep_size = model, values, keep_size

    def prepare(self, picture: Image.Image) -> Image.Image:
        """The picture itself."""
        return picture

    def edit(self, batch: Sequence[Image.Image]) -> list[Edited]:
        """Puts the edited square back into each picture, or gives it alone."""
        if self.keep_size:
            return [Edited(picture) for picture in self.model.edit(list(batch), self.values)]
        with torch.no_grad():
            latents = self.model.edit(self.model.encode(list(batch)), self.values)
        return [Edited(picture) for picture in _decoded(self.model, latents, batch)]


class Photos:
    """Photos in which faces are found."""

    def __init__(self, editor: FaceEditor, values: Mapping[str, Any], face: Which, keep_size: bool) -> None:
        self.editor, self.values, self.keep_size = editor, values, keep_size
        self.face: Which = face

    def prepare(self, picture: Image.Image) -> AlignedPhoto:
        """The photo with its faces found and aligned."""
        aligned = self.editor.align(picture, face=self.face)
        return replace(aligned, photo=aligned.picture)  # lets go of the one given, of which this is a copy

    def edit(self, batch: Sequence[AlignedPhoto]) -> list[Edited]:
        """Blends the edited faces into each photo, or gives each face alone."""
        opened = self.editor.encode(batch)
        latents = self.editor.edit_latents(Latents.cat([photo.latents for photo in opened]), self.values)
        if self.keep_size:
            pictures = self.editor.render(opened, latents)
        else:
            pictures = _decoded(self.editor.model, latents, [photo.picture for photo in batch])
        return [
            Edited(picture, len(photo.faces), tuple(reason for _, reason in photo.skipped))
            for photo, picture in zip(batch, pictures, strict=True)
        ]


def _decoded(model: AttributeModel, latents: Latents, sources: Sequence[Image.Image]) -> list[Image.Image]:
    """The decoded faces, grey where their sources are."""
    with torch.no_grad():
        images = model.decode(latents)
    modes = ["L" if source.mode in ("L", "LA") else "RGB" for source in sources]
    return [to_picture(image).convert(mode) for image, mode in zip(images, modes, strict=True)]
