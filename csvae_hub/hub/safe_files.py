"""Opens files from strangers: sizes are checked before memory is taken, and no link leads out of the folder."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from csvae_hub.errors import CorruptWeightsError, MissingWeightsError, UnsafeWeightsError

MAX_JSON = 2 << 20
"""Upper bound of a JSON file, in bytes."""

_caches: set[str] = set()
"""The caches of the Hub that this process downloaded to."""


def existing(path: str | os.PathLike[str]) -> Path:
    """Gives the path of an existing file.

    Raises:
        MissingWeightsError: there is no such file; the text lists the folder's files.
    """
    path = Path(path)
    if path.is_file():
        return path
    there = sorted(file.name for file in path.parent.glob("*")) if path.parent.is_dir() else []
    raise MissingWeightsError(
        f"no {path.name} in {path.parent}{of_repo(path)}: expected a weights folder as save_pretrained writes it,"
        f" got {', '.join(there[:8]) or 'nothing'}{', …' if there[8:] else ''}"
    )


def inside(folder: str | os.PathLike[str], name: str) -> Path:
    """Gives the path of a file in a folder; the file need not exist.

    Raises:
        UnsafeWeightsError: the name, or a symbolic link of that name, leads out of the folder. A link in the Hub's
            cache may lead to the blobs of its repo and of that cache.
    """
    folder = Path(folder)
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise UnsafeWeightsError(f"{name!r}: expected the plain name of a file, without folders")
    path = folder / name
    target = os.path.realpath(path)
    if path.is_symlink() and not _is_in(target, *_roots(folder.absolute())):
        raise UnsafeWeightsError(
            f"{path} is a symbolic link to {target}, out of its folder: expected a file. Copy it into the folder if"
            " you trust it; of a cache of the Hub, name the cache in HF_HUB_CACHE or as cache_dir"
        )
    return path


def remembered(cache: str | os.PathLike[str]) -> Path:
    """Gives the path of a cache of the Hub, whose links `inside` follows from now on."""
    _caches.add(os.path.realpath(cache))
    return Path(cache).absolute()


def check_place(path: Path, cache: Path, repo_id: str) -> None:
    """Checks that a downloaded file is in its repo's place in the cache; removes a link that leads elsewhere.

    Raises:
        UnsafeWeightsError: it is elsewhere. huggingface_hub builds paths from the headers of the answer.
    """
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    target, snapshot = os.path.realpath(path), Path(os.path.realpath(path.parent))
    in_repo = _repo(snapshot)[0] and snapshot.is_relative_to(os.path.realpath(repo))
    if in_repo and _is_in(target, *(_blobs(repo) if path.is_symlink() else [snapshot])):
        return
    if path.is_symlink():
        path.unlink()
    raise UnsafeWeightsError(
        f"{path.name} of the Hub repo {repo_id} was put at {target}: expected a place in {repo}. The endpoint is"
        " hostile or broken: don't use it, and look at what it wrote there"
    )


def of_repo(path: Path) -> str:
    """Names the Hub repo of a file in the Hub's cache; "" for any other file."""
    repo, commit = _repo(path.parent.absolute())
    return f" (Hub repo {repo}, commit {commit[:8]})" if repo else ""


def again(path: Path) -> str:
    """Says how to repair a corrupt file."""
    return "Load it again with force_download=True" if of_repo(path) else "Copy or download it again"


def read_bytes(path: Path, limit: int = MAX_JSON) -> bytes:
    """Reads an existing file of at most `limit` bytes; CorruptWeightsError for a larger one."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        kind = "JSON" if path.suffix == ".json" else "a file"
        raise CorruptWeightsError(
            f"{path}{of_repo(path)} has {path.stat().st_size} bytes: expected {kind} of at most {limit}"
        )
    return data


def read_json(path: str | os.PathLike[str], limit: int = MAX_JSON) -> dict[str, Any]:
    """Reads a JSON file of at most `limit` bytes that holds one object.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is too large, not UTF-8 JSON, or not an object. NaN, infinite numbers, repeated keys and
            deep nesting are refused too.
    """
    path = existing(path)
    data = read_bytes(path, limit)
    try:
        text = data.decode("utf-8")
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_float)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode("utf-8")  # refuses half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise CorruptWeightsError(f"{path}{of_repo(path)} is no JSON: {error}. {again(path)}") from error
    if not isinstance(content, dict):
        raise CorruptWeightsError(f"{path}: expected a JSON object {{…}}, got {type(content).__name__}")
    return content


def _repo(folder: Path) -> tuple[str, str]:
    """Repo id and commit of a snapshot folder of the Hub's cache: …/models--user--name/snapshots/COMMIT."""
    parts = folder.parts[-3:]
    found = re.fullmatch(r"models--(.+)/snapshots/([0-9a-f]{40})", "/".join(parts))
    return (found[1].replace("--", "/"), found[2]) if found else ("", "")


def _roots(folder: Path) -> tuple[Path, ...]:
    """The folders that links may not leave: for a snapshot in a cache of the Hub its blobs, else the folder itself."""
    cache = os.path.realpath(folder.parents[2]) if _repo(folder)[0] else ""
    return _blobs(folder.parents[1]) if cache and (cache in _caches or cache == _default_cache()) else (folder,)


def _blobs(repo: Path) -> tuple[Path, ...]:
    """Where a cache keeps the files of a repo, and those that repos share."""
    return repo / "blobs", repo.parent / "blobs"


def _default_cache() -> str:
    from huggingface_hub import constants

    return os.path.realpath(constants.HF_HUB_CACHE)


def _is_in(target: str, *roots: Path) -> bool:
    return any(Path(target).is_relative_to(os.path.realpath(root)) for root in roots)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key[:40]!r} is given twice")
        content[key] = value
    return content


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value
