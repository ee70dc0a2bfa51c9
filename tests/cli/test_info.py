"""`csvae list` and `csvae info`."""

from __future__ import annotations

import json
import shutil

import pytest

FIGURES = {
    "attributes": ["Eyeglasses", "Smiling"],
    "reconstruction": {"mse": 0.0123, "psnr": 10**400},
    "attribute_change": {"wished": 0.875},
    "leakage": [],
}


@pytest.fixture
def model(weights, tmp_path):
    """A copy of the tiny model, to be damaged."""
    return shutil.copytree(weights, tmp_path / "copy")


def test_list_and_info_name_what_a_model_knows(run, weights, monkeypatch):
    monkeypatch.setattr("csvae_hub.hub.folder.PACKAGED", weights.parent)
    assert run("list").stdout == "tiny  csvae  3×16×16  Eyeglasses, Smiling\n"
    assert json.loads(run("list", "--json").stdout)["tiny"]["attributes"] == ["Eyeglasses", "Smiling"]
    shown = run("info", "tiny").stdout
    assert "attributes  Eyeglasses, Smiling" in shown
    assert "latents     z 4, w 2 × 2" in shown
    assert "measured    nothing yet" in shown
    assert json.loads(run("info", weights, "--json").stdout)["config"]["z_dim"] == 4


def test_info_shows_the_figures_that_can_be_shown(run, model):
    (model / "evaluation.json").write_text(json.dumps(FIGURES))
    shown = run("info", model).stdout
    assert "| Reconstruction, mean squared error of values in [0, 1] | 0.0123 |" in shown
    assert "87.5 %" in shown
    assert "measured    on the test split\n" in shown
    assert "PSNR" not in shown
    assert "<!--" not in shown
    assert json.loads(run("info", model, "--json").stdout)["evaluation"] == FIGURES


def test_info_says_on_which_pictures_packaged_weights_were_measured(run):
    large, small = run("info", "celeba-128").stdout, run("info", "celeba-64").stdout
    assert "measured    on 1,516 examples of the test split\n" in large
    assert "| Edits that a separate classifier takes for the wished class, mean |" in large
    assert "measured    on 2,068 examples of the test split\n" in small


@pytest.mark.parametrize("file", ["config.json", "preprocessor.json", "training.json", "evaluation.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"[]", "expected a JSON object {…}, got list"),
        (b"\xff\xfe{}", "is no JSON"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": 1e999}', "is too large"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b'{"a": ' + b"[" * 100_000, "is no JSON"),
        (b'{"a": "\\ud800"}', "is no JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is no JSON"),
        (b" " * (9 << 20), "expected JSON of at most"),
    ],
)
def test_info_names_a_malformed_file(run, model, file, content, message):
    (model / file).write_bytes(content)
    for options in ((), ("--json",)):
        result = run("info", model, *options, code=1)
        assert message in result.stderr
        assert file in result.stderr
        assert not result.stdout


@pytest.mark.parametrize(
    "fields", [{"attributes": 3}, {"attributes": []}, {"backbone": []}, {"shape": 64}, {"z_dim": "4"}, {"zebra": 1}]
)
def test_info_names_a_field_that_loading_refuses(run, model, fields):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | fields))
    result = run("info", model, code=2)
    assert next(iter(fields)) in result.stderr
    assert not result.stdout


@pytest.mark.parametrize("file", ["config.json", "preprocessor.json", "training.json", "evaluation.json"])
def test_info_reads_no_file_that_a_link_leads_to(run, model, tmp_path, file):
    (tmp_path / "secret.json").write_text('{"password": "hunter2"}')
    (model / file).unlink(missing_ok=True)
    (model / file).symlink_to(tmp_path / "secret.json")
    for options in ((), ("--json",)):
        result = run("info", model, *options, code=1)
        assert "is a symbolic link to" in result.stderr
        assert "hunter2" not in result.output


def test_info_reads_the_mark_of_an_edited_photo(run, weights, folder):
    edit = ("edit", folder / "0.png", "Smiling=3", "--aligned", "--model", weights, "-o")
    run(*edit, "edited.png")
    run(*edit, "unmarked.png", "--no-mark")
    shown = run("info", "edited.png").stdout
    assert "compositeWithTrainedAlgorithmicMedia" in shown
    assert "Smiling" in shown
    assert json.loads(run("info", "edited.png", "--json").stdout)["mark"]["edits"]
    for plain in ("unmarked.png", folder / "0.png"):
        assert "mark        none" in run("info", plain).stdout


def test_info_of_a_file_that_is_no_picture_says_so(run, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    result = run("info", tmp_path / "notes.txt", code=1)
    assert "notes.txt" in result.stderr or "cannot identify" in result.stderr
    assert "Traceback" not in result.stderr
