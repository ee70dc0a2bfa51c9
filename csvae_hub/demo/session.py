"""One visitor's photo and the changes of its faces, independent of the page."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from csvae_hub.demo.plane import SIDE, Plane, Point, decoded_faces, with_marks
from csvae_hub.editing import EncodedPhoto, FaceEditor
from csvae_hub.editing.blending import Paste
from csvae_hub.editing.metadata import Metadata
from csvae_hub.editing.xmp import history
from csvae_hub.errors import ImageError
from csvae_hub.images import open_picture, to_picture
from csvae_hub.models import Latents
from csvae_hub.models.groups import group_of
from csvae_hub.opening import opened

VIEW_SIDE = 1024
"""A longer photo is shown reduced to so many pixels, so that changes stay quick."""
LARGE = 0.4
"""Share of the photo's shorter side from which on a face needs no close-up."""
MAX_PIXELS = 50_000_000
STEP = SIDE / 20
"""Of `nudge`, in pixels of the plane."""
LOWEST, HIGHEST = -0.5, 1.5
"""Ends of a slider: a little beyond absent, 0, and present, 1."""


class Session:
    """A photo whose faces are found and encoded once, and the changes that the visitor asked for.

    Changes are kept for each face; `face` is the number of the one that is being changed, `shown` the attribute whose
    plane is. `close_up` shows only the face's surroundings, at first where it is small; `paste` is the way to put
    edits back, as in `FaceEditor.edit`. Whoever uses it from several threads holds `lock`. `source` is what the
    photo's file holds; `model_name` is for the mark of an edited photo.

    Raises:
        ImageError: no photo, too large a one, or none with a face that can be edited.
    """

    def __init__(self, editor: FaceEditor, source: bytes, name: str = "photo", model_name: str = "") -> None:
        photo = _read(source)
        shrink = min(1.0, VIEW_SIDE / max(photo.size))
        size = (max(1, round(photo.width * shrink)), max(1, round(photo.height * shrink)))
        small = photo if shrink == 1 else photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
        self.editor, self.source, self.name, self.model_name = editor, source, name, model_name
        self.lock = threading.RLock()
        self._scale = np.array(photo.size) / size
        self._view = editor.open(small, face="all")
        self._changes: list[dict[str, float | bool | Point]] = [{} for _ in self._view.faces]
        self._cell_faces: tuple[Any, Image.Image] = None, small
        self._picture = small
        self.face = 0
        self.shown = self.attributes[0]
        self.paste: Paste = "changed"
        self.close_up = self._view.faces[0].size < LARGE * min(size)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes, in the model's order."""
        return self.editor.model.attributes

    @property
    def has_planes(self) -> bool:
        """True if the model's subspaces are planes."""
        return self._view.latents.w.shape[-1] == 2

    def crops(self) -> list[Image.Image]:
        """The faces, largest first, as the model sees them."""
        return [to_picture(crop) for crop in self._view.crops]

    def move(self, name: str, value: float) -> None:
        """Sets an attribute of the face to a number, 0 absent and 1 present, and shows its plane."""
        self.show(name)
        self._changes[self.face][name] = float(value)

    def become(self, name: str) -> None:
        """Makes a member of an exclusive group present and the others absent, and shows its plane."""
        self.show(name)
        changes, group = self._changes[self.face], group_of(name, self.editor.model.config.exclusive)
        self._changes[self.face] = {n: value for n, value in changes.items() if n not in group} | {name: True}

    def member(self, group: Sequence[str]) -> str:
        """The member of an exclusive group that was chosen, or else the one that the model sees."""
        chosen = [name for name in group if self._changes[self.face].get(name) is True]
        y = self._own().y[0]
        return chosen[0] if chosen else max(group, key=lambda name: y[self.editor.model.index(name)].item())

    def turn(self, names: Sequence[str]) -> None:
        """Moves the first of some attributes that the model has to the other end: a first edit, to be seen."""
        for name in [name for name in names if name in self.attributes][:1]:
            self.move(name, float(self.level(name) < 0.5))

    def show(self, name: str) -> None:
        """Shows the plane of an attribute."""
        self.editor.model.index(name)
        self.shown = name

    def choose(self, face: int) -> None:
        """Turns to another face, by its number, or raises ValueError; the changes of the others stay."""
        if face not in range(len(self._changes)):
            raise ValueError(f"expected a face from 0 to {len(self._changes) - 1}, got {face}")
        self.face = face

    def pick(self, x: float, y: float) -> None:
        """Sets the shown attribute to the point of its plane at a pixel of the picture that `plane` gives."""
        inside = (min(max(float(pixel), 0.0), float(SIDE)) for pixel in (x, y))
        self._changes[self.face][self.shown] = self._plane().point(*inside)

    def nudge(self, right: int, up: int) -> None:
        """Moves the point in the shown plane by some steps."""
        x, y = self._plane().pixel(_point(self._present(), self.editor.model.index(self.shown)))
        self.pick(x + right * STEP, y - up * STEP)

    def reset(self) -> None:
        """Takes all changes of all faces back."""
        for changes in self._changes:
            changes.clear()

    def level(self, name: str) -> float:
        """The value of an attribute's slider: the one it was moved to, or else the model's, no further than 0 or 1."""
        change = self._changes[self.face].get(name)
        is_moved = isinstance(change, float)
        return round(min(max(change, LOWEST), HIGHEST) if is_moved else min(max(self._level_of(name), 0.0), 1.0), 2)

    def before(self) -> bytes:
        """The photo as it came, or the face's surroundings, as a JPEG of at most VIEW_SIDE pixels a side."""
        return _jpeg(self._framed(self._picture))

    def after(self) -> bytes:
        """The same with the changes."""
        return _jpeg(self._framed(self._rendered(self._view)))

    @property
    def plane_is_quick(self) -> bool:
        """True if the faces of the shown plane are decoded already, or there is no plane."""
        return not self.has_planes or self._cell_faces[0] == self._key()

    def plane(self) -> bytes:
        """The plane of the shown attribute, for a model that has planes, as a JPEG of SIDE pixels a side."""
        place, i, key = self._plane(), self.editor.model.index(self.shown), self._key()
        if self._cell_faces[0] != key:
            self._cell_faces = key, decoded_faces(self.editor.model, self._present(), self.shown, place)
        absent, present = self._ends(self.shown)
        marks = {"photo": _point(self._own(), i), "absent": absent, "present": present}
        return _jpeg(with_marks(self._cell_faces[1], place, marks, _point(self._present(), i)))

    def download(self) -> bytes:
        """The changed photo at its own size, as a PNG that is marked as edited."""
        photo, view = _read(self.source), self._view
        if np.any(self._scale != 1):
            landmarks = np.stack([face.landmarks * self._scale for face in view.faces])
            view = self.editor.open(photo, face="all", landmarks=landmarks)
        file = BytesIO()
        values = {name: value for changes in self._changes for name, value in changes.items()}
        mark = history(self.model_name, values) if values else ""
        metadata = Metadata(icc_profile=photo.info.get("icc_profile"), mark=mark)
        self._rendered(view).save(file, "PNG", compress_level=4, **metadata.options("PNG", photo.size))
        return file.getvalue()

    def _rendered(self, photo: EncodedPhoto) -> Image.Image:
        """The photo with each face's changes."""
        edited = [self.editor.model.edit(photo.latents[i], changes) for i, changes in enumerate(self._changes)]
        return photo.render(Latents.cat(edited), paste=self.paste)

    def _framed(self, picture: Image.Image) -> Image.Image:
        """The whole picture, or in a close-up what lies around the face, twice as large as it."""
        if not self.close_up:
            return picture
        left, top, right, bottom = self._view.faces[self.face].box
        x, y, reach = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)
        left, top = max(0, x - reach), max(0, y - reach)
        right, bottom = min(picture.width, x + reach), min(picture.height, y + reach)
        return picture.crop((round(left), round(top), round(right), round(bottom)))

    def _own(self) -> Latents:
        return self._view.latents[self.face]

    def _present(self) -> Latents:
        return self.editor.model.edit(self._own(), self._changes[self.face])

    def _ends(self, name: str) -> tuple[Point, Point]:
        """The points of the plane that stand for absent and for present."""
        i = self.editor.model.index(name)
        absent, present = (self.editor.model.edit(self._own(), {name: value}) for value in (0.0, 1.0))
        return _point(absent, i), _point(present, i)

    def _key(self) -> tuple[Any, ...]:
        """Everything that the faces of the plane depend on."""
        others = {name: value for name, value in self._changes[self.face].items() if name != self.shown}
        return self.face, self.shown, others

    def _plane(self) -> Plane:
        return Plane.around(*self._ends(self.shown), own=_point(self._own(), self.editor.model.index(self.shown)))

    def _level_of(self, name: str) -> float:
        """The place of w_i along the line from absent to present; y_i for a model without subspaces."""
        model, i, latents = self.editor.model, self.editor.model.index(name), self._present()
        if latents.w.shape[-1] == 0:
            return latents.y[0, i].item()
        absent, present = (model.edit(latents, {name: value}).w[0, i] for value in (0.0, 1.0))
        along = present - absent
        return (torch.dot(latents.w[0, i] - absent, along) / torch.dot(along, along).clamp(min=1e-12)).item()


def read_file(path: str | Path) -> bytes:
    """The content of a file; ImageError if it is gone."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError("the photo is gone: choose it again") from error


def _read(source: bytes) -> Image.Image:
    """The photo in a file's bytes, upright, L, LA, RGB or RGBA."""
    try:
        with opened(BytesIO(source)) as header:
            if header.width * header.height > MAX_PIXELS:
                raise ImageError(
                    f"expected a photo of at most {MAX_PIXELS / 1e6:g} megapixels, got {header.width}×{header.height}"
                    " pixels: make it smaller"
                )
            return open_picture(header)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise anything
        raise ImageError("expected a photo (JPEG, PNG, WebP, …), got something else: choose another file") from error


def _point(latents: Latents, i: int) -> Point:
    x, y = latents.w[0, i].tolist()
    return x, y


def _jpeg(picture: Image.Image) -> bytes:
    """For the page: quick to pack, and without visible loss; what is transparent becomes white."""
    icc = picture.info.get("icc_profile")
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    file = BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=92, subsampling=0, icc_profile=icc)
    return file.getvalue()
