"""`csvae sweep` and `csvae map`: what an attribute does to one face, as a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub import FaceEditor
from csvae_hub.images import grid
from csvae_hub.models import AttributeModel


def pixels(path):
    return np.array(Image.open(path))


def steps_of(model, latents, values):
    with torch.no_grad():
        return torch.cat([model.decode(model.edit(latents, {"Smiling": value})) for value in values])


def test_sweep_draws_the_face_of_an_aligned_picture_and_of_a_photo(run, weights, photos):
    model = AttributeModel.from_pretrained(weights, device="cpu")
    range_of = ("--from", "-1", "--to", "2", "--steps", 4)
    run("sweep", "photos/one.png", "Smiling", *range_of, "-o", "strip.png", "--aligned", "--model", weights)
    expected = grid(steps_of(model, model.encode("photos/one.png"), (-1, 0, 1, 2)), columns=4)
    assert np.array_equal(pixels("strip.png"), np.array(expected))
    run("sweep", "photos/two.jpg", "Smiling", *range_of, "-o", "strip.png", "--face", 1, "--model", weights)
    face = FaceEditor(model).open("photos/two.jpg", face=1)
    expected = grid(steps_of(model, face.latents, (-1, 0, 1, 2)), columns=4)
    assert np.array_equal(pixels("strip.png"), np.array(expected))


@pytest.mark.parametrize("aligned", [True, False])
def test_sweep_of_the_whole_photo_shows_it_at_each_step(run, weights, photos, aligned):
    options = ("--model", weights, *(("--aligned",) if aligned else ()))
    range_of = ("--from", "-8", "--to", "9", "--steps", 2)
    run("sweep", "photos/one.png", "Smiling", *range_of, "--whole", "-o", "strip.png", *options)
    model = AttributeModel.from_pretrained(weights, device="cpu")
    editor = model if aligned else FaceEditor(model)
    strip = pixels("strip.png")
    assert strip.shape == (256, 2 * 256 + 2, 3)
    for value, part in ((-8.0, strip[:, :256]), (9.0, strip[:, 258:])):
        assert np.array_equal(part, np.array(editor.edit(["photos/one.png"], {"Smiling": value})[0]))


def test_sweep_that_is_too_wide_for_its_kind_is_an_error(run, weights, photos):
    arguments = ("--steps", 70, "--whole", "-o", "strip.webp", "--model", weights)
    result = run("sweep", "photos/one.png", "Smiling", *arguments, code=1)
    assert "can't write strip.webp" in result.stderr
    assert not Path("strip.webp").exists()


def test_map_draws_the_face_over_the_plane(run, weights, photos, monkeypatch):
    drawn = []
    from csvae_hub import plotting

    traversal = plotting.traversal

    def watched(*arguments, **options):
        drawn.append((arguments, options))
        return traversal(*arguments, **options)

    monkeypatch.setattr(plotting, "traversal", watched)
    result = run("map", "photos/one.png", "Smiling", "--steps", 3, "-o", "new/map.png", "--model", weights)
    assert "the plane of Smiling written to new/map.png" in result.stdout
    ((model, latents, name), options) = drawn[0]
    assert (name, options) == ("Smiling", {"steps": 3})
    assert torch.equal(latents.w, FaceEditor(model).open("photos/one.png").latents.w)
    assert pixels("new/map.png").shape[1] > 3 * 16
    run("map", "photos/one.png", "Smiling", "--steps", 2, "--aligned", "-o", "map.svg", "--model", weights)
    assert torch.equal(drawn[1][0][1].w, model.encode("photos/one.png").w)
    assert Path("map.svg").read_text().startswith("<?xml")


def test_map_needs_a_plane(run, make_model, photos):
    command = ("map", "photos/one.png", "Smiling", "-o", "map.png", "--model")
    assert "has no subspaces, so there is no plane to draw: take a CSVAE, or csvae sweep" in (
        run(*command, make_model("cond-vae"), code=2).stderr
    )
    words = "has subspaces of 3 numbers, which are no planes: take a model with w_dim 2, or csvae sweep"
    assert words in run(*command, make_model(w_dim=3), code=2).stderr
    assert not Path("map.png").exists()


def test_map_names_the_extra_that_is_missing(run, weights, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("map", "photos/one.png", "Smiling", "-o", "map.png", "--model", weights, code=1)
    assert "matplotlib is missing: pip install 'csvae-hub[plot]'" in result.stderr


@pytest.mark.parametrize("command", ["sweep", "map"])
@pytest.mark.parametrize(
    ("photo", "name", "output", "code", "message"),
    [
        ("one.png", "Smilling", "strip.png", 2, "did you mean 'Smiling'?"),
        ("one.png", "Smiling", "strip.doc", 2, "-o strip.doc: expected a picture's name that ends in one of"),
        ("one.png", "Smiling", "photos/one.png", 2, "is the input: give another name"),
        ("gone.png", "Smiling", "strip.png", 2, "'photos/gone.png' does not exist"),
        ("none.png", "Smiling", "strip.png", 1, "photos/none.png: no face found in this photo of 200×150 pixels"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, weights, photos, command, photo, name, output, code, message):
    result = run(command, f"photos/{photo}", name, "-o", output, "--model", weights, code=code)
    assert message in result.stderr
    assert not Path("strip.png").exists()


def test_no_face_or_all_of_them_is_no_choice_for_one_strip(run, weights, photos):
    command = ("sweep", "photos/two.jpg", "Smiling", "-o", "strip.png", "--model", weights, "--face")
    assert "expected largest or a number from 0" in run(*command, "all", code=2).stderr
    assert "face: expected a number below 2" in run(*command, 2, code=1).stderr


def test_a_map_without_matplotlib_fails_before_the_model_is_loaded(run, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(AttributeModel, "from_pretrained", None)
    result = run("map", "photos/one.png", "Smiling", "-o", "map.png", code=1)
    assert "csvae-hub[plot]" in result.stderr


def test_a_point_far_outside_of_the_plane_is_noted_and_one_within_is_not(run, weights, photos):
    model = AttributeModel.from_pretrained(weights, device="cpu")
    absent, present = model.class_means[model.index("Smiling")].numpy()
    middle, reach = (absent + present) / 2, np.hypot(*(present - absent))
    for distance, noted in ((0.99, False), (1.4, False), (1.6, True)):
        x, y = middle + (0, distance * reach)
        options = ("-o", "edited.png", "--aligned", "--model", weights)
        result = run("edit", "photos/one.png", f"Smiling={x},{y}", *options)
        assert ("note: Smiling: the point lies far outside of the square" in result.stderr) == noted
