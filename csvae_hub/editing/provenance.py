"""Signs edited photos by C2PA, and reads what others signed; c2pa-python comes with the extra "provenance"."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from csvae_hub import __version__
from csvae_hub.editing.xmp import SOURCE_TYPE
from csvae_hub.errors import require
from csvae_hub.opening import opened

KINDS = ("AVIF", "GIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats, by Pillow's names, that hold a manifest."""
ALGORITHMS = ("es256", "es384", "es512", "ps256", "ed25519")
"""Tried in this order; certificate and key tell which one is theirs."""
OFFLINE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},  # it would show the photo as it was
}
"""Nothing that a stranger's picture names is fetched."""


class Signer:
    """Signs edited photos with a certificate: the same digital source type and history as the mark, as a C2PA manifest.

    Args:
        certificate: a PEM file with the certificate and those that vouch for it, the signer's own first.
        key: a PEM file with its private key, without a password.

    Raises:
        MissingExtraError: c2pa-python is missing.
        OSError: a file can't be read.
        ValueError: certificate and key don't fit together, or the certificate may not sign.
    """

    def __init__(self, certificate: str | os.PathLike[str], key: str | os.PathLike[str]) -> None:
        self._c2pa = require("c2pa", "provenance")
        pem, faults = (Path(certificate).read_bytes(), Path(key).read_bytes()), []
        for algorithm in ALGORITHMS:
            self._info = self._c2pa.C2paSignerInfo(algorithm, *pem, None)
            try:
                file = BytesIO()
                Image.new("RGB", (8, 8)).save(file, "PNG")
                self._signed(file, "PNG", file, "a trial")
                return
            except self._c2pa.C2paError as error:
                faults.append(error)
        raise ValueError(
            f"expected a certificate that may sign documents, with its chain, and its key, got {certificate} and {key}:"
            f" {faults[0]}"
        ) from faults[0]

    def sign(self, path: Path, kind: str, source: Path, words: str) -> None:
        """Signs an edited photo of a kind in place; `source` is the photo as it was, `words` the history."""
        with path.open("rb") as edited, source.open("rb") as original:
            signed = self._signed(edited, kind, original, words)
        path.write_bytes(signed)

    def _signed(self, edited: Any, kind: str, original: Any, words: str) -> bytes:
        agent = {"name": "csvae-hub", "version": __version__}
        action = {
            "action": "c2pa.edited",
            "digitalSourceType": SOURCE_TYPE,
            "softwareAgent": agent,
            "description": words,
        }
        manifest = {
            "claim_generator_info": [agent],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        with (
            self._c2pa.Settings.from_dict(OFFLINE) as settings,
            self._c2pa.Context(settings) as context,
            self._c2pa.Builder(json.dumps(manifest), context=context) as builder,
            self._c2pa.Signer.from_info(self._info) as signer,
        ):
            builder.set_intent(self._c2pa.C2paBuilderIntent.EDIT)
            with opened(original) as header:
                was = "JPEG" if header.format == "MPO" else header.format or ""
            original.seek(0)
            with suppress(self._c2pa.C2paError):  # a photo whose own manifest is broken is none that is opened
                if was in KINDS:
                    builder.add_ingredient({"title": "photo", "relationship": "parentOf"}, Image.MIME[was], original)
            edited.seek(0)
            file = BytesIO()
            builder.sign(signer, Image.MIME[kind], edited, file)
            return file.getvalue()


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Reads the active C2PA manifest of a picture: issuer, state of validation and actions; None without one.

    Nothing is fetched. The state is "Valid" if the file is as it was signed, whoever the signer is.

    Raises:
        MissingExtraError: c2pa-python is missing.
        OSError: the file can't be read, or is no picture.
        ValueError: the manifest is broken.
    """
    c2pa = require("c2pa", "provenance")
    with Path(path).open("rb") as file, opened(file) as header:
        kind = "JPEG" if header.format == "MPO" else header.format or ""
    if kind not in KINDS:
        return None
    try:
        with (
            Path(path).open("rb") as file,
            c2pa.Settings.from_dict(OFFLINE) as settings,
            c2pa.Context(settings) as context,
            c2pa.Reader(Image.MIME[kind], file, context=context) as reader,
        ):
            return json.loads(reader.json())
    except c2pa.C2paError as error:
        if isinstance(error, c2pa.C2paError.ManifestNotFound) or str(error).startswith("Remote"):  # it lies elsewhere
            return None
        raise ValueError(f"{path}: the C2PA manifest can't be read: {error}") from error
