"""Edits the faces in photos: find, align, edit, put back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from csvae_hub.editing.alignment import Similarity, to_crop, warped
from csvae_hub.editing.blending import Paste, check_paste, layer, put_back
from csvae_hub.editing.detection import MAX_FACES, Detector, Face, QuickDetector, YuNet
from csvae_hub.editing.selection import Which, check_which, chosen, faces_of, unusable
from csvae_hub.errors import FaceError, ImageError
from csvae_hub.images import ImageLike, Images, open_picture
from csvae_hub.models.editable import AttributeModel, Value
from csvae_hub.models.groups import together
from csvae_hub.models.kinds import gives_the_kind_it_takes
from csvae_hub.models.latents import Latents
from csvae_hub.models.values import plain

MANY = f"at most {MAX_FACES} faces of a photo are edited, the largest ones: there may be others"


class UnchangedWarning(UserWarning):
    """An edit by True or False that leaves a photo as it is."""


@dataclass(frozen=True)
class AlignedPhoto:
    """A photo whose faces are found and aligned, before the model sees them; `FaceEditor.align` makes it.

    `photo` is what the caller gave, `picture` the same, upright. Of the F `faces` each is brought by one of
    `transforms` to one of `crops` (F, 3, S, S) in [0, 1]; `skipped` are those that can't be edited, with the reasons.
    """

    photo: Any
    picture: Image.Image
    faces: tuple[Face, ...]
    skipped: tuple[tuple[Face, str], ...]
    transforms: tuple[Similarity, ...]
    crops: Tensor
    notes: tuple[str, ...] = ()

    def restore(self, picture: Image.Image) -> Any:
        """Gives an edited picture as the kind of thing that the photo was; a path's is a PIL image."""
        return np.array(picture).reshape(self.photo.shape) if isinstance(self.photo, np.ndarray) else picture


class FaceEditor:
    """Edits faces in photos of any size, in the photos' own resolution.

    Each face is brought to the frame of the model's training pictures, edited in the latent space, and what changed is
    put back into the photo. `AttributeModel.set_attribute` takes pictures that are in that frame already.

    Args:
        model: any model of the family that takes pictures; or a packaged name, a folder or a Hub repo.
        detector: finds the faces; by default `YuNet`, made when it is first needed.

    Raises:
        ValueError: a model of vectors.
    """

    def __init__(self, model: AttributeModel | str | Path, detector: Detector | None = None) -> None:
        if isinstance(model, str | Path):
            model = AttributeModel.from_pretrained(model)
        if not model.config.is_image:
            raise ValueError(f"expected a model of pictures, got one of vectors of {model.config.shape[0]} numbers")
        self.model = model
        self._given_detector = detector

    def __repr__(self) -> str:
        return f"FaceEditor({self.model!r})"

    @cached_property
    def detector(self) -> Detector:
        """The detector of faces; MissingExtraError if none was given and the extra "align" is missing."""
        return YuNet() if self._given_detector is None else self._given_detector

    def detect(self, photo: ImageLike) -> list[Face]:
        """Gives the faces in a photo, largest first; errors as `open`, but for photos without a face."""
        return self._detect(open_picture(photo))

    def open(self, photo: ImageLike, *, face: Which = "largest", landmarks: ArrayLike | None = None) -> EncodedPhoto:
        """Finds, aligns and encodes the faces of a photo once, so that many edits of it are quick.

        Args:
            photo: a path, a PIL image or a uint8 array.
            face: which faces are edited: "largest", "all", or a number from 0, largest first.
            landmarks: (5, 2) of one face or (F, 5, 2) of several, in their order, in place of a detector's.

        Raises:
            NoFaceError: no face is found.
            FaceError: no such face, or none that can be edited: too small, cut by the border, impossible landmarks.
            ImageError: the photo can't be read.
            MissingExtraError: there is no detector, and no landmarks are given.
        """
        return self.encode([self.align(photo, face=face, landmarks=landmarks)])[0]

    @gives_the_kind_it_takes
    def edit(
        self,
        photos: Images,
        values: Mapping[str, Value],
        *,
        face: Which = "largest",
        landmarks: Any = None,
        paste: Paste = "changed",
        detail: bool | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Changes attributes of faces in a photo, or in each of a list; the same kind comes back.

        The faces of a list go through the model as one batch. EXIF rotation is obeyed; the photo's mode, size, alpha
        and colour profile come back, and pixels around the faces are those that came.

        Args:
            photos: a path, a PIL image or a uint8 array, or a list of these; a path comes back as a PIL image.
            values: what attributes are set to: see `edit_latents`.
            face: which faces: see `open`.
            landmarks: see `open`; for a list, one entry for each photo, None where a detector shall find them.
            paste: "changed" puts the decoded face where the edit changes much; "difference" adds the change of the
                decoded face, so that the photo's detail stays, also glasses that should go; "whole" puts all of it.
            detail: an older name: True is paste="difference", False is paste="whole".
            generator: the source of the draws of "sample".

        Raises:
            FaceError: a photo without a face that can be edited.
            ImageError: a photo can't be read.
            UnknownAttributeError: the model has no such attribute.
            ValueError: a value can't be understood, or an unknown `paste`.

        Warns:
            UnchangedWarning: True or False leaves a photo as it is; see `unchanged`.
        """
        paste = _checked(paste, detail)
        if values != {}:
            self.model.check_values(values)
        if is_list := isinstance(photos, list | tuple):
            encoded = self.encode(self._align_all(photos, face, landmarks))
        else:
            encoded = [self.open(cast(ImageLike, photos), face=face, landmarks=landmarks)]
        edited = self.edit_latents(_latents(encoded), values, generator=generator)
        rendered = self.rendered(encoded, edited, paste)
        for photo, (_, is_changed) in zip(encoded, rendered, strict=True):
            if not is_changed and (lines := self.unchanged(photo, values)):
                warnings.warn(f"{_named(photo.aligned.photo)}{'; '.join(lines)}", UnchangedWarning, stacklevel=2)
        pictures = [picture for picture, _ in rendered]
        return pictures if is_list else pictures[0]

    @gives_the_kind_it_takes
    def set_attribute(
        self,
        photos: Images,
        name: str,
        value: Value = True,
        *,
        generator: torch.Generator | None = None,
        face: Which = "largest",
        landmarks: Any = None,
        paste: Paste = "changed",
        detail: bool | None = None,
    ) -> Any:
        """Changes one attribute of faces in a photo, or in each of a list; the same kind comes back.

        Args:
            photos: a path, a PIL image or a uint8 array, or a list of these; a path comes back as a PIL image.
            name: the attribute.
            value: True or False, which leave a face as it is that is so already; a float (0 absent, 1 present, beyond
                exaggerates); coordinates in the attribute's subspace; "sample"; or another photo, of whose largest face
                the attribute is taken over.
            generator: the source of the draws of "sample".
            face: "largest", "all", or a number from 0, largest first.
            landmarks: (5, 2) of one face or (F, 5, 2) of several, in place of a detector's; for a list of photos a
                list, with None where a face is looked for.
            paste: "changed", "difference" or "whole": see `edit`, which also names the errors and the warning.
            detail: an older name: True is paste="difference", False is paste="whole".
        """
        return self.edit(
            photos, {name: value}, face=face, landmarks=landmarks, paste=paste, detail=detail, generator=generator
        )

    def align(self, photo: ImageLike, *, face: Which = "largest", landmarks: ArrayLike | None = None) -> AlignedPhoto:
        """Finds and aligns the faces of a photo, without the model, so that threads may do it ahead.

        `photo`, `face` and `landmarks` are those of `open`, with the same errors; `encode` takes what comes back.
        """
        check_which(face)
        return self.align_opened(photo, open_picture(photo), face=face, landmarks=landmarks)

    def align_opened(
        self, photo: Any, picture: Image.Image, *, face: Which = "largest", landmarks: ArrayLike | None = None
    ) -> AlignedPhoto:
        """As `align`, with `face` and `landmarks`, of a `photo` opened already: `picture` is kept and not copied."""
        try:
            faces = self._detect(picture, face) if landmarks is None else faces_of(landmarks)
            notes = (MANY,) if face == "all" and len(faces) >= MAX_FACES else ()
            faces, skipped = chosen(faces, face, picture.size)
        except FaceError as error:
            raise type(error)(f"{_named(photo)}{error}") from error
        preprocessor = self.model.preprocessor
        transforms = [to_crop(found.landmarks, preprocessor) for found in faces]
        crops = np.stack([np.asarray(warped(picture, transform, preprocessor.size)) for transform in transforms])
        tensor = torch.from_numpy(crops).movedim(-1, 1).float() / 255
        return AlignedPhoto(photo, picture, tuple(faces), tuple(skipped), tuple(transforms), tensor, notes)

    @torch.no_grad()
    def encode(self, photos: Sequence[AlignedPhoto]) -> list[EncodedPhoto]:
        """Encodes the faces of aligned `photos`, which `align` gave, in one batch."""
        latents = self.model.encode(torch.cat([photo.crops for photo in photos]))
        ends = list(accumulate(len(photo.crops) for photo in photos))
        return [
            EncodedPhoto(self, photo, latents[end - len(photo.crops) : end])
            for photo, end in zip(photos, ends, strict=True)
        ]

    def edit_latents(
        self, latents: Latents, values: Mapping[str, Value], *, generator: torch.Generator | None = None
    ) -> Latents:
        """The `latents` with attributes set to `values`, as `AttributeModel.edit` sets them, but for two things.

        True and False leave a face as it is, to the bit, that has or lacks the attribute already by its y; in an
        exclusive group if all that is asked of the group is so. A path, a PIL image or a uint8 array is a photo, of
        whose largest face the attribute is taken over. `generator` is the source of the draws of "sample".
        """
        edited = latents
        read = {name: plain(value, name) for name, value in values.items()}
        for part in together(read, self.model.config.exclusive):
            resolved = {name: self._resolved(value) for name, value in part.items()}
            changed = self.model.edit(edited, resolved, generator=generator)
            settled = torch.stack([self._settled(latents, name, value) for name, value in part.items()]).all(0)
            rows = torch.arange(len(latents), device=settled.device) + len(latents) * settled
            edited = Latents.cat([changed, edited])[rows]
        return edited

    def unchanged(self, photo: EncodedPhoto, values: Mapping[str, Value], is_changed: bool = True) -> tuple[str, ...]:
        """Says which of the attributes in `values` an edit leaves as they are, since a face has or lacks them already.

        Each attribute and face has one line, with the probability of the class that the face has. An edit without such
        a line that did not change the photo, `is_changed`, has a line of its own.
        """
        lines: list[str] = []
        for name, value in ((name, plain(value, name)) for name, value in values.items()):
            y = photo.latents.y[:, self.model.index(name)].float()
            for i in self._settled(photo.latents, name, value).nonzero()[:, 0].tolist():
                face = f"face {i}: " if len(y) > 1 else ""
                sure = y[i].item() if value else 1 - y[i].item()
                lines.append(
                    f"{face}{name}: already so, by q(y|x) = {sure:.2f}; nothing changed: use a number to move it"
                )
        if values and not lines and not is_changed:
            lines.append("nothing changed: the edit hardly moves the decoded face: use a number farther from it")
        return tuple(lines)

    def render(
        self, photos: Sequence[EncodedPhoto], latents: Latents, *, paste: Paste = "changed", detail: bool | None = None
    ) -> list[Any]:
        """Gives photos with their faces as other latents say, one for each face, photo after photo; in one batch.

        `paste` and `detail` are those of `edit`.

        Raises:
            ValueError: another number of latents, or an unknown `paste`.
        """
        return [picture for picture, _ in self.rendered(photos, latents, _checked(paste, detail))]

    @torch.no_grad()
    def rendered(
        self, photos: Sequence[EncodedPhoto], latents: Latents, paste: Paste = "changed", *, in_place: bool = False
    ) -> list[tuple[Any, bool]]:
        """Gives what `render` does of `photos`, `latents` and `paste`, each with True if any of its pixels changed.

        With `in_place` the photos' own pictures are changed, which takes less memory; they are of no more use then.
        """
        own = _latents(photos)
        if len(latents) != len(own):
            raise ValueError(f"expected latents of {len(own)} faces, got {len(latents)}")
        rows = _differ(latents, own).nonzero()[:, 0]
        places = [(number, i) for number, photo in enumerate(photos) for i in range(len(photo.crops))]
        pictures = [photo.aligned.picture if in_place else photo.aligned.picture.copy() for photo in photos]
        changed = [False] * len(photos)
        if len(rows):
            decoded = self.model.decode(Latents.cat([latents[rows], own[rows]])).float().cpu()
            for row, edited, before in zip(rows.tolist(), *decoded.chunk(2), strict=True):
                number, i = places[row]
                photo = photos[number]
                change = layer(edited, before, photo.crops[i], paste)
                changed[number] |= put_back(pictures[number], change, photo.aligned.transforms[i])
        restored = [photo.aligned.restore(picture) for photo, picture in zip(photos, pictures, strict=True)]
        return list(zip(restored, changed, strict=True))

    def _settled(self, latents: Latents, name: str, value: Value) -> Tensor:
        """Mask (B,) of the faces that are left as they are: the value is True or False, and they are so already."""
        y = latents.y[:, self.model.index(name)]
        return (y > 0.5) == value if isinstance(value, bool) else torch.zeros_like(y, dtype=torch.bool)

    def _detect(self, picture: Image.Image, which: Which = "all") -> list[Face]:
        """The faces of a photo, largest first; where that is all that is asked for, maybe the largest alone."""
        seen = picture if picture.mode == "RGB" else picture.convert("RGB")
        if which == "largest" and isinstance(self.detector, QuickDetector):
            largest = self.detector.largest(seen)
            if largest is not None and not unusable(largest, picture.size):
                return [largest]
        return sorted(self.detector.detect(seen), key=lambda face: -face.size)[:MAX_FACES]

    def _align_all(self, photos: Sequence[ImageLike], face: Which, landmarks: Any) -> list[AlignedPhoto]:
        if not photos:
            raise ImageError("expected at least one photo, got an empty list: leave the call out where there are none")
        given = [None] * len(photos) if landmarks is None else list(landmarks)
        if len(given) != len(photos):
            raise FaceError(f"landmarks: expected an entry for each of {len(photos)} photos, got {len(given)}")
        aligned: list[AlignedPhoto] = []
        for i, (photo, points) in enumerate(zip(photos, given, strict=True)):
            try:
                aligned.append(self.align(photo, face=face, landmarks=points))
            except ImageError as error:
                raise type(error)(f"photos[{i}]: {error}") from error
        return aligned

    def _resolved(self, value: Any) -> Value:
        """A value; a photo as the latents of its largest face."""
        is_array = isinstance(value, np.ndarray) and value.ndim > 1 and (value.ndim > 2 or value.dtype == np.uint8)
        is_photo = is_array or isinstance(value, os.PathLike | Image.Image)
        return self.open(cast(ImageLike, value)).latents if is_photo else value


class EncodedPhoto:
    """A photo whose faces are found, aligned and encoded; `FaceEditor.open` makes it.

    `faces` are those that are edited, F of them, largest first; `skipped` those that can't be, each with the reason;
    `crops` (F, 3, S, S) in [0, 1] the aligned faces; `latents` what they encode to.
    """

    def __init__(self, editor: FaceEditor, aligned: AlignedPhoto, latents: Latents) -> None:
        self.editor, self.aligned, self.latents = editor, aligned, latents
        self.faces, self.skipped, self.crops = aligned.faces, aligned.skipped, aligned.crops

    def edit(
        self,
        values: Mapping[str, Value],
        *,
        paste: Paste = "changed",
        detail: bool | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """The photo with attributes of its faces changed, of the same kind, mode and size.

        `values`, `paste`, `detail` and `generator` are those of `FaceEditor.edit`, with its errors. It does not warn.
        """
        edited = self.editor.edit_latents(self.latents, values, generator=generator)
        return self.render(edited, paste=paste, detail=detail)

    def unchanged(self, values: Mapping[str, Value], is_changed: bool = True) -> tuple[str, ...]:
        """Says which of the attributes in `values` an edit leaves as they are, since a face has or lacks them already.

        `is_changed` False, which `FaceEditor.rendered` tells, adds a line for an edit that hardly moves the face.
        """
        return self.editor.unchanged(self, values, is_changed)

    def render(self, latents: Latents, *, paste: Paste = "changed", detail: bool | None = None) -> Any:
        """The photo with its faces as other latents say; a face whose latents are its own stays as it is, to the bit.

        `paste` and `detail` are those of `FaceEditor.edit`.

        Raises:
            ValueError: another number of latents, or an unknown `paste`.
        """
        return self.editor.render([self], latents, paste=paste, detail=detail)[0]


def _named(photo: Any) -> str:
    return f"{os.fspath(photo)}: " if isinstance(photo, str | os.PathLike) else ""


def _checked(paste: Paste, detail: bool | None) -> Paste:
    """The way to put an edit back; `detail` is the older name of two of them."""
    check_paste(paste)
    return paste if detail is None else "difference" if detail else "whole"


def _latents(photos: Sequence[EncodedPhoto]) -> Latents:
    return Latents.cat([photo.latents for photo in photos])


def _differ(latents: Latents, others: Latents) -> Tensor:
    """Mask (B,) of the rows that differ in z, w or y."""
    pairs = ((latents.z, others.z), (latents.w, others.w), (latents.y, others.y))
    return torch.stack([(one.to(other) != other).flatten(1).any(1) for one, other in pairs]).any(0)
