"""huggingface_hub's own client against the server of hub_server.py: there and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hub_setting import ALICE, REQUIRED, SERVER, files, load, same

from csvae_hub import hub
from csvae_hub.cli import main
from csvae_hub.errors import HubError, HubRepoNotFoundError, HubTokenError, UnsafeWeightsError
from csvae_hub.hub.upload import is_stamped

# The Hub's client sends a large file by an argument that its own HTTP library advises against.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# -- there and back -----------------------------------------------------------------------------------------------


def test_what_is_pushed_is_pulled_to_the_bit(model, folder):
    commit = model.push_to_hub("alice/there-and-back", token=ALICE, tag="v1", commit_message="Version 1")
    repo = SERVER.repos["alice/there-and-back"]
    assert repo.messages == ["initial commit", "Version 1"]
    assert repo.tags == {"v1": commit.oid}
    sent = files("alice/there-and-back")
    here = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sent.keys() == {*here, "README.md", ".gitattributes"}
    for name in here.keys() - {"config.json"}:
        assert sent[name] == here[name]
    assert is_stamped(sent["README.md"].decode())
    pulled = load("alice/there-and-back", revision="v1")
    assert same(pulled, model)
    assert {k: v.dtype for k, v in pulled.state_dict().items()} == {k: v.dtype for k, v in model.state_dict().items()}


def test_only_named_files_are_downloaded_and_the_token_stays_on_the_hub(repo):
    before = len(SERVER.requests("GET /cdn/"))
    folder = hub.resolve(repo, token=ALICE)
    wanted = {"config.json", "model.safetensors", "preprocessor.json", "training.json", "evaluation.json"}
    assert {path.name for path in folder.iterdir()} == wanted
    downloads = SERVER.requests("GET /cdn/")[before:]
    assert [headers.get("Authorization") for headers in downloads] == [None]
    asked = SERVER.requests(f"GET /api/models/{repo}")[-1]
    assert asked["Authorization"] == f"Bearer {ALICE}"
    assert "csvae-hub" in asked["User-Agent"]


def test_pushing_the_same_again_makes_no_commit(model):
    first = model.push_to_hub("alice/twice", token=ALICE)
    assert model.push_to_hub("alice/twice", token=ALICE).oid == first.oid
    assert len(SERVER.repos["alice/twice"].messages) == 2


def test_figures_of_other_weights_are_not_pushed(model):
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.push_to_hub("alice/changed", token=ALICE, dtype=torch.float16)
    assert files("alice/changed").keys() == {".gitattributes", "README.md", *REQUIRED}
    assert "Not yet" in files("alice/changed")["README.md"].decode()
    assert same(load("alice/changed", dtype="float16"), model.half())


def test_a_type_that_is_asked_for_is_sent_with_the_figures(model):
    model.push_to_hub("alice/wide", token=ALICE, dtype="float32")
    assert "evaluation.json" in files("alice/wide")
    assert torch.float16 not in {tensor.dtype for tensor in hub.load_tensors(hub.resolve("alice/wide")).values()}
    assert same(load("alice/wide"), model)


def test_a_revision_is_a_branch_a_tag_or_a_commit_and_main_moves(repo, folder):
    old = SERVER.repos[repo].branches["main"]
    SERVER.repos[repo].tags["v1"] = old
    assert hub.resolve(repo).name == old
    new = SERVER.repos[repo].commit("main", {"training.json": (b'{"new": 1}', False)}, "newer")
    for revision, commit in ((None, new), ("main", new), ("v1", old), (old, old), (new[:8], new)):
        assert hub.resolve(repo, revision=revision).name == commit
    assert hub.read_json(hub.resolve(repo) / "training.json") == {"new": 1}


def test_force_download_fetches_again(repo):
    hub.resolve(repo)
    before = len(SERVER.requests("GET /cdn/"))
    hub.resolve(repo)
    assert len(SERVER.requests("GET /cdn/")) == before
    hub.resolve(repo, force_download=True)
    assert len(SERVER.requests("GET /cdn/")) == before + 1


# -- cards, branches, pull requests, tags, private repos ----------------------------------------------------------


def test_a_card_edited_in_the_repo_stays_and_an_untouched_one_is_renewed(model, folder, tmp_path):
    model.push_to_hub("alice/card", token=ALICE)
    model.push_to_hub("alice/card", token=ALICE, card_fields={"license": "mit"})
    renewed = files("alice/card")["README.md"].decode()
    assert "license: mit" in renewed
    edited = renewed.replace("license: mit", "license: cc0-1.0")
    SERVER.repos["alice/card"].commit("main", {"README.md": (edited.encode(), False)}, "edit in the browser")
    model.push_to_hub("alice/card", token=ALICE, card_fields={"license": "mit"})
    assert files("alice/card")["README.md"].decode() == edited
    model.push_to_hub("alice/card", token=ALICE, card_fields={"license": "mit"}, overwrite_card=True)
    assert files("alice/card")["README.md"].decode() == renewed


def test_a_branch_is_made_and_main_stays(model):
    model.push_to_hub("alice/branch", token=ALICE, branch="smaller")
    assert files("alice/branch").keys() == {".gitattributes"}
    assert same(load("alice/branch", revision="smaller"), model)


def test_whoever_may_read_may_open_a_pull_request(model, repo):
    before = files(repo)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    commit = model.push_to_hub(repo, token="hf_bob", create_pr=True)
    assert commit.pr_url.endswith("/discussions/1")
    assert files(repo) == before
    assert same(load(repo, revision="refs/pr/1"), model)
    with pytest.raises(HubTokenError, match=rf"^the Hub refuses the token for {repo} \(status 403\)"):
        model.push_to_hub(repo, token="hf_bob")


def test_a_taken_tag_stops_the_push_before_it_begins(model, repo):
    SERVER.repos[repo].tags["v1"] = SERVER.repos[repo].branches["main"]
    with pytest.raises(HubError, match=f"^the Hub repo {repo} has a tag 'v1' already: give another name$"):
        model.push_to_hub(repo, token=ALICE, tag="v1")
    assert SERVER.repos[repo].messages[-1] == "by hand"
    with pytest.raises(ValueError, match="^tag: expected None with create_pr=True"):
        model.push_to_hub(repo, token=ALICE, tag="v2", create_pr=True)


def test_a_private_repo_opens_to_its_owner_only(model):
    model.push_to_hub("alice/secret", private=True, token=ALICE)
    assert SERVER.repos["alice/secret"].private
    assert same(load("alice/secret", token=ALICE), model)
    for token in (None, "hf_bob"):
        with pytest.raises(HubRepoNotFoundError, match=r"no Hub repo alice/secret on http.*, or it is private: looked"):
            load("alice/secret", token=token, force_download=True)


def test_private_weights_are_never_sent_to_a_public_repo(model, repo):
    with pytest.raises(HubError, match=f"^the Hub repo {repo} exists and is public: expected a private one"):
        model.push_to_hub(repo, private=True, token=ALICE)
    assert SERVER.repos[repo].messages[-1] == "by hand"


def test_links_out_of_the_folder_are_not_sent(model, tmp_path):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeWeightsError, match=r"README\.md is a symbolic link to .*secret, out of its folder"):
        model.push_to_hub("alice/links", token=ALICE, folder=tmp_path / "model")
    assert "alice/links" not in SERVER.repos


# -- processes of their own ---------------------------------------------------------------------------------------

DOWNLOAD = "import sys; from csvae_hub.hub.download import download; print(download(sys.argv[1]))"


def start(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_offline_with_an_empty_cache_names_repo_switch_and_way_out(repo, tmp_path):
    process = start(DOWNLOAD, repo, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    error = process.communicate()[1].splitlines()[-1]
    assert error == (
        f"csvae_hub.errors.HubOfflineError: HF_HUB_OFFLINE is set, and the Hub repo {repo} is not in the cache"
        f" {tmp_path / 'hub'}: looked for config.json, preprocessor.json, model.safetensors. Load it once with a"
        " network (unset HF_HUB_OFFLINE, local_files_only=False), or give the folder of a copy"
    )


def test_processes_share_one_cache(repo, folder, tmp_path):
    with SERVER.troubled("GET /cdn/", "slow", 0.3):
        processes = [start(DOWNLOAD, repo, HF_HOME=str(tmp_path)) for _ in range(3)]
        answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], answers
    (snapshot,) = {Path(answer[0].strip()) for answer in answers}
    for name in REQUIRED:
        assert (snapshot / name).read_bytes() == (folder / name).read_bytes()
    assert not list(tmp_path.rglob("*.incomplete"))


# -- the command line ---------------------------------------------------------------------------------------------


def test_csvae_push_and_download(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", ALICE)
    options = ["--private", "--tag", "v1", "-m", "From a shell", "--license", "mit", "--dataset", "alice/hats"]
    pushed = CliRunner().invoke(main, ["push", str(folder), "alice/shell", *options], catch_exceptions=False)
    assert pushed.exit_code == 0, pushed.output
    repo = SERVER.repos["alice/shell"]
    assert (repo.private, list(repo.tags), repo.messages[-1]) == (True, ["v1"], "From a shell")
    assert pushed.output.strip().endswith(f"/alice/shell/commit/{repo.tags['v1']}")
    card = files("alice/shell")["README.md"].decode()
    assert "license: mit" in card
    assert "- alice/hats" in card
    target = tmp_path / "here"
    command = ["download", "hf-hub:alice/shell", "-o", str(target), "--revision", "v1"]
    fetched = CliRunner().invoke(main, command, catch_exceptions=False)
    assert fetched.output == f"{target}\n"
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        name: content for name, content in files("alice/shell").items() if name != ".gitattributes"
    }
    assert not any(path.is_symlink() for path in target.iterdir())
    cached = CliRunner().invoke(
        main, ["download", "alice/shell", "--offline", "--revision", "v1"], catch_exceptions=False
    )
    assert json.loads((Path(cached.output.strip()) / "training.json").read_text()) == {"trainer": {"epochs": 3}}


def test_csvae_push_of_a_tagged_pull_request_is_wrong_use(folder):
    wrong = CliRunner().invoke(main, ["push", str(folder), "alice/x", "--tag", "v1", "--create-pr"])
    assert wrong.exit_code == 2
    assert "a pull request has no commit to tag" in wrong.output
