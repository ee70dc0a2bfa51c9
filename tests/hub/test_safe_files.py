"""JSON from strangers, and links that lead away."""

from __future__ import annotations

import pytest

from csvae_hub.errors import CorruptWeightsError, UnsafeWeightsError
from csvae_hub.hub import safe_files
from csvae_hub.hub.safe_files import check_place, inside, of_repo, read_json, remembered

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1', "is no JSON"),
        (b"", "is no JSON"),
        (b"\xff\xfe{}", "is no JSON"),
        (b"\xef\xbb\xbf{}", "is no JSON"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"a": 1e400}', "the number 1e400 is too large"),
        (b'{"a": %s}' % (b"9" * 5000), "is no JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b'{"a": {"b": [{"c": 1, "c": 1}]}}', "the key 'c' is given twice"),
        (b'{"a": "\\ud800"}', "is no JSON"),
        (b'{"a": %s}' % (b"[" * 100_000), "is no JSON"),
        (b"[1]", r"expected a JSON object \{…\}, got list"),
        (b'"config"', r"expected a JSON object \{…\}, got str"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CorruptWeightsError, match=words) as caught:
        read_json(tmp_path / "a.json")
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}")


def test_escapes_of_whole_characters_and_large_numbers_that_are_none_are_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\\ud83d\\ude00", "b": 1e308, "c": 123456789012345678901234567890}')
    assert read_json(tmp_path / "a.json") == {"a": "😀", "b": 1e308, "c": 123456789012345678901234567890}


def test_a_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "a.json").write_bytes(b"{" + b" " * 98 + b"}")
    assert read_json(tmp_path / "a.json", 100) == {}
    with pytest.raises(CorruptWeightsError, match=r"a\.json has 100 bytes: expected JSON of at most 99$"):
        read_json(tmp_path / "a.json", 99)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the test is the Hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def hub_cache(tmp_path):
    """A snapshot as the Hub's cache keeps it: links to blobs of the same cache."""
    repo = tmp_path / "models--me--faces"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "blobs" / "abc").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    return snapshot


def test_the_hub_s_cache_links_to_its_blobs(cache):
    snapshot = hub_cache(cache)
    assert inside(snapshot, "config.json").read_text() == "{}"
    (cache / "blobs").mkdir()
    (cache / "blobs" / "shared").write_text("{}")
    (snapshot / "shared.json").symlink_to(cache / "blobs" / "shared")
    assert inside(snapshot, "shared.json").read_text() == "{}"
    (cache / "token").write_text("{}")
    (cache / "models--me--other" / "blobs").mkdir(parents=True)
    (cache / "models--me--other" / "blobs" / "abc").write_text("{}")
    (snapshot / "chain").symlink_to(cache / "token")
    for target in (
        cache.parent / "outside",
        cache / "token",
        cache / "models--me--other/blobs/abc",
        snapshot / "chain",
    ):
        (snapshot / "out.json").symlink_to(target)
        with pytest.raises(UnsafeWeightsError, match=r"out\.json is a symbolic link to .*, out of its folder"):
            inside(snapshot, "out.json")
        (snapshot / "out.json").unlink()


def test_a_folder_that_looks_like_the_cache_is_none(tmp_path):
    snapshot = hub_cache(tmp_path / "unpacked")
    (tmp_path / "unpacked" / "id_rsa").write_text("mine")
    (snapshot / "training.json").symlink_to("../../../id_rsa")
    for name in ("config.json", "training.json"):
        with pytest.raises(
            UnsafeWeightsError, match=r"out of its folder: .* name the cache in HF_HUB_CACHE or as cache_d"
        ):
            inside(snapshot, name)


def test_another_cache_is_one_once_it_was_used_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_files, "_caches", set())
    snapshot = hub_cache(tmp_path / "mine")
    (tmp_path / "linked").symlink_to("mine")
    assert remembered(tmp_path / "linked") == tmp_path / "linked"
    assert inside(snapshot, "config.json").read_text() == "{}"
    assert inside(tmp_path / "linked" / snapshot.relative_to(tmp_path / "mine"), "config.json").read_text() == "{}"


@pytest.mark.parametrize(
    "target", ["../../../../evil", "../../../evil", "../../refs/main", "../../../models--me--other/blobs/abc", "x.json"]
)
def test_a_download_that_lies_elsewhere_is_refused_and_its_link_is_removed(tmp_path, target):
    snapshot = hub_cache(tmp_path / "cache")
    check_place(snapshot / "config.json", tmp_path / "cache", "me/faces")
    (snapshot / "plain.json").write_text("{}")
    check_place(snapshot / "plain.json", tmp_path / "cache", "me/faces")
    (snapshot / "training.json").symlink_to(target)
    with pytest.raises(
        UnsafeWeightsError, match=r"^training\.json of the Hub repo me/faces was put at .*: expected a place"
    ):
        check_place(snapshot / "training.json", tmp_path / "cache", "me/faces")
    assert not (snapshot / "training.json").is_symlink()


def test_a_download_to_another_repo_s_snapshot_is_refused(tmp_path):
    snapshot = hub_cache(tmp_path)
    for path, repo in ((snapshot / "config.json", "me/other"), (tmp_path / "config.json", "me/faces")):
        with pytest.raises(UnsafeWeightsError, match="expected a place in"):
            check_place(path, tmp_path, repo)


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "a.json").symlink_to("a.json")
    with pytest.raises(OSError, match=r"a\.json"):
        read_json(inside(tmp_path, "a.json"))


def test_a_linked_folder_is_a_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_text("{}")
    (tmp_path / "linked").symlink_to("real")
    assert read_json(inside(tmp_path / "linked", "a.json")) == {}


def test_files_of_the_hub_s_cache_name_their_repo_and_the_remedy(cache, tmp_path):
    snapshot = hub_cache(tmp_path)
    assert of_repo(snapshot / "config.json") == " (Hub repo me/faces, commit 01234567)"
    assert of_repo(tmp_path / "config.json") == ""
    (tmp_path / "models--me--faces/blobs/abc").write_text("{")
    with pytest.raises(CorruptWeightsError, match=r"\(Hub repo me/faces, commit 01234567\) is no JSON") as caught:
        read_json(snapshot / "config.json")
    assert str(caught.value).endswith("Load it again with force_download=True")
