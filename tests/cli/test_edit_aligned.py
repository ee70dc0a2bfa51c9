"""`csvae edit --aligned`: pictures whose centre square is a face; and what photos share with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.cli.common import progress
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.images import to_picture
from csvae_hub.models import CSVAE


@pytest.fixture
def edit(run):
    return lambda *arguments, code=0: run("edit", "--aligned", *arguments, code=code)


def pixels(path):
    return np.array(Image.open(path))


def test_edit_does_what_the_model_does(edit, weights, folder):
    result = edit(folder, "Smiling=0.5", "Eyeglasses=True", "-o", "out", "--model", weights, "--batch-size", 4)
    assert "10 of 10 written to out" in result.stdout
    model = CSVAE.from_pretrained(weights, device="cpu")
    for source in sorted(folder.rglob("*.png")):
        expected = model.edit([source], {"Smiling": 0.5, "Eyeglasses": True})[0]
        written = pixels(Path("out") / source.relative_to(folder)).astype(int)
        assert np.abs(written - np.array(expected).astype(int)).max() <= 1  # batches of other sizes round otherwise


@pytest.mark.parametrize("value", ["True", "false", "-0.5", "1e0", "2.5,1.0", "sample", "photos/0.png"])
def test_every_kind_of_value_is_taken(edit, weights, folder, value):
    edit("photos/2.png", f"Smiling={value}", "-o", "edited.png", "--model", weights)
    assert pixels("edited.png").shape == (20, 24, 3)


def test_value_can_be_another_picture(edit, weights, folder):
    edit("photos/2.png", "Smiling=photos/0.png", "-o", "edited.png", "--model", weights)
    model = CSVAE.from_pretrained(weights, device="cpu")
    expected = model.set_attribute(["photos/2.png"], "Smiling", model.encode("photos/0.png"))[0]
    assert np.array_equal(pixels("edited.png"), np.array(expected))


def test_input_with_an_equals_sign_in_its_name_is_an_input(edit, weights, folder):
    Path("photos/0.png").rename("a=b.png")
    edit("a=b.png", "Smiling=1", "-o", "edited.png", "--model", weights)
    assert Path("edited.png").is_file()


def test_one_broken_picture_of_ten_is_named_and_nine_are_done(edit, weights, folder):
    Path("photos/4.png").write_text("this is no picture")
    result = edit(folder, "Smiling=1", "-o", "out", "--model", weights, code=1)
    assert "9 of 10 written" in result.stdout
    assert "failed: photos/4.png: expected a picture file" in result.stderr
    assert len(list(Path("out").rglob("*.png"))) == 9


def test_json_report_names_inputs_outputs_and_failures(edit, weights, folder):
    Path("photos/4.png").write_text("this is no picture")
    result = edit(folder, "Smiling=1", "-o", "out", "--model", weights, "--json", code=1)
    report = json.loads(result.stdout)
    assert len(report["edited"]) == 9
    assert report["edited"][0] == {"input": "photos/0.png", "output": "out/0.png"}
    assert [failure["input"] for failure in report["failed"]] == ["photos/4.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "nothing to change: expected at least one NAME=VALUE"),
        (["Smiling=1"], "expected at least one picture or folder, got none"),
        (["photos", "nowhere", "Smiling=1"], "no such file or folder: nowhere"),
        (["photos", "Smilling=1"], "unknown attribute 'Smilling': did you mean 'Smiling'?"),
        (["photos", "Smiling=1", "Smiling=0"], "'Smiling' is given twice"),
        (["photos", "Smiling=very"], "Smiling=very: expected True, False, a number"),
        (["photos", "Smiling=nan"], "expected finite numbers, got 'nan'"),
        (["photos", "Smiling=1,2,3"], "Smiling: expected 2 coordinates, got 3"),
        (["photos", "Smiling=1", "--device", "abacus"], "--device abacus: expected cpu, cuda or cuda:N"),
        (["photos", "Smiling=1", "--model", "nowhere"], "unknown model 'nowhere'"),
    ],
)
def test_wrong_use_ends_with_2_says_why_and_writes_nothing(edit, weights, folder, arguments, message):
    model = [] if "--model" in arguments else ["--model", weights]
    result = edit(*arguments, "-o", "out", *model, code=2)
    assert message in result.stderr
    assert not Path("out").exists()


def test_broken_weights_end_with_1(edit, weights, folder):
    Path("broken").mkdir()
    for file in weights.iterdir():
        content = file.read_bytes()
        (Path("broken") / file.name).write_bytes(content[:100] if file.suffix == ".safetensors" else content)
    result = edit(folder, "Smiling=1", "-o", "out", "--model", "broken", code=1)
    assert "model.safetensors is truncated or corrupt" in result.stderr


def test_plain_lines_are_printed_where_there_is_no_terminal(capsys):
    with progress(10, "edited", seconds=0) as advance:
        advance(4)
        advance(6)
    assert capsys.readouterr().err == "edited 4 of 10\nedited 10 of 10\n"


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_face_alone_is_as_the_model_draws_it(edit, weights, folder, mode):
    Image.open("photos/0.png").convert(mode).save("photos/0.png")
    edit("photos/0.png", "Smiling=1", "-o", "face.png", "--no-keep-size", "--model", weights)
    model = CSVAE.from_pretrained(weights, device="cpu")
    with torch.no_grad():
        face = model.decode(model.edit(model.encode("photos/0.png"), {"Smiling": 1.0}))[0]
    with Image.open("face.png") as written:
        assert written.mode == mode
        assert np.array_equal(np.array(written), np.array(to_picture(face).convert(mode)))


def test_coordinates_are_not_for_a_model_without_subspaces(edit, make_model, folder):
    result = edit("photos", "Smiling=1,2", "-o", "out", "--model", make_model("vae"), code=2)
    assert "Smiling: expected no coordinates, since this model has no subspaces: give a number" in result.stderr


def test_models_of_vectors_are_not_for_pictures(run, folder):
    backbone = BackboneConfig(name="mlp", width=4, depth=1, features=4)
    CSVAE(ModelConfig(("Above",), shape=(3,), z_dim=2, backbone=backbone)).save_pretrained("roll")
    result = run("edit", folder, "Above=1", "-o", "out", "--model", "roll", code=2)
    assert "roll is a model of vectors of 3 numbers, not of pictures" in result.stderr
