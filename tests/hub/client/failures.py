"""huggingface_hub's own client against the server of hub_server.py: each failure by its name."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from hub_setting import ALICE, SERVER, load, same

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
)

# The Hub's client sends a large file by an argument that its own HTTP library advises against.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_no_such_repo():
    with pytest.raises(HubRepoNotFoundError) as caught:
        load("alice/nowhere")
    assert str(caught.value) == (
        "'alice/nowhere' is no folder and no packaged model, so the Hub was asked: no Hub repo alice/nowhere on"
        f" {SERVER.url}, or it is private: looked for its list of files. Check the name; for a private repo,"
        " `hf auth login` or token=…"
    )
    with pytest.raises(HubRepoNotFoundError, match="^no Hub repo alice/nowhere on"):
        load("hf-hub:alice/nowhere")


def test_a_name_that_the_hub_forbids():
    with pytest.raises(HubRepoNotFoundError, match=r"alice/no--where can't be a Hub repo: Cannot have -- or \.\."):
        load("alice/no--where")


def test_a_gated_repo(repo):
    SERVER.repos[repo].gated = True
    with pytest.raises(HubGatedRepoError) as caught:
        load(f"hf-hub:{repo}", token="hf_bob")
    assert str(caught.value) == (
        f"the Hub repo {repo} is gated, and access was not granted. Looked for config.json. Ask for access on"
        f" {SERVER.url}/{repo}, then `hf auth login` or token=…"
    )
    load(repo, token=ALICE)


def test_no_such_revision(repo):
    SERVER.repos[repo].tags["v1.0"] = SERVER.repos[repo].branches["main"]
    with pytest.raises(HubRevisionNotFoundError) as caught:
        load(f"hf-hub:{repo}", revision="v1.O")
    assert str(caught.value) == (
        f"the Hub repo {repo} has no such revision: looked for revision 'v1.O'. did you mean 'v1.0'? It has: main,"
        " v1.0. Give a branch, a tag or a commit"
    )


@pytest.mark.parametrize("name", ["config.json", "preprocessor.json", "model.safetensors"])
def test_a_missing_file(repo, name):
    content = SERVER.repos[repo].commits[SERVER.repos[repo].branches["main"]]
    del content[name]
    with pytest.raises(MissingWeightsError) as caught:
        load(repo)
    assert str(caught.value).startswith(f"no {name} in the Hub repo {repo}: expected the files that push_to_hub writes")
    assert "modeling.py" in str(caught.value)


@pytest.mark.parametrize("token", ["hf_wrong", True])
def test_a_wrong_token_and_none_where_one_is_asked_for(repo, model, token):
    for act in (lambda: load(repo, token=token), lambda: model.push_to_hub(repo, token=token)):
        with pytest.raises(HubTokenError, match=rf"{repo}.*`hf auth login` or token=…$"):
            act()


def test_truncated_weights_in_a_repo_name_repo_commit_and_remedy(repo):
    content = SERVER.repos[repo].commits[SERVER.repos[repo].branches["main"]]
    content["model.safetensors"] = (content["model.safetensors"][0][:-5], True)
    with pytest.raises(CorruptWeightsError) as caught:
        load(repo)
    commit = SERVER.repos[repo].branches["main"][:8]
    assert f"model.safetensors (Hub repo {repo}, commit {commit}) is truncated or corrupt: " in str(caught.value)
    assert str(caught.value).endswith("Load it again with force_download=True")


def test_a_download_that_breaks_off_goes_on_where_it_was(repo, model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept of it, in whole chunks
    with SERVER.troubled("GET /cdn/", "cut", 5000, times=1), suppress(HubConnectionError):
        load(repo)  # the first clients of 1.x raise here and go on at the next load; later ones go on by themselves
    assert same(load(repo), model)
    assert [headers.get("Range") for headers in SERVER.requests("GET /cdn/")[-2:]] == [None, "bytes=5000-"]


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [("short", 10, "came truncated (file should be of size"), ("flip", 9000, "came corrupt: expected sha256")],
)
def test_a_download_that_ends_early_or_is_changed_on_the_way_is_refused_and_leaves_no_trace(
    repo, model, tmp_path, kind, value, words
):
    with SERVER.troubled("GET /cdn/", kind, value), pytest.raises(CorruptWeightsError) as caught:
        load(repo, cache_dir=tmp_path)
    assert f"model.safetensors of the Hub repo {repo} {words}" in str(caught.value)
    assert same(load(repo, cache_dir=tmp_path), model)


@pytest.mark.parametrize(
    ("pattern", "kind", "value", "words"),
    [
        ("GET /api/models/", "slow", 2, "Timeout"),
        ("GET /api/models/", "cut", 0, "Protocol"),
        ("GET /api/models/", "status", 503, "status 503"),
        ("GET /cdn/", "cut", 0, "Protocol"),
        ("HEAD .*json", "status", 429, "status 429"),
    ],
)
def test_a_hub_that_is_slow_or_breaks_off(repo, monkeypatch, pattern, kind, value, words):
    if kind == "slow":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
    with SERVER.troubled(pattern, kind, value), pytest.raises(HubConnectionError) as caught:
        load(repo)
    text = str(caught.value)
    assert f"{SERVER.url} can't be reached, or broke off, for the Hub repo {repo} (" in text
    assert words in text.partition("(")[2].partition("looked for")[0]
    assert "Check the network and try again" in text


@pytest.mark.parametrize(
    ("pattern", "kind", "value"),
    [
        *(("GET /api/models/", "status", status) for status in (429, 500, 502, 503, 504)),
        ("GET /api/models/", "cut", 0),
        ("HEAD .*json", "status", 503),
        ("GET .*/resolve/", "cut", 0),
        ("GET .*/resolve/", "status", 503),
        ("GET /cdn/", "status", 502),
        ("GET /cdn/", "status", 429),
    ],
)
def test_a_hub_that_is_busy_or_breaks_off_is_asked_again(repo, model, pauses, tmp_path, pattern, kind, value):
    with SERVER.troubled(pattern, kind, value, times=2):
        assert same(load(repo, cache_dir=tmp_path), model)
    assert pauses
    assert pauses == sorted(pauses)


@pytest.mark.parametrize(("status", "header"), [(503, ("Retry-After", 17)), (429, ("RateLimit", '"api";r=0;t=17'))])
def test_the_pause_that_the_hub_asks_for_is_kept(repo, model, pauses, status, header):
    with SERVER.troubled("GET /api/models/", "status", status, 2), SERVER.troubled("GET /api/", "header", header, 2):
        assert same(load(repo), model)
    assert pauses == [17, 17]


def test_a_pause_longer_than_a_minute_is_said_and_not_kept(repo, pauses):
    busy = SERVER.troubled("GET /api/", "header", ("Retry-After", 3600))
    words = r"\(status 429, which asks to wait 3600 s\)"
    with busy, SERVER.troubled("GET /api/", "status", 429), pytest.raises(HubConnectionError, match=words):
        load(repo)
    assert pauses == []


@pytest.mark.parametrize(
    "pattern", ["POST /api/repos/create", "POST .*/preupload/", "PUT /lfs/", "POST .*/commit/", "POST .*/tag/"]
)
def test_a_push_goes_on_where_the_hub_was_busy(model, pauses, pattern):
    with torch.no_grad():
        next(model.parameters()).add_(torch.rand(()))  # numbers that the Hub has not yet
    name = f"alice/busy-{pattern.strip('/').rpartition('/')[2]}"
    with SERVER.troubled(pattern, "status", 503, times=2):
        model.push_to_hub(name, token=ALICE, tag="v1")
    assert same(load(name, revision="v1"), model)
    assert len(SERVER.repos[name].messages) == 2
    assert len(pauses) == 2


def test_a_pull_request_is_not_sent_twice(model, repo):
    with torch.no_grad():
        next(model.parameters()).add_(3)
    with SERVER.troubled("POST .*/commit/", "cut", 0, times=1), pytest.raises(HubConnectionError, match="the commit"):
        model.push_to_hub(repo, token="hf_bob", create_pr=True)
    assert [branch for branch in SERVER.repos[repo].branches if "pr" in branch] == ["refs/pr/1"]


@pytest.mark.parametrize(
    "etag", ["../../../../evil1", "../../evil2", "../refs/main", "../../models--bob--x/blobs/1", "{}/evil"]
)
def test_an_endpoint_that_writes_outside_of_the_cache_is_named_and_nothing_is_used(repo, tmp_path, etag):
    cache = tmp_path / "some" / "folder" / "cache"
    header = ("ETag", f'"{etag.format(tmp_path)}"')
    with SERVER.troubled("HEAD .*config.json", "header", header):
        with pytest.raises(
            UnsafeWeightsError, match=r"^config\.json of the Hub repo .* was put at .* hostile or broken"
        ):
            load(f"hf-hub:{repo}", cache_dir=cache)
        with pytest.raises(
            UnsafeWeightsError, match=r"^config\.json of the Hub repo .* was put at .* hostile or broken"
        ):
            load(f"hf-hub:{repo}", cache_dir=cache)


def test_a_commit_that_is_a_path_is_refused(repo, tmp_path):
    hostile = SERVER.troubled("HEAD .*config.json", "header", ("X-Repo-Commit", "../../../evil"))
    with hostile, pytest.raises(UnsafeWeightsError, match=r"sends config\.json of .* out of the cache"):
        load(repo, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "evil").exists()


def test_uploads_that_break_off_leave_the_repo_as_it_was(model, repo):
    with torch.no_grad():
        next(model.parameters()).add_(2)
    for pattern in ("PUT /lfs/", "POST .*/commit/"):
        with SERVER.troubled(pattern, "status", 503), pytest.raises(HubConnectionError, match="looked for the commit"):
            model.push_to_hub(repo, token=ALICE)
    assert SERVER.repos[repo].messages[-1] == "by hand"


def test_what_is_no_hub_is_told_from_one(repo):
    with SERVER.troubled("GET /api/models/", "page"), pytest.raises(HubError, match=r"doesn't answer as a Hub does"):
        load(repo)


def test_without_a_hub_the_cache_serves_and_an_empty_one_is_named(repo, model):
    load(repo)
    with SERVER.stopped():
        assert same(load(repo), model)
        assert same(load(repo, local_files_only=True), model)
        with pytest.raises(HubConnectionError, match=r"alice/never-loaded \(ConnectError.*Check the network"):
            load("alice/never-loaded")
        with pytest.raises(HubConnectionError, match="ConnectError"):
            load(repo, force_download=True)
        with pytest.raises(
            HubOfflineError, match="local_files_only=True, and the Hub repo alice/x is not in the cache z: "
        ):
            load("alice/x", local_files_only=True, cache_dir="z")
        with pytest.raises(ValueError, match="^force_download: expected False, since local_files_only=True, got True"):
            load(repo, local_files_only=True, force_download=True)
