"""Asks the Hub, again where it is busy, and turns the errors of huggingface_hub into this library's."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeVar

from huggingface_hub import HfApi, constants
from huggingface_hub import errors as hf
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from csvae_hub.errors import (
    CorruptWeightsError,
    HubConnectionError,
    HubError,
    HubGatedRepoError,
    HubOfflineError,
    HubRepoNotFoundError,
    HubRevisionNotFoundError,
    HubTokenError,
    MissingWeightsError,
    UnsafeWeightsError,
    WeightsError,
    did_you_mean,
)
from csvae_hub.hub.folder import REQUIRED

LOGIN = "`hf auth login` or token=…"
BUSY = (408, 425, 429, 500, 502, 503, 504)
REFUSED = (429, 503)
"""Of these, the ones that say that nothing was done."""
RESET = ("ReadError", "WriteError", "RemoteProtocolError", "ConnectionResetError", "BrokenPipeError")
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before a request is sent again, where the Hub asks for no others."""
PATIENCE = 60.0
"""Seconds of pauses at most, in all; a Hub that asks for longer ones is not asked again."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


def client(token: str | bool | None) -> HfApi:
    """The client of huggingface_hub, with this library's name for the Hub's statistics."""
    from csvae_hub import __version__

    return HfApi(token=token, library_name="csvae-hub", library_version=__version__)


def revisions(api: HfApi, repo_id: str, revision: str | None) -> str:
    """Lists the branches and tags of a repo that lacks this revision."""
    try:
        refs = api.list_repo_refs(repo_id)
    except (HTTPError, OSError):
        return ""
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return f"{did_you_mean(revision or '', names)} It has: {', '.join(names[:8])}."


def offline(name: str, why: str, cache_dir: str | None = None) -> HubOfflineError:
    """The error for a repo that is not in the cache while the network is switched off."""
    return HubOfflineError(
        f"{why}, and the Hub repo {name} is not in the cache {cache_dir or constants.HF_HUB_CACHE}: looked for"
        f" {', '.join(REQUIRED)}. Load it once with a network (unset HF_HUB_OFFLINE, local_files_only=False), or give"
        " the folder of a copy"
    )


def asked(
    name: str, wanted: str, request: Callable[[], T], revisions: Callable[[], str] = str, repeatable: bool = True
) -> T:
    """The answer to a request, with this library's errors. Sends it again where the Hub is busy or breaks off.

    A request that is not `repeatable` is sent again only where the Hub says that it did nothing.
    """
    patience = PATIENCE
    for usual in (*PAUSES, None):
        try:
            with _explained(name, wanted, revisions):
                return request()
        except HubConnectionError as error:
            pause = None if usual is None else _pause(error, usual, repeatable)
            if pause is None or pause > patience:
                raise
            _log.warning("%s. Trying again in %.0f s", str(error).partition(": looked for")[0], pause)
        time.sleep(pause)
        patience -= pause
    raise AssertionError


def _pause(error: HubConnectionError, usual: float, repeatable: bool) -> float | None:
    """Seconds to wait before a request that failed is sent again; None where that is no use."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            answer = cause.response
            again = answer.status_code in (BUSY if repeatable else REFUSED)
            return max(usual, pause_asked_for(answer.headers)) if again else None
        if type(cause).__name__ in RESET:
            return usual if repeatable else None
        cause = cause.__cause__
    return None


def pause_asked_for(headers: Mapping[str, str]) -> float:
    """Seconds that a busy Hub asks to wait, by `Retry-After` or by the Hub's own `RateLimit`; 0 where it doesn't say.

    >>> pause_asked_for({"retry-after": "7"}), pause_asked_for({"ratelimit": '"api";r=0;t=55'}), pause_asked_for({})
    (7.0, 55.0, 0.0)
    """
    said = headers.get("retry-after", "").strip()
    if limit := re.fullmatch(r"[0-9]+", said) or re.search(r"\br=0;\s*t=([0-9]+)", headers.get("ratelimit", "")):
        return float(limit[limit.lastindex or 0])
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(timezone.utc)).total_seconds())
    return 0.0


@contextmanager
def _explained(name: str, wanted: str, revisions: Callable[[], str]) -> Iterator[None]:
    """Replaces an error of huggingface_hub by one of this library."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        ours = _translated(error, name, wanted, revisions)
        if ours is None:
            raise
        raise ours from error


def _translated(error: BaseException, name: str, wanted: str, revisions: Callable[[], str]) -> WeightsError | None:
    """This library's error for one of huggingface_hub; None for any other error, such as a full disk."""
    said = " ".join(str(error).split())[:300]
    match error:
        case hf.GatedRepoError():
            return HubGatedRepoError(
                f"the Hub repo {name} is gated, and access was not granted. Looked for {wanted}. Ask for access on"
                f" {constants.ENDPOINT}/{name.partition(' ')[0]}, then {LOGIN}"
            )
        case hf.RepositoryNotFoundError():
            return HubRepoNotFoundError(
                f"no Hub repo {name} on {constants.ENDPOINT}, or it is private: looked for {wanted}. Check the name;"
                f" for a private repo, {LOGIN}"
            )
        case hf.HFValidationError():
            return HubRepoNotFoundError(f"{name} can't be a Hub repo: {said}")
        case hf.RevisionNotFoundError():
            return HubRevisionNotFoundError(
                f"the Hub repo {name.partition(' ')[0]} has no such revision: looked for {name.partition(' at ')[2]}."
                f"{revisions()} Give a branch, a tag or a commit"
            )
        case hf.LocalTokenNotFoundError():
            return HubTokenError(f"no token for the Hub repo {name}: token=True needs a stored one. {LOGIN}")
        case hf.LocalEntryNotFoundError() | hf.OfflineModeIsEnabled():
            if isinstance(error.__cause__, HTTPError | hf.FileMetadataError):
                return _translated(error.__cause__, name, wanted, revisions)
            return offline(name, "HF_HUB_OFFLINE is set")
        case hf.EntryNotFoundError():
            return MissingWeightsError(
                f"no {wanted} in the Hub repo {name}: expected the files that push_to_hub writes"
            )
        case HfHubHTTPError():
            return _by_status(error, name, wanted, said)
        case HTTPError() | ConnectionError() | TimeoutError():
            return _lost(name, wanted, f"{type(error).__name__}: {said}")
        case OSError(errno=None) if "Consistency check failed" in said:
            return CorruptWeightsError(
                f"{wanted} of the Hub repo {name} came truncated ({said.partition(': ')[2][:120]}). Load it again with"
                " force_download=True"
            )
        case ValueError() if "Invalid pointer path" in said:
            return UnsafeWeightsError(f"{constants.ENDPOINT} sends {wanted} of {name} out of the cache: don't use it")
        case hf.FileMetadataError() | json.JSONDecodeError():
            return no_hub(said)
        case RuntimeError() | ValueError() if isinstance(error.__cause__, HTTPError | OSError):
            return _translated(error.__cause__, name, wanted, revisions)
        case _:
            return None


def no_hub(said: str) -> HubError:
    """The error for a server that answers in another way than the Hub."""
    return HubError(f"{constants.ENDPOINT} doesn't answer as a Hub does ({said}): is HF_ENDPOINT or a proxy wrong?")


def _by_status(error: HfHubHTTPError, name: str, wanted: str, said: str) -> WeightsError:
    status = error.response.status_code
    if status in (401, 403):
        return HubTokenError(
            f"the Hub refuses the token for {name} (status {status}): looked for {wanted}. Expected a valid token with"
            f" the right to this; {LOGIN}"
        )
    if status in BUSY:
        pause = pause_asked_for(error.response.headers)
        return _lost(name, wanted, f"status {status}{f', which asks to wait {pause:.0f} s' if pause else ''}")
    return HubError(f"the Hub refuses {wanted} of {name} (status {status}): {error.server_message or said}")


def _lost(name: str, wanted: str, reason: str) -> HubConnectionError:
    return HubConnectionError(
        f"{constants.ENDPOINT} can't be reached, or broke off, for the Hub repo {name} ({reason}): looked for {wanted}."
        " Check the network and try again"
    )
