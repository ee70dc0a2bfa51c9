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
            cache may lead anywhere in that cache.
    """
    folder = Path(folder)
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise UnsafeWeightsError(f"{name!r}: expected the plain name of a file, without folders")
    path = folder / name
    target = os.path.realpath(path)
    if path.is_symlink() and not Path(target).is_relative_to(os.path.realpath(_root(folder.absolute()))):
        raise UnsafeWeightsError(
            f"{path} is a symbolic link to {target}, out of its folder: expected a file. Copy it into the folder if"
            " you trust it"
        )
    return path


def of_repo(path: Path) -> str:
    """Names the Hub repo of a file in the Hub's cache; "" for any other file."""
    repo, commit = _repo(path.parent.absolute())
    return f" (Hub repo {repo}, commit {commit[:8]})" if repo else ""


def again(path: Path) -> str:
    """Says how to repair a corrupt file."""
    return "Load it again with force_download=True" if of_repo(path) else "Copy or download it again"


def read_json(path: str | os.PathLike[str], limit: int = MAX_JSON) -> dict[str, Any]:
    """Reads a JSON file of at most `limit` bytes that holds one object.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is too large, not UTF-8 JSON, or not an object. NaN, infinite numbers, repeated keys and
            deep nesting are refused too.
    """
    path = existing(path)
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CorruptWeightsError(
            f"{path}{of_repo(path)} has {path.stat().st_size} bytes: expected JSON of at most {limit}"
        )
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


def _root(folder: Path) -> Path:
    """The folder that links may not leave: the whole cache for a snapshot, else the folder itself."""
    return folder.parents[2] if _repo(folder)[0] else folder


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
