"""`csvae edit` of photos: faces are found, edited and put back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub import FaceEditor, opening
from csvae_hub.editing import read_mark
from csvae_hub.editing.xmp import SOURCE_TYPE
from csvae_hub.images import to_picture
from csvae_hub.models import AttributeModel


def pixels(path):
    return np.array(Image.open(path)).astype(int)


@pytest.fixture
def editor(weights):
    return FaceEditor(AttributeModel.from_pretrained(weights, device="cpu"))


@pytest.mark.parametrize("face", ["largest", "all", 1])
def test_edit_does_what_the_face_editor_does(run, weights, photos, editor, face):
    run("edit", "photos/two.jpg", "Smiling=2", "Eyeglasses=True", "-o", "out.png", "--face", face, "--model", weights)
    expected = editor.edit("photos/two.jpg", {"Smiling": 2.0, "Eyeglasses": True}, face=face)
    assert np.array_equal(pixels("out.png"), np.array(expected))
    assert not np.array_equal(pixels("out.png"), pixels("photos/two.jpg"))


def test_a_photo_without_a_face_is_named_and_the_rest_is_done(run, weights, photos):
    result = run("edit", photos, "Smiling=1", "-o", "out", "--model", weights, code=1)
    assert "2 of 3 written to out" in result.stdout
    assert "failed: photos/none.png: no face found in this photo of 200×150 pixels" in result.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["one.png", "two.jpg"]


def test_json_says_how_many_faces_were_edited_and_why_others_were_not(run, weights, photos):
    cut = Image.open("photos/two.jpg").crop((115, 0, 400, 256))
    cut.save("photos/two.jpg")
    result = run("edit", photos, "Smiling=1", "-o", "out", "--face", "all", "--model", weights, "--json", code=1)
    report = json.loads(result.stdout)
    one, two = report["edited"]
    assert one == {"input": "photos/one.png", "output": "out/one.png", "faces": {"edited": 1, "skipped": []}}
    assert two["faces"]["edited"] == 1
    (reason,) = two["faces"]["skipped"]
    assert "the face is cut by the border of this photo" in reason
    assert f"skipped a face: photos/two.jpg: {reason}" in result.stderr
    (failure,) = report["failed"]
    assert failure["input"] == "photos/none.png"
    assert "no face found" in failure["error"]


def test_a_face_that_is_not_there_fails_its_photo_only(run, weights, photos):
    result = run("edit", photos, "Smiling=1", "-o", "out", "--face", 1, "--model", weights, code=1)
    assert "1 of 3 written" in result.stdout
    assert "failed: photos/one.png: face: expected a number below 1" in result.stderr


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_the_face_alone_is_as_the_model_draws_it(run, weights, photos, editor, mode):
    photo = Image.open("photos/one.png").convert(mode)
    photo.save("photos/one.png")
    run("edit", "photos/one.png", "Smiling=1", "-o", "face.png", "--no-keep-size", "--model", weights)
    with torch.no_grad():
        latents = editor.model.edit(editor.open("photos/one.png").latents, {"Smiling": 1.0})
        face = to_picture(editor.model.decode(latents)[0]).convert("L" if mode == "L" else "RGB")
    with Image.open("face.png") as written:
        assert written.mode == face.mode
        assert np.array_equal(np.array(written), np.array(face))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_grey_stays_grey_and_alpha_stays(run, weights, photos, mode):
    photo = Image.open("photos/one.png").convert("RGB")
    photo.putalpha(Image.linear_gradient("L"))
    photo.convert(mode).save("photos/one.png")
    run("edit", "photos/one.png", "Smiling=3", "-o", "out.png", "--model", weights)
    before, after = Image.open("photos/one.png"), Image.open("out.png")
    assert (after.mode, after.size) == (mode, (256, 256))
    assert not np.array_equal(np.array(before), np.array(after))
    if mode != "L":
        assert np.array_equal(np.array(before.getchannel("A")), np.array(after.getchannel("A")))


def test_a_value_can_be_another_photo(run, weights, photos, editor):
    run("edit", "photos/two.jpg", "Smiling=photos/one.png", "-o", "out.png", "--model", weights)
    expected = editor.edit("photos/two.jpg", {"Smiling": editor.open("photos/one.png").latents})
    assert np.array_equal(pixels("out.png"), np.array(expected))
    result = run("edit", "photos/two.jpg", "Smiling=photos/none.png", "-o", "o.png", "--model", weights, code=1)
    assert "photos/none.png: no face found" in result.stderr


def test_true_leaves_a_face_that_has_it_and_a_number_does_not(run, weights, photos, editor):
    there = bool(editor.open("photos/one.png").latents.y[0, 1] > 0.5)
    run("edit", "photos/one.png", f"Smiling={there}", "-o", "same.png", "--model", weights)
    assert np.array_equal(pixels("same.png"), pixels("photos/one.png"))
    run("edit", "photos/one.png", f"Smiling={9 if there else -8}", "-o", "other.png", "--model", weights)
    assert not np.array_equal(pixels("other.png"), pixels("photos/one.png"))


def test_edits_that_change_nothing_are_told(run, weights, photos, editor):
    photo = editor.open("photos/one.png")
    sure = photo.latents.y[0, 1].item()
    values = [f"Smiling={sure > 0.5}", "Eyeglasses=5"]
    line = f"Smiling: already so, by q(y|x) = {max(sure, 1 - sure):.2f}; nothing changed: use a number to move it"
    for given in (values, values[:1]):
        result = run("edit", photos, *given, "-o", "out", "--model", weights, "--json", code=1)
        report = json.loads(result.stdout)
        assert report["edited"][0]["unchanged"] == [line]
        assert f"unchanged: photos/one.png: {line}" in result.stderr
    result = run("edit", photos, values[1], "-o", "out", "--model", weights, "--json", code=1)
    assert "unchanged" not in result.output


def test_an_edit_that_hardly_moves_the_face_is_told(run, weights, photos):
    result = run("edit", "photos/two.jpg", "Smiling=photos/one.png", "-o", "o.png", "--model", weights)  # the same face
    assert "unchanged: photos/two.jpg: nothing changed: the edit hardly moves the decoded face" in result.stderr
    assert np.array_equal(pixels("o.png"), pixels("photos/two.jpg"))


def test_a_photo_is_written_as_it_was_packed_and_described(run, weights, photos):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.open("photos/two.jpg").rotate(90, expand=True).save("turned.jpg", exif=exif, quality=70, dpi=(300, 300))
    run("edit", "turned.jpg", "Smiling=1", "-o", "out.jpg", "--model", weights)
    with Image.open("turned.jpg") as before, Image.open("out.jpg") as after:
        assert after.size == (400, 256)
        assert (after.getexif()[0x0112], after.getexif()[0x010F]) == (1, "Maker")
        assert after.quantization == before.quantization
        assert after.info["dpi"] == (300, 300)


def test_without_a_detector_the_way_out_is_named(run, weights, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for command in (("edit", "photos", "Smiling=1"), ("sweep", "photos/one.png", "Smiling")):
        result = run(*command, "-o", "out.png" if command[0] == "sweep" else "out", "--model", weights, code=1)
        assert "cv2 is missing: pip install 'csvae-hub[align]'" in result.stderr
        assert "--aligned" in result.stderr
    run("edit", "photos", "Smiling=1", "-o", "out", "--aligned", "--model", weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--face", "all", "--no-keep-size"), "--no-keep-size writes one face a photo: leave out --face all"),
        (("--face", "-1"), "expected largest, all or a number from 0, counting the largest first; got '-1'"),
        (("--face", "²"), "got '²'"),
    ],
)
def test_faces_that_cannot_be_meant_are_refused(run, weights, photos, options, message):
    result = run("edit", photos, "Smiling=1", "-o", "out", "--model", weights, *options, code=2)
    assert message in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize("options", [(), ("--no-mark",)])
def test_an_edited_photo_says_so_unless_told_not_to(run, weights, photos, options):
    result = run("edit", photos, "Smiling=3", "-o", "out", "--model", weights, "--json", *options, code=1)
    assert json.loads(result.stdout)["mark"] == (None if options else SOURCE_TYPE)
    for name in ("one.png", "two.jpg"):
        mark = read_mark(Path("out") / name)
        if options:
            assert mark is None
        else:
            assert mark["digital_source_type"] == SOURCE_TYPE
            assert mark["edits"][0]["parameters"] == f"model {weights.name}; Smiling=3.0"


def test_a_photo_that_stays_as_it_is_has_no_mark(run, weights, photos, editor):
    there = bool(editor.open("photos/one.png").latents.y[0, 1] > 0.5)
    run("edit", "photos/one.png", f"Smiling={there}", "-o", "same.png", "--model", weights)
    assert read_mark("same.png") is None


def test_what_was_left_out_of_the_folder_and_of_the_files_is_told(run, weights, photos):
    Path("photos/list.csv").write_text("x")
    with Image.open("photos/one.png") as face:
        face.save("photos/one.png", dpi=(300, 300))
    result = run("edit", photos, "Smiling=1", "-o", "out", "--model", weights, "--json", code=1)
    report = json.loads(result.stdout)
    assert [line.split(" (")[0] for line in report["left_out"]] == ["left out 1 .csv"]
    assert report["left_out"][0] in result.stderr
    result = run("edit", "photos/one.png", "Smiling=1", "-o", "out.webp", "--model", weights, "--json")
    assert json.loads(result.stdout)["edited"][0]["notes"] == ["left out: resolution"]
    assert "note: photos/one.png: left out: resolution" in result.stderr


def test_larger_pictures_are_refused_and_the_limit_can_be_raised(run, weights, photos, monkeypatch):
    monkeypatch.setattr(opening, "MAX_PIXELS", opening.MAX_PIXELS)
    arguments = ("edit", "photos/one.png", "Smiling=1", "-o", "out.png", "--model", weights, "--max-megapixels")
    result = run(*arguments, "0.06", code=1)
    assert "photos/one.png: expected a picture of at most 0.06 megapixels, got 256×256" in result.stderr
    run(*arguments, "0.07")


@pytest.mark.parametrize("output", ["out.eps", "edited.jgp"])
def test_an_ending_that_cannot_be_written_is_wrong_use(run, weights, photos, output):
    result = run("edit", "photos/one.png", "Smiling=1", "-o", output, "--model", weights, code=2)
    assert f"{output}: can't write this kind: name an output that ends in .jpg" in result.stderr
    assert not Path(output).exists()
