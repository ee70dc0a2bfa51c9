"""Checks that a picture is framed as the training pictures are; for models without a `FaceEditor`."""

from __future__ import annotations

import functools
import os
import warnings

import numpy as np
from PIL import Image

from csvae_hub.editing.alignment import template
from csvae_hub.editing.detection import Detector, YuNet
from csvae_hub.errors import FramingWarning, MissingExtraError
from csvae_hub.images import Preprocessor, center_square, open_picture

MAX_APART = 0.5
"""Largest mean distance of a face's landmarks from the template's, in distances of the template's eyes."""


def warn_of_framing(path: str | os.PathLike[str], preprocessor: Preprocessor) -> None:
    """Warns where the face in a file lies elsewhere than in the training pictures, or where there is none.

    A picture of the model's own size is taken for a crop, and passed over; so is any without the extra "align".

    Raises:
        ImageError: the picture can't be read.

    Warns:
        FramingWarning: see above.
    """
    picture = open_picture(path)
    if picture.size != (preprocessor.size, preprocessor.size) and (fault := framing_fault(picture, preprocessor)):
        warnings.warn(f"{path}: {fault}", FramingWarning, stacklevel=4)


def framing_fault(picture: Image.Image, preprocessor: Preprocessor, detector: Detector | None = None) -> str:
    """Says that a face lies elsewhere in an upright picture than in the training pictures, or that there is none.

    Else, and without the extra "align", it gives "". The face is expected in the picture's centre square.
    """
    try:
        faces = (detector or _detector()).detect(picture.convert("RGB"))
    except MissingExtraError:
        return ""
    remedy = "FaceEditor finds faces in photos and aligns them (csvae edit does so, without --aligned)"
    if not faces:
        return f"no face is found in this picture: the model takes faces that are framed as in its training; {remedy}"
    left, top, side = center_square(*picture.size)
    expected = template(preprocessor) * (side / preprocessor.size) + (left, top)
    eyes = np.hypot(*(expected[1] - expected[0]))
    apart = min(np.hypot(*(face.landmarks - expected).T).mean() for face in faces) / eyes
    if apart <= MAX_APART:
        return ""
    return f"the face lies {apart:.1f} distances of the eyes from where the model's training pictures have it: {remedy}"


@functools.cache
def _detector() -> Detector:
    return YuNet()
