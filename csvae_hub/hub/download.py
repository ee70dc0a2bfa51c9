"""Downloads a Hub repo to a folder in the Hub's cache."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, constants, try_to_load_from_cache
from huggingface_hub import errors as hf
from huggingface_hub.utils.sha import sha_fileobj

from csvae_hub.config import shown
from csvae_hub.errors import CorruptWeightsError, HubConnectionError, HubError, HubOfflineError, MissingWeightsError
from csvae_hub.hub.explain import asked, client, no_hub, offline, revisions
from csvae_hub.hub.folder import COMPANIONS, REQUIRED
from csvae_hub.hub.safe_files import check_place, remembered

_log = logging.getLogger(__name__)


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    companions: Sequence[str] = COMPANIONS,
) -> Path:
    """Gives the folder in the Hub's cache that holds a repo's files, all of one commit; downloads those it lacks.

    Takes config.json, preprocessor.json and model.safetensors, and those of `companions` that the repo has. Uses the
    cache where the Hub can't be reached. Resumes a download that broke off.

    Raises:
        HubError: the repo can't be read, and the files are not in the cache; the subclass gives the reason.
        MissingWeightsError: the repo lacks a file.
        CorruptWeightsError: a downloaded file is not the repo's.
        UnsafeWeightsError: a downloaded file lies outside of the repo's place in the cache.
        ValueError: `force_download` while the network is switched off.
    """
    name = f"{repo_id}{f' at revision {revision!r}' if revision else ''}"
    cache_dir = None if cache_dir is None else str(cache_dir)
    cache = remembered(cache_dir or constants.HF_HUB_CACHE)
    api = client(token)
    if local_files_only or constants.HF_HUB_OFFLINE:
        why = "local_files_only=True" if local_files_only else "HF_HUB_OFFLINE is set"
        if force_download:
            raise ValueError(f"force_download: expected False, since {why}, got True. Leave out one of the two")
        return _from_cache(api, repo_id, revision, cache_dir, offline(name, why, cache_dir))
    try:
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        there, sha = asked(
            name,
            "its list of files",
            lambda: _listed(partial(api.model_info, repo_id, revision=revision, timeout=timeout)),
            lambda: revisions(api, repo_id, revision),
        )
    except (HubConnectionError, HubOfflineError) as error:
        if force_download:
            raise
        folder = _from_cache(api, repo_id, revision, cache_dir, error)
        _log.warning("%s; the copy in the cache is used", error)
        return folder
    missing = [file for file in REQUIRED if file not in there]
    if missing:
        raise MissingWeightsError(
            f"no {missing[0]} in the Hub repo {name}: expected the files that push_to_hub writes, got"
            f" {', '.join(sorted(there)[:8]) or 'nothing'}{', …' if len(there) > 8 else ''}. Is it a csvae-hub model?"
        )
    # The first file by the revision's name, so that the cache learns the commit; the others by that commit.
    commit = revision
    path = Path()
    for file in (*REQUIRED, *(file for file in companions if file in there)):
        known = try_to_load_from_cache(repo_id, file, cache_dir=cache_dir, revision=commit if path.name else sha)
        fetch = partial(
            api.hf_hub_download, repo_id, file, revision=commit, cache_dir=cache_dir, force_download=force_download
        )
        path = Path(asked(name, file, fetch, lambda: revisions(api, repo_id, revision)))
        check_place(path, cache, repo_id)
        if force_download or not isinstance(known, str):
            _check_blob(path, name)
        commit = path.parent.name
    return path.parent


def _listed(request: Callable[[], ModelInfo]) -> tuple[set[str], str]:
    """The names of a repo's files, and its commit."""
    try:
        info = request()
        files, sha = {file.rfilename for file in info.siblings or []}, info.sha
    except (KeyError, TypeError, AttributeError) as error:
        raise no_hub(f"{type(error).__name__}: {error}") from error
    if not isinstance(sha, str) or not re.fullmatch("[0-9a-f]{40}", sha):
        raise no_hub(f"the commit {shown(sha)}")
    return files, sha


def _from_cache(api: HfApi, repo_id: str, revision: str | None, cache_dir: str | None, otherwise: HubError) -> Path:
    """The complete snapshot in the cache; raises the error given where there is none."""
    try:
        first = api.hf_hub_download(repo_id, REQUIRED[0], revision=revision, cache_dir=cache_dir, local_files_only=True)
    except hf.LocalEntryNotFoundError:
        raise otherwise from None
    folder = Path(first).parent
    if not all((folder / file).is_file() for file in REQUIRED):
        raise otherwise
    return folder


def _check_blob(path: Path, name: str) -> None:
    """Compares a large file with its sha256, which is its name in the cache, and deletes it if they differ.

    The Hub's client compares sizes only. Windows without links has no such names, so nothing is compared there.
    """
    if not path.is_symlink():
        return
    blob = path.parent / path.readlink()
    if not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return
    with blob.open("rb") as file:
        digest = sha_fileobj(file).hex()
    if digest != blob.name:
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        raise CorruptWeightsError(
            f"{path.name} of the Hub repo {name} came corrupt: expected sha256 {blob.name[:12]}…, got {digest[:12]}…."
            " It was removed from the cache; load it again"
        )
