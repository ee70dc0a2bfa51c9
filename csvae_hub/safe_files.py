"""Files from strangers: their size is bounded before memory is taken, and none leads out of its folder."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from csvae_hub.errors import CorruptWeightsError, MissingWeightsError, UnsafeWeightsError

MAX_JSON = 8 << 20
"""Upper bound of a JSON file, in bytes."""


def existing(path: str | os.PathLike[str]) -> Path:
    """Gives the path of a file that is there.

    Raises:
        MissingWeightsError: there is no such file; what the folder holds is named.
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
    """Gives the path of a file of a folder, which need not exist.

    Raises:
        UnsafeWeightsError: the name, or a symbolic link of that name, leads out of the folder. Links of the Hub's
            cache may lead to anywhere in that cache.
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
    """Words for the Hub repo that a file in the Hub's cache belongs to; nothing for another file."""
    repo, commit = _repo(path.parent.absolute())
    return f" (Hub repo {repo}, commit {commit[:8]})" if repo else ""


def again(path: Path) -> str:
    """The remedy for a file that is not as it was written."""
    return "Load it again with force_download=True" if of_repo(path) else "Copy or download it again"


def read_json(path: str | os.PathLike[str], limit: int = MAX_JSON) -> dict[str, Any]:
    """Gives the object of a JSON file of at most `limit` bytes.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptWeightsError: it is too large, not UTF-8 JSON (NaN, infinite numbers, keys given twice and deep nesting
            are refused as well), or not an object.
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
            json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a character can't be written again
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
    """Where links in a folder may lead: the folder, or the whole cache for a snapshot, whose files are links."""
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
