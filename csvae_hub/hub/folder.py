"""A weights folder: config.json, model.safetensors and the files beside them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from csvae_hub.config import FORMAT_VERSION, ModelConfig, check, from_dict, shown
from csvae_hub.errors import (
    CorruptWeightsError,
    HubError,
    UnknownModelError,
    WeightsError,
    WeightsVersionError,
    did_you_mean,
)
from csvae_hub.hub.safe_files import inside, read_json

if TYPE_CHECKING:
    from torch import Tensor

PACKAGED = Path(__file__).parents[1] / "weights"
CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor.json"
CARD, PICTURE = "README.md", "samples.png"
REQUIRED = (CONFIG, PREPROCESSOR, WEIGHTS)
COMPANIONS = ("training.json", "evaluation.json", CARD)
LOCAL, HUB = "local-dir:", "hf-hub:"

_REPO_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


def list_packaged() -> list[str]:
    """Gives the names of the packaged models, sorted."""
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
    """Gives the weights folder of a name: an existing folder, else a packaged model, else a Hub repo.

    A Hub repo is downloaded to the Hub's cache. Arguments and errors are those of `from_pretrained`.
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
    from csvae_hub.hub.download import download

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
    """Gives config.json as it stands, after a check that this library reads its format.

    Raises:
        MissingWeightsError: the file is missing.
        CorruptWeightsError: it is not JSON, or has no format_version.
        UnsafeWeightsError: it is a symbolic link out of the folder.
        WeightsVersionError: a newer library wrote it.
    """
    path = inside(folder, CONFIG)
    config = read_json(path)
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
    return config


def read_model_config(folder: str | os.PathLike[str]) -> ModelConfig:
    """Gives the config of a model's weights folder, with the errors of `read_config`.

    Raises:
        ConfigError: a field is unknown, missing or out of range.
    """
    return from_dict(ModelConfig, upgraded(read_config(folder)))


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the fields of a model's config.json as today's `ModelConfig` has them, without the versions.

    Version 0.1 always had the correction of q(z|x), and wrote the adversary as a width and a depth.

    Raises:
        ConfigError: the depth is out of range.
    """
    config = {key: value for key, value in config.items() if key not in ("format_version", "csvae_hub_version")}
    config.setdefault("correction", True)
    if "adversary" not in config:
        width, depth = config.pop("adversary_width", 256), config.pop("adversary_depth", 2)
        check(type(depth) is int and 0 <= depth <= 8, "adversary_depth", "0 to 8", depth)
        config["adversary"] = [width] * depth
    return config


def load_tensors(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Gives the tensors of model.safetensors, on the CPU, in the types stored.

    Raises:
        MissingWeightsError: the file is missing.
        CorruptWeightsError: it is truncated or not a safetensors file, or a tensor holds NaN or infinity.
        UnsafeWeightsError: it is a symbolic link out of the folder.
    """
    from csvae_hub.hub.tensors import read_tensors

    return read_tensors(inside(folder, WEIGHTS))


def load_weights(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Gives what `read_config` and `load_tensors` give, with their errors."""
    return read_config(folder), load_tensors(folder)


def save_weights(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Writes config.json, model.safetensors and one JSON file for each entry of extra (file name to content).

    All files are written under temporary names and then moved into place, config.json last. Other files in the folder
    stay. config.json begins with format_version.

    Raises:
        WeightsError: a file has the folder's name.
        UnsafeWeightsError: a name in extra leads out of the folder.
        ValueError: a number in config or extra is NaN or infinite.
    """
    from safetensors.torch import save
    from torch import contiguous_format as contiguous

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"{folder} is a file: expected the name of a folder to write the weights to")
    contents = {CONFIG: _json({"format_version": FORMAT_VERSION, **config})}
    contents |= {inside(folder, name).name: _json(content) for name, content in (extra or {}).items()}
    # Clones, since safetensors refuses tensors that share memory.
    tensors = {name: tensor.detach().cpu().clone(memory_format=contiguous) for name, tensor in state.items()}
    contents[WEIGHTS] = save(tensors, metadata={"format": "pt"})
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:  # left in reverse: config.json is replaced last
        for name, content in contents.items():
            stack.enter_context(replacing(folder / name)).write_bytes(content)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON object, indented, in UTF-8. A reader sees the old file or the new one, never a half.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    data = _json(content)  # before anything is written
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`. At the end the file there replaces `path`; after an error it is deleted.

    The mode of a file that is replaced is kept. Of a symbolic link the target is replaced.
    """
    path = Path(os.path.realpath(path))
    _clear(path.parent)
    temporary = path.with_name(f".csvae-{uuid4().hex}.tmp")
    try:
        yield temporary
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _clear(folder: Path) -> None:
    """Deletes, once a process, temporaries that a killed process left in a folder more than an hour ago."""
    for left_over in folder.glob(".csvae-*.tmp"):
        with suppress(OSError):
            if time.time() - left_over.stat().st_mtime > 3600:
                left_over.unlink()


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _local(name: str) -> Path | None:
    """The folder or packaged model of a name; None where it may be a Hub repo."""
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
