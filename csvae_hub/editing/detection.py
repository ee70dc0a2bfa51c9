"""Finds faces and their five landmarks in photos of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from math import ceil, floor
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csvae_hub.editing.alignment import Points, Similarity, fit, warped
from csvae_hub.errors import require
from csvae_hub.images import CELEBA_LANDMARKS

MODEL = Path(__file__).with_name("yunet") / "face_detection_yunet_2023mar.onnx"
"""YuNet (Wu, Peng, Yu: "YuNet: a tiny millisecond-level face detector", 2023), from OpenCV Zoo, MIT licence."""
STRIDES, LEAST = (8, 16, 32), 0.5
"""Pixels from cell to cell of YuNet's three grids; the score from which what it says of a cell is a candidate."""

QUICK_SIDE, QUICK_SMALL = 320, 12
"""The longer side, in pixels, at which the largest face alone is looked for first, and the least size it must have."""
FIRST_SIDE = 640
"""The longer side at which a photo is searched first for all faces."""
FINER_SIDES = (1280, 2560)
"""The longer sides at which larger photos are searched where no face or only small ones are found."""
SMALL = 24
"""Size in pixels below which a face may have smaller neighbours that the search missed."""
SURE = 0.93
"""Faces with a lower score are also looked at upside down and on their sides."""
NEAR = 0.1
"""The turn, in radians, and change of size by a first look up to which a sure face that isn't small needs no second."""

_FACE = np.array(CELEBA_LANDMARKS) - np.mean(CELEBA_LANDMARKS, axis=0)
_UPRIGHT_FACE = _FACE / (_FACE[1, 0] - _FACE[0, 0])
"""Landmarks around their mean, with the eyes 1 apart."""
MAX_FACES = 100
"""Only the largest faces of a photo are looked at again, and edited."""
OVERLAP = 0.5
"""Faces whose boxes share more than this, of what both cover, are one face seen twice."""
_AS_LARGE = 0.7
"""Share of the largest size from which a rough face may turn out to be the largest one."""
_SAME = 0.5
"""Candidates are the same face if their landmarks' means are nearer than this, in distances of the eyes."""


@dataclass(frozen=True)
class Face:
    """A face in a photo.

    `box` is left, top, right, bottom; `landmarks` (5, 2) are x, y of the eye at the picture's left, the other eye, the
    nose, the mouth corner at the left and the other, all in pixels of the upright photo; `score` is from 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: Points
    score: float

    @property
    def size(self) -> float:
        """The square root of the box's area, in pixels."""
        left, top, right, bottom = self.box
        return (max(right - left, 0) * max(bottom - top, 0)) ** 0.5


class Detector(Protocol):
    """Finds faces. Any class with this method will do."""

    def detect(self, image: Image.Image) -> Sequence[Face]:
        """Gives the faces in an upright RGB photo, in any order."""
        ...


@runtime_checkable
class QuickDetector(Detector, Protocol):
    """A detector that can find the largest face sooner than all."""

    def largest(self, image: Image.Image) -> Face | None:
        """Gives the largest face in an upright RGB photo; None where only `detect` can tell."""
        ...


@dataclass(frozen=True)
class _Patch:
    """The surroundings of a face: pixels (h, w, 3), blue first; they are the photo's from `origin`, times `scales`."""

    pixels: NDArray[np.uint8]
    origin: Points
    scales: Points


_View: TypeAlias = tuple[int, Points]
"""A square in which a face is looked at again: its side, and where an upright face is expected there."""


def _view(side: int, eyes: float, shift: tuple[float, float] = (0, 0), turn: float = 0) -> _View:
    """A view with the eyes some pixels apart, the face turned by radians and shifted from the middle."""
    turned = _UPRIGHT_FACE @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    return side, eyes * turned + side / 2 + shift


ROUGH_VIEW = _view(224, 75)
TURNED_VIEWS = tuple(_view(224, 75, turn=turn * np.pi / 2) for turn in (1, 2, 3))
FINE_VIEWS = (_view(224, 70), _view(224, 60, (2, 2), 0.1), _view(224, 80, (-2, -1), -0.1))
"""The error of YuNet's landmarks depends on the place of a face on its grid; the mean over several views has less."""
_FINEST, _REACH = 80, 3.5
"""Pixels between the eyes in the finest of the views; how far from a face the views reach, in distances of its eyes."""


class YuNet:
    """The detector that comes with the package; it runs on onnxruntime, and threads may share one.

    The photo is searched at a reduced size first. If that finds nothing or only small faces, it is searched finer; if
    there is still nothing, turned by quarters. Each face is then looked at again, upright and in fixed sizes, so that
    its landmarks hardly depend on its size, rotation and place. Faces of a lower `score` are left out.

    Raises:
        MissingExtraError: OpenCV or onnxruntime is missing; the extra "align" brings them.
    """

    def __init__(self, score: float = 0.7) -> None:
        require("cv2", "align")
        onnxruntime = require("onnxruntime", "align")
        self.score = score
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a few milliseconds; others wait busily
        self._network = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
        self._give_back = onnxruntime.RunOptions()  # else the memory of the largest view stays
        self._give_back.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def detect(self, image: Image.Image) -> list[Face]:
        """Gives the faces in an upright RGB photo, largest first."""
        image = image if image.mode == "RGB" else image.convert("RGB")
        return self._exact(image, self._searched(image))

    def largest(self, image: Image.Image) -> Face | None:
        """Gives the largest face in an upright RGB photo, by a look at a small copy; None where no large one is there.

        `detect` looks at a finer copy, since smaller faces may be there.
        """
        image = image if image.mode == "RGB" else image.convert("RGB")
        scale = min(QUICK_SIDE / max(image.size), 2)
        found = self._found_at(image, scale, quick=True)
        least = max([QUICK_SMALL / scale, *(_AS_LARGE * face.size for face in found)])
        return next(iter(self._exact(image, [face for face in found if face.size > least])), None)

    def _exact(self, image: Image.Image, rough: Sequence[Face]) -> list[Face]:
        """The largest of faces that hold out against a second look, largest first."""
        largest = sorted(rough, key=lambda face: -face.size)[:MAX_FACES]
        seen = (self._looked_at_again(image, face) for face in largest)
        faces = _distinct(_merged([face for face in seen if face is not None and face.score >= self.score]))
        return sorted(faces, key=lambda face: -face.size)

    def __reduce__(self) -> tuple[type[YuNet], tuple[float]]:
        """The network can't be copied; it is made anew."""
        return YuNet, (self.score,)

    def _searched(self, image: Image.Image) -> list[Face]:
        """Faces with rough landmarks."""
        scale = min(FIRST_SIDE / max(image.size), 2)
        found = self._found_at(image, scale)
        for side in FINER_SIDES:
            is_finest = scale >= 1
            if is_finest or (found and min(face.size for face in found) * scale > SMALL):
                break
            scale = min(side / max(image.size), 1)
            found = _merged([*found, *self._found_at(image, scale)])
        return found or self._turned(image)

    def _found_at(self, image: Image.Image, scale: float, quick: bool = False) -> list[Face]:
        size = np.maximum(1, np.round(np.multiply(image.size, scale))).astype(int)
        small = _averaged(image, (0, 0, *image.size), size.tolist()) if quick and scale < 1 else _resized(image, size)
        back = Similarity(np.diag(np.array(image.size) / size), np.zeros(2))
        return [_moved(face, back) for face in _merged(self._candidates(small))]

    def _turned(self, image: Image.Image) -> list[Face]:
        """Faces that lie on their side or upside down."""
        scale = min(FIRST_SIDE / max(image.size), 2)
        side = round(max(image.size) * scale)
        middle = np.array(image.size) / 2
        found: list[Face] = []
        for turn in (1j, -1, -1j):
            linear = scale * np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
            transform = Similarity(linear, side / 2 - linear @ middle)
            candidates = self._candidates(_blue_first(warped(image, transform, side, kept=1)))
            found += [_moved(face, transform.inverse()) for face in _merged(candidates)]
        return _merged(found)

    def _looked_at_again(self, image: Image.Image, face: Face) -> Face | None:
        """The face with exact landmarks; None where it turns out to be none."""
        patch = _patch_of(image, face)
        rough = self._seen(patch, face, ROUGH_VIEW)
        if rough is None or rough.score < SURE:
            turned = [rough, *(self._seen(patch, face, view, within=2 * _SAME) for view in TURNED_VIEWS)]
            rough = max((seen for seen in turned if seen is not None), key=lambda seen: seen.score, default=None)
        if rough and (rough.score < SURE or rough.size < 2 * SMALL or _turn(face, rough) > NEAR):
            rough = self._seen(patch, rough, ROUGH_VIEW)
        if rough is None:
            return None
        seen = [found for view in FINE_VIEWS if (found := self._seen(patch, rough, view)) is not None]
        return _mean(seen) if seen else None

    def _seen(self, patch: _Patch, face: Face, view: _View, within: float = _SAME) -> Face | None:
        cv2 = require("cv2", "align")
        side, landmarks = view
        transform = fit(face.landmarks, landmarks)
        linear = transform.linear / patch.scales
        shift = transform(patch.origin) + linear @ (0.5, 0.5) - 0.5  # OpenCV counts from the first pixel's middle
        matrix = np.concatenate([linear, shift[:, None]], 1)
        square = cv2.warpAffine(patch.pixels, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
        candidates = self._candidates(square)
        (expected,) = _places([_moved(face, transform)])
        around = list(compress(candidates, _near(_places(candidates), expected, within)))
        return _moved(_mean(around), transform.inverse()) if around else None

    def _candidates(self, pixels: NDArray[np.uint8]) -> list[Face]:
        """The network's candidates in pixels (h, w, 3), blue first; many for each face."""
        cv2 = require("cv2", "align")
        height, width = pixels.shape[:2]
        more = (-height % STRIDES[-1], -width % STRIDES[-1])  # to whole cells of each grid
        padded = cv2.copyMakeBorder(pixels, 0, more[0], 0, more[1], cv2.BORDER_CONSTANT)
        is_large = max(padded.shape) > FIRST_SIDE
        run = self._network.run(None, {"input": cv2.dnn.blobFromImage(padded)}, self._give_back if is_large else None)
        answers = [answer[0] for answer in run]
        grids = (answers[i :: len(STRIDES)] for i in range(len(STRIDES)))  # of each grid all four kinds
        return [
            face
            for stride, grid in zip(STRIDES, grids, strict=True)
            for face in _faces(grid, stride, padded.shape[1] // stride, max(width, height))
        ]


def _blue_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def _resized(image: Image.Image, size: NDArray[np.int_]) -> NDArray[np.uint8]:
    width, height = size.tolist()
    return _blue_first(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2))


def _averaged(image: Image.Image, box: tuple[int, int, int, int], size: Sequence[int]) -> NDArray[np.uint8]:
    """Pixels (h, w, 3), blue first, of a box of a photo, each the mean of those in its place; of a size (w, h)."""
    cv2 = require("cv2", "align")
    left, top, right, bottom = box
    factor = max(1, min((right - left) // size[0], (bottom - top) // size[1]))
    part = np.asarray(image.reduce(factor, box) if factor > 1 else image.crop(box))
    return cv2.cvtColor(cv2.resize(part, tuple(size), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)


def _patch_of(image: Image.Image, face: Face) -> _Patch:
    """The part of a photo that the views of a face show, averaged to about their resolution where it is finer."""
    ((x, y, eyes),) = _places([face])
    reach, scale = _REACH * eyes, min(1.0, _FINEST / eyes)
    left, top = np.clip((floor(x - reach), floor(y - reach)), 0, np.array(image.size) - 1).tolist()
    right, bottom = np.clip((ceil(x + reach), ceil(y + reach)), (left + 1, top + 1), image.size).tolist()
    sides = np.array([right - left, bottom - top])
    size = np.maximum(1, np.round(sides * scale)).astype(int)
    pixels = _averaged(image, (left, top, right, bottom), size.tolist())
    return _Patch(pixels, np.array([left, top], float), size / sides)


def _faces(grid: Sequence[NDArray[np.float32]], stride: int, columns: int, side: int) -> list[Face]:
    """Faces by what YuNet says of the cells of a grid with so many columns, row after row, as OpenCV reads it.

    Without those beyond all sense, of which it gives some where an image, of that longer side, is a sliver.
    """
    classes, objects, boxes, landmarks = grid
    scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
    (found,) = np.nonzero(scores >= LEAST)
    if not found.size:
        return []
    cells = np.stack([found % columns, found // columns], 1)
    middles = boxes[found, :2] + cells
    with np.errstate(over="ignore"):
        half = np.exp(boxes[found, 2:]) / 2
    corners = np.concatenate([middles - half, middles + half], 1)
    points = landmarks[found] + np.tile(cells, 5)
    rows = stride * np.concatenate([corners, points], 1).astype(np.float64)
    sane = (np.abs(rows) < 2 * side).all(1)
    return [
        Face((left, top, right, bottom), row[4:].reshape(5, 2), score)
        for row, score in zip(rows[sane], scores[found][sane].tolist(), strict=True)
        for left, top, right, bottom in [row[:4].tolist()]
    ]


def _merged(candidates: Sequence[Face]) -> list[Face]:
    """One face of all the candidates around each place: around the best one, then the best of the rest, and so on."""
    merged: list[Face] = []
    left = sorted(candidates, key=lambda face: -face.score)
    places = _places(left)
    while left:
        same = _near(places, places[0])
        merged.append(_mean(list(compress(left, same))))
        left, places = list(compress(left, ~same)), places[~same]
    return merged


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """The faces without those that overlap a surer one: the same face seen upside down, for one."""
    cv2 = require("cv2", "align")
    boxes = [(left, top, right - left, bottom - top) for left, top, right, bottom in (face.box for face in faces)]
    return [faces[i] for i in cv2.dnn.NMSBoxes(boxes, [face.score for face in faces], 0.0, OVERLAP)]


def _places(faces: Sequence[Face]) -> Points:
    """Of each face (n, 3): where it is (x, y), and about how far its eyes would be apart if it looked at the camera."""
    landmarks = np.array([face.landmarks for face in faces]).reshape(-1, 5, 2)
    middles = landmarks.mean(1, keepdims=True)
    spread = ((landmarks - middles) ** 2).sum((1, 2)) / (_UPRIGHT_FACE**2).sum()
    return np.concatenate([middles[:, 0], np.sqrt(spread)[:, None]], axis=1)


def _near(places: Points, place: Points, within: float = _SAME) -> NDArray[np.bool_]:
    """Mask of the places that are nearer to one than `within` distances of the eyes."""
    apart = np.hypot(*(places[:, :2] - place[:2]).T)
    return apart <= within * np.maximum(places[:, 2], place[2])


def _turn(before: Face, after: Face) -> float:
    """The greatest change of turn (radians) or relative size from one face's landmarks to another's."""
    return float(np.abs(fit(before.landmarks, after.landmarks).linear - np.eye(2)).max())


def _mean(faces: Sequence[Face]) -> Face:
    """Means weighted by the squared scores; the score is the best one."""
    scores = np.array([face.score for face in faces])
    weights = scores**2 / (scores**2).sum()
    left, top, right, bottom = (weights @ [face.box for face in faces]).tolist()
    landmarks = np.einsum("n,nij->ij", weights, [face.landmarks for face in faces])
    return Face((left, top, right, bottom), landmarks, float(scores.max()))


def _moved(face: Face, transform: Similarity) -> Face:
    """The face elsewhere; its box is that of the ellipse in the old one."""
    left, top, right, bottom = face.box
    middle = transform([(left + right) / 2, (top + bottom) / 2])
    reach = np.hypot(*(transform.linear * [(right - left) / 2, (bottom - top) / 2]).T)
    box = (*(middle - reach).tolist(), *(middle + reach).tolist())
    return Face(box, transform(face.landmarks), face.score)
