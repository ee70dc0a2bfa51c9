"""Edits files in batches: photos with faces in them, or pictures of faces that are aligned already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from csvae_hub.editing.editor import FaceEditor
from csvae_hub.editing.selection import Which
from csvae_hub.images import to_picture
from csvae_hub.models import AttributeModel, Latents


@dataclass(frozen=True)
class Outcome:
    """The outcome of a picture: the error, if any; of a photo the number of edited faces, and why others were skipped.

    `unchanged` names what an edit leaves as it is; `notes` say what else there is to say.
    """

    error: str = ""
    faces: int | None = None
    skipped: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edited:
    """An edited picture; `is_changed` is False if no pixel changed."""

    picture: Image.Image
    outcome: Outcome = Outcome()
    is_changed: bool = True


class BatchEditor:
    """Edits pictures in two steps: threads `prepare` each of them ahead, then `edit` takes a batch; see `edit_files`.

    A `FaceEditor` finds the faces of photos; a model takes pictures whose centre square is a face.
    """

    def __init__(
        self, editor: FaceEditor | AttributeModel, values: Mapping[str, Any], face: Which, keep_size: bool
    ) -> None:
        self.photos = editor if isinstance(editor, FaceEditor) else None
        self.model = editor.model if isinstance(editor, FaceEditor) else editor
        self.values, self.keep_size = values, keep_size
        self.face: Which = face
        for name in values:
            self.model.index(name)
        if self.photos and face == "all" and not keep_size:
            raise ValueError(
                "a photo's faces alone, without the photo, are one a file: name the largest or one by its number"
            )

    def prepare(self, picture: Image.Image) -> Any:
        """Gives an opened photo, which it keeps, with its faces found and aligned; an aligned picture as it is."""
        if self.photos is None:
            return picture
        return self.photos.align_opened(picture, picture, face=self.face)

    def edit(self, batch: Sequence[Any]) -> list[Edited]:
        """Edits prepared pictures; the faces of all go through the model together."""
        if self.photos is None:
            if self.keep_size:
                pictures: list[Image.Image] = list(batch)
                return [Edited(picture) for picture in self.model.edit(pictures, self.values)]
            with torch.no_grad():
                latents = self.model.edit(self.model.encode(list(batch)), self.values)
            return [Edited(picture) for picture in self._decoded(latents, batch)]
        encoded = self.photos.encode(batch)
        latents = self.photos.edit_latents(Latents.cat([photo.latents for photo in encoded]), self.values)
        if self.keep_size:
            alone = len(batch) == 1  # of more the others would be edited twice where one can't be
            rendered = self.photos.rendered(encoded, latents, in_place=alone)
        else:
            rendered = [(face, True) for face in self._decoded(latents, [photo.picture for photo in batch])]
        edited: list[Edited] = []
        for photo, (picture, is_changed) in zip(encoded, rendered, strict=True):
            skipped = tuple(reason for _, reason in photo.skipped)
            unchanged = photo.unchanged(self.values, is_changed) if self.keep_size else ()
            outcome = Outcome("", len(photo.faces), skipped, unchanged, photo.aligned.notes)
            edited.append(Edited(picture, outcome, is_changed))
        return edited

    @torch.no_grad()
    def _decoded(self, latents: Latents, sources: Sequence[Image.Image]) -> list[Image.Image]:
        """The decoded faces, grey where their sources are."""
        modes = ["L" if source.mode in ("L", "LA") else "RGB" for source in sources]
        images = self.model.decode(latents)
        return [to_picture(image).convert(mode) for image, mode in zip(images, modes, strict=True)]
