"""Uploads a weights folder to a Hub repo in one commit."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub import errors as hf

from csvae_hub.errors import HubError
from csvae_hub.hub.explain import asked, client
from csvae_hub.hub.folder import CARD, COMPANIONS, PICTURE, REQUIRED
from csvae_hub.hub.safe_files import inside, read_bytes

_log = logging.getLogger(__name__)


def upload(
    folder: Path,
    repo_id: str,
    *,
    commit_message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    overwrite_card: bool = False,
    tag: str | None = None,
) -> CommitInfo:
    """Sends the files of a weights folder to a Hub repo in one commit; makes the repo if it is missing.

    Keeps a card that was written or edited in the repo. Replaces a card that `upload` wrote.

    Arguments and errors are those of `push_to_hub`.
    """
    if tag is not None and create_pr:
        raise ValueError("tag: expected None with create_pr=True, since a pull request has no commit to tag yet")
    files = {name: inside(folder, name) for name in (*REQUIRED, *COMPANIONS, PICTURE)}
    files = {name: path for name, path in files.items() if path.is_file()}
    api = client(token)

    def prepare() -> str | None:
        """Makes what is missing and checks the rest; gives the card in the repo where it may be one to keep."""
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private is not None and api.model_info(repo_id).private != private:
            raise HubError(
                f"the Hub repo {repo_id} exists and is {'public' if private else 'private'}: expected a"
                f" {'private' if private else 'public'} one. Change that in its settings, or leave `private` out"
            )
        if tag is not None and tag in {ref.name for ref in api.list_repo_refs(repo_id).tags}:
            raise HubError(f"the Hub repo {repo_id} has a tag {tag!r} already: give another name")
        if branch is not None and not create_pr:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        return _card_in_repo(api, repo_id, branch) if CARD in files and not overwrite_card else None

    theirs = asked(repo_id, "a repo to write to", prepare)
    operations = [CommitOperationAdd(name, str(path)) for name, path in files.items() if name != CARD]
    if theirs is not None and not is_stamped(theirs):
        _log.warning("kept the card of %s, which was written by hand; overwrite_card=True replaces it", repo_id)
    elif CARD in files:
        card = stamp(read_bytes(files[CARD]).decode("utf-8", errors="replace"))
        operations.append(CommitOperationAdd(CARD, card.encode()))

    def send() -> CommitInfo:
        return api.create_commit(
            repo_id, operations, commit_message=commit_message, revision=branch, create_pr=create_pr
        )

    commit = asked(repo_id, "the commit", send, repeatable=not create_pr)
    if tag is not None:
        asked(repo_id, "the tag", lambda: api.create_tag(repo_id, tag=tag, revision=commit.oid), repeatable=False)
    return commit


_STAMP = re.compile(r"\n?<!-- csvae-hub ([0-9a-f]{16}) -->\n?\Z")


def stamp(card: str) -> str:
    """Adds to a card a last line with a hash of the rest, by which an edit shows.

    >>> is_stamped(stamp("# A card")), is_stamped(stamp("# A card").replace("A", "My")), is_stamped("# A card")
    (True, False, False)
    """
    text = _STAMP.sub("", card).rstrip("\n") + "\n"
    return f"{text}\n<!-- csvae-hub {_hash(text)} -->\n"


def is_stamped(card: str) -> bool:
    """True if a card is unchanged since `stamp` gave it."""
    found = _STAMP.search(card)
    return found is not None and found[1] == _hash(card[: found.start()])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _card_in_repo(api: HfApi, repo_id: str, branch: str | None) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = api.hf_hub_download(repo_id, CARD, revision=branch, cache_dir=folder)
        except hf.EntryNotFoundError as error:
            if isinstance(error, hf.LocalEntryNotFoundError):
                raise
            return None
        return read_bytes(Path(path)).decode("utf-8", errors="replace")
