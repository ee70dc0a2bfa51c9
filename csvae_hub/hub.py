"""Weights folders: config.json, model.safetensors and their companions, found by name, read and written.

Knows no model class. `csvae_hub.safe_files` and `csvae_hub.tensor_file` open what a folder holds;
`csvae_hub.hub_client` speaks with the Hub.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from csvae_hub.config import FORMAT_VERSION, shown
from csvae_hub.errors import (
    CorruptWeightsError,
    HubError,
    UnknownModelError,
    WeightsError,
    WeightsVersionError,
    did_you_mean,
)
from csvae_hub.safe_files import inside, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from csvae_hub.tensor_file import TensorFile

__all__ = [
    "CONFIG",
    "HUB",
    "LOCAL",
    "PACKAGED",
    "PREPROCESSOR",
    "WEIGHTS",
    "list_packaged",
    "load_weights",
    "open_weights",
    "read_config",
    "read_json",
    "replacing",
    "resolve",
    "save_weights",
    "write_json",
]

PACKAGED = Path(__file__).parent / "weights"
CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor.json"
LOCAL, HUB = "local-dir:", "hf-hub:"
MAX_CONFIG = 1 << 20
"""Upper bound of config.json and preprocessor.json, in bytes."""

_REPO_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


def list_packaged() -> list[str]:
    """Gives the names of the models that the library brings, sorted."""
    return sorted(config.parent.name for config in PACKAGED.glob(f"*/{CONFIG}"))


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Gives the weights folder meant: an existing folder, else a packaged model of that name, else a Hub repo's.

    The prefix `local-dir:` asks for a folder and nothing else, `hf-hub:` for a Hub repo and nothing else. What is on
    the Hub is downloaded to the Hub's cache, once; the folder holds the files of one commit.

    Args:
        name_or_path: a folder, a packaged name, or a repo id such as "user/name".
        revision: a branch, tag or commit of the Hub repo; by default `main`.
        token: for private and gated repos; by default the one that `hf auth login` stored. It and the arguments below
            say how to download, and mean nothing where there is nothing to download.
        cache_dir: by default the Hub's own, `$HF_HOME/hub`.
        force_download: download again what is in the cache.
        local_files_only: use the cache and no network.

    Raises:
        UnknownModelError: there is none of them.
        HubError: the Hub repo can't be read; the subclass says why.
        MissingWeightsError: the Hub repo lacks one of the files.
        ValueError: a revision of what is no Hub repo.
    """
    name = os.fspath(name_or_path)
    folder = None if name.startswith(HUB) else _local(name)
    if folder is not None:
        if revision is not None:
            raise ValueError(
                f"revision: expected None, since {folder} is a folder and has no revisions, got {revision!r}. Leave it"
                f" out, or ask for the Hub repo by '{HUB}user/name'"
            )
        return folder
    repo = name.removeprefix(HUB)
    if not _REPO_ID.fullmatch(repo):
        raise _unknown(name)
    from csvae_hub.hub_client import download

    try:
        return download(
            repo,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
    except HubError as error:
        if name.startswith(HUB):
            raise
        raise type(error)(f"{name!r} is no folder and no packaged model, so the Hub was asked: {error}") from error


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Gives config.json as it stands, once its format is known to be one that this library reads.

    Raises:
        MissingWeightsError: it is not there.
        CorruptWeightsError: it is no JSON, or has no format_version.
        UnsafeWeightsError: it is a symbolic link out of the folder.
        WeightsVersionError: it was written by a newer library.
    """
    path = inside(folder, CONFIG)
    config = read_json(path, MAX_CONFIG)
    _check_format_version(config, path)
    return config


def open_weights(folder: str | os.PathLike[str]) -> TensorFile:
    """Gives a folder's model.safetensors, its header read.

    Raises:
        MissingWeightsError: it is not there.
        CorruptWeightsError: it is truncated or something else than its name says.
        UnsafeWeightsError: it is a symbolic link out of the folder.
    """
    from csvae_hub.tensor_file import TensorFile

    return TensorFile(inside(folder, WEIGHTS))


def load_weights(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Gives config.json as it stands and the tensors of model.safetensors, on the CPU, in the dtypes stored.

    Raises:
        MissingWeightsError: one of the two files is not there.
        CorruptWeightsError: one is truncated or something else than its name says, or a tensor holds NaN or infinity.
        UnsafeWeightsError: one is a symbolic link out of the folder.
        WeightsVersionError: the folder was written by a newer library.
    """
    config, file = read_config(folder), open_weights(folder)
    return config, file.read(file.shapes)


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
        UnsafeWeightsError: a name in extra leads out of the folder.
    """
    from safetensors.torch import save
    from torch import contiguous_format as contiguous

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"{folder} is a file: expected the name of a folder to write the weights to")
    for name in extra or {}:
        inside(folder, name)
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


def _local(name: str) -> Path | None:
    """The folder or packaged model of a name; None where the name may be a Hub repo's."""
    folder = Path(name.removeprefix(LOCAL))
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise UnknownModelError(f"{folder} is a file: expected the folder that holds {CONFIG} and {WEIGHTS}")
    if name.startswith(LOCAL):
        raise UnknownModelError(f"no such folder: {folder}. Without {LOCAL!r}, packaged models are looked up as well")
    return PACKAGED / name if name in list_packaged() else None


def _unknown(name: str) -> UnknownModelError:
    if name.startswith(HUB):
        return UnknownModelError(f"{name!r}: expected a Hub repo's id after {HUB!r}, such as '{HUB}user/name'")
    packaged = list_packaged()
    return UnknownModelError(
        f"unknown model {name!r}:{did_you_mean(name, packaged)} expected an existing folder, a packaged model"
        f" ({', '.join(packaged) or 'none here'}) or a Hub repo such as user/name"
    )


def _check_format_version(config: Mapping[str, Any], path: Path) -> None:
    version = config.get("format_version")
    if type(version) is not int or version < 1:
        raise CorruptWeightsError(
            f"{path}: format_version: expected a whole number from 1 to {FORMAT_VERSION}, got {shown(version)}."
            " Is this a config.json of csvae-hub?"
        )
    if version > FORMAT_VERSION:
        raise WeightsVersionError(
            f"{path}: format_version {shown(version)} is newer than this library, which reads up to {FORMAT_VERSION}:"
            " pip install --upgrade csvae-hub"
        )
