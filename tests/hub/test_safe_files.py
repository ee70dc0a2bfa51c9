"""JSON from strangers, and links that lead away."""

from __future__ import annotations

import pytest

from csvae_hub.errors import CorruptWeightsError, UnsafeWeightsError
from csvae_hub.hub.safe_files import inside, of_repo, read_json

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


def hub_cache(tmp_path):
    """A snapshot as the Hub's cache keeps it: links to blobs of the same cache."""
    repo = tmp_path / "models--me--faces"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "blobs" / "abc").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    return snapshot


def test_the_hub_s_cache_links_to_itself(tmp_path):
    snapshot = hub_cache(tmp_path)
    assert inside(snapshot, "config.json").read_text() == "{}"
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "shared").write_text("{}")
    (snapshot / "shared.json").symlink_to(tmp_path / "blobs" / "shared")
    assert inside(snapshot, "shared.json").read_text() == "{}"
    (tmp_path.parent / "outside").write_text("{}")
    (snapshot / "out.json").symlink_to(tmp_path.parent / "outside")
    with pytest.raises(UnsafeWeightsError, match=r"out\.json is a symbolic link to .*outside, out of its folder"):
        inside(snapshot, "out.json")


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "a.json").symlink_to("a.json")
    with pytest.raises(OSError, match=r"a\.json"):
        read_json(inside(tmp_path, "a.json"))


def test_a_linked_folder_is_a_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_text("{}")
    (tmp_path / "linked").symlink_to("real")
    assert read_json(inside(tmp_path / "linked", "a.json")) == {}


def test_files_of_the_hub_s_cache_name_their_repo_and_the_remedy(tmp_path):
    snapshot = hub_cache(tmp_path)
    assert of_repo(snapshot / "config.json") == " (Hub repo me/faces, commit 01234567)"
    assert of_repo(tmp_path / "config.json") == ""
    (tmp_path / "models--me--faces/blobs/abc").write_text("{")
    with pytest.raises(CorruptWeightsError, match=r"\(Hub repo me/faces, commit 01234567\) is no JSON") as caught:
        read_json(snapshot / "config.json")
    assert str(caught.value).endswith("Load it again with force_download=True")
