"""Chooses the faces of a photo that are edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from csvae_hub.editing.alignment import check_landmarks, check_place, face_outline
from csvae_hub.editing.detection import Face
from csvae_hub.errors import FaceError, NoFaceError

Which: TypeAlias = Literal["largest", "all"] | int
"""The faces of a photo that are edited: the largest, all, or one by its number from 0, largest first."""


def check_which(which: Any) -> None:
    """Raises ValueError for what is none of `Which`."""
    is_number = isinstance(which, int | np.integer) and not isinstance(which, bool) and which >= 0
    if not is_number and not (isinstance(which, str) and which in ("largest", "all")):
        raise ValueError(f"face: expected 'largest', 'all' or a number from 0, got {which!r}")


def faces_of(landmarks: ArrayLike) -> list[Face]:
    """Gives the faces with given landmarks, (5, 2) of one or (F, 5, 2) of several, in their order."""
    try:
        several = np.asarray(landmarks, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FaceError(f"landmarks: expected numbers of shape (5, 2) or (F, 5, 2), got {landmarks!r}") from error
    faces: list[Face] = []
    for points in map(check_landmarks, several if several.ndim == 3 else several[None]):
        outline = face_outline(points)
        (left, top), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
        faces.append(Face((left, top, right, bottom), points, 1.0))
    return faces


def chosen(faces: Sequence[Face], which: Which, photo: tuple[int, int]) -> tuple[list[Face], list[tuple[Face, str]]]:
    """Gives the faces to edit in a photo (width, height), and those of "all" that can't be, each with the reason."""
    if not faces:
        raise NoFaceError(
            f"no face found in this photo of {photo[0]}×{photo[1]} pixels: give its five landmarks, edit it as a face"
            " that is aligned already (model.edit, or --aligned), or take another photo"
        )
    if which == "all":
        return _usable(faces, photo)
    number = max(range(len(faces)), key=lambda i: faces[i].size) if which == "largest" else which
    if number >= len(faces):
        raise FaceError(
            f"face: expected a number below {len(faces)}, since so many faces are found, got {number}:"
            f" choose 0{f' (the largest) to {len(faces) - 1}' if len(faces) > 1 else ''}"
        )
    reason = unusable(faces[number], photo)
    if reason:
        others = "; this photo has other faces: choose one by its number" if len(faces) > 1 else ""
        raise FaceError(reason + others)
    return [faces[number]], []


def _usable(faces: Sequence[Face], photo: tuple[int, int]) -> tuple[list[Face], list[tuple[Face, str]]]:
    checked = [(face, unusable(face, photo)) for face in faces]
    if usable := [face for face, reason in checked if not reason]:
        return usable, [(face, reason) for face, reason in checked if reason]
    numbered = "; ".join(f"face {i}: {reason}" for i, (_, reason) in enumerate(checked))
    raise FaceError(checked[0][1] if len(faces) == 1 else f"none of {len(faces)} faces can be edited: {numbered}")


def unusable(face: Face, photo: tuple[int, int]) -> str:
    """Says why a face can't be edited in a photo (width, height); nothing where it can."""
    try:
        check_place(check_landmarks(face.landmarks), photo)
    except FaceError as error:
        return str(error)
    return ""
