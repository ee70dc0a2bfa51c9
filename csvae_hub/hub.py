"""Weights folders: config.json, model.safetensors and their JSON companions, read and written. Knows no model class."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch import contiguous_format as contiguous

from csvae_hub.config import FORMAT_VERSION
from csvae_hub.errors import (
    CorruptWeightsError,
    MissingWeightsError,
    UnknownModelError,
    WeightsError,
    WeightsVersionError,
    did_you_mean,
)

PACKAGED = Path(__file__).parent / "weights"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
LOCAL = "local-dir:"


def list_packaged() -> list[str]:
    """Gives the names of the models that the library brings, sorted."""
    return sorted(config.parent.name for config in PACKAGED.glob(f"*/{CONFIG}"))


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Gives the weights folder meant: an existing folder, else a packaged model of that name.

    The prefix `local-dir:` asks for a folder and nothing else.

    Raises:
        UnknownModelError: there is neither.
    """
    name = os.fspath(name_or_path)
    folder = Path(name.removeprefix(LOCAL))
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise UnknownModelError(f"{folder} is a file: expected the folder that holds {CONFIG} and {WEIGHTS}")
    if name.startswith(LOCAL):
        raise UnknownModelError(f"no such folder: {folder}. Without {LOCAL!r}, packaged models are looked up as well")
    packaged = list_packaged()
    if name in packaged:
        return PACKAGED / name
    raise UnknownModelError(
        f"unknown model {name!r}:{did_you_mean(name, packaged)} expected an existing folder or a packaged model"
        f" ({', '.join(packaged) or 'none here'})"
    )


def load_weights(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Gives config.json as it stands and the tensors of model.safetensors, on the CPU, in the dtypes stored.

    Raises:
        MissingWeightsError: one of the two files is not there.
        CorruptWeightsError: one is truncated or something else than its name says, or a tensor holds NaN or infinity.
        WeightsVersionError: the folder was written by a newer library.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    _check_format_version(config, folder / CONFIG)
    path = _existing(folder / WEIGHTS)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CorruptWeightsError(
            f"{path} is truncated or corrupt: expected a whole safetensors file, got {path.stat().st_size} bytes"
            f" ({error}). Copy or download it again"
        ) from error
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise CorruptWeightsError(
            f"{path} holds NaN or infinity in {bad[0]!r}{f' and {len(bad) - 1} other tensors' if bad[1:] else ''}:"
            " expected finite numbers. Its training has diverged, or float16 was too narrow for it; use other weights"
        )
    return config, state


def save_weights(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Writes config.json, model.safetensors and one JSON file for each entry of extra (file name to content).

    All is written to a temporary folder beside and then moved file by file, config.json last; other files in the folder
    stay. format_version is put first in config.json.

    Raises:
        WeightsError: the folder's name is taken by a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"{folder} is a file: expected the name of a folder to write the weights to")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.resolve().parent))
    try:
        # Clones, since safetensors refuses tensors that share memory.
        tensors = {name: tensor.detach().cpu().clone(memory_format=contiguous) for name, tensor in state.items()}
        # Not save_file, whose files only their owner can read.
        (temporary / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        for name, content in (extra or {}).items():
            write_json(temporary / name, content)
        write_json(temporary / CONFIG, {"format_version": FORMAT_VERSION, **config})
        for name in (WEIGHTS, *(extra or {}), CONFIG):
            os.replace(temporary / name, folder / name)
    finally:
        shutil.rmtree(temporary)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Gives the object of a JSON file.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is not UTF-8 JSON, or not an object.
    """
    path = _existing(Path(path))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptWeightsError(f"{path} is no JSON: {error}. Copy or download it again") from error
    if not isinstance(content, dict):
        raise CorruptWeightsError(f"{path}: expected a JSON object {{…}}, got {type(content).__name__}")
    return content


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON object: UTF-8, indented, ending in a newline; who reads meanwhile sees the old file or the new.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary name beside path: what is written there replaces path in the end, or vanishes on an error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    there = sorted(file.name for file in path.parent.glob("*")) if path.parent.is_dir() else []
    raise MissingWeightsError(
        f"no {path.name} in {path.parent}: expected a weights folder as save_pretrained writes it,"
        f" got {', '.join(there[:8]) or 'nothing'}{', …' if there[8:] else ''}"
    )


def _check_format_version(config: Mapping[str, Any], path: Path) -> None:
    version = config.get("format_version")
    if type(version) is not int or version < 1:
        raise CorruptWeightsError(
            f"{path}: format_version: expected a whole number from 1 to {FORMAT_VERSION}, got {version!r}."
            " Is this a config.json of csvae-hub?"
        )
    if version > FORMAT_VERSION:
        raise WeightsVersionError(
            f"{path}: format_version {version} is newer than this library, which reads up to {FORMAT_VERSION}:"
            " pip install --upgrade csvae-hub"
        )
