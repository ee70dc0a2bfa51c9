"""Edits that change nothing say so; and the older names of two ways to put an edit back."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub import FaceEditor
from csvae_hub.editing import UnchangedWarning

PORTRAIT = Path(__file__).resolve().parents[2] / "examples/astronaut-512.png"
LINE = "Smiling: already so, by q(y|x) = {}; nothing changed: use a number to move it"


@pytest.fixture(scope="module")
def editor():
    return FaceEditor("celeba-64")


@pytest.fixture(scope="module")
def opened(editor):
    """Two faces: the first smiles by 0.73, the second by 0.1."""
    with Image.open(PORTRAIT) as portrait:
        twice = Image.new("RGB", (1024, 512))
        twice.paste(portrait, (0, 0))
        twice.paste(portrait, (512, 0))
    photo = editor.open(twice, face="all")
    y = photo.latents.y.clone()
    y[:, photo.latents.index("Smiling")] = torch.tensor([0.73, 0.1])
    photo.latents = replace(photo.latents, y=y)
    return photo


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"Smiling": True, "Eyeglasses": 1.0}, f"face 0: {LINE.format('0.73')}"),
        ({"Smiling": np.bool_(False), "Eyeglasses": "sample"}, f"face 1: {LINE.format('0.90')}"),
        ({"Smiling": 1.0}, None),
        ({}, None),
    ],
)
def test_each_attribute_and_face_that_stays_has_a_line(opened, values, line):
    assert opened.unchanged(values) == ((line,) if line else ())


def test_an_edit_that_moves_too_little_has_a_line(opened):
    (line,) = opened.unchanged({"Smiling": 0.7}, is_changed=False)
    assert line.startswith("nothing changed: the edit hardly moves the decoded face")
    assert opened.unchanged({}, is_changed=False) == ()


def test_an_edit_that_changes_nothing_warns_where_it_is_asked_for(editor):
    sure = editor.open(PORTRAIT).latents.y[0, editor.model.index("Smiling")].item()
    assert sure > 0.5
    words = re.escape(f"{PORTRAIT}: {LINE.format(f'{sure:.2f}')}")
    with pytest.warns(UnchangedWarning, match=f"^{words}$") as told:
        edited = editor.edit(PORTRAIT, {"Smiling": True})
    assert told[0].filename == __file__
    with Image.open(PORTRAIT) as portrait:
        assert np.array_equal(edited, portrait)
    for values in ({"Smiling": False}, {"Smiling": "sample"}, {"Smiling": True, "Eyeglasses": 1.0}, {}):
        editor.edit(PORTRAIT, values)  # warnings are errors in these tests


def test_the_older_name_of_two_ways_is_taken(editor):
    photo = editor.open(PORTRAIT)
    for detail, paste in ((True, "difference"), (False, "whole")):
        expected = np.asarray(photo.edit({"Eyeglasses": 1.0}, paste=paste))
        assert np.array_equal(photo.edit({"Eyeglasses": 1.0}, detail=detail), expected)
        assert np.array_equal(editor.edit(PORTRAIT, {"Eyeglasses": 1.0}, detail=detail), expected)
    with pytest.raises(ValueError, match="paste: expected changed, difference, whole, got 'detail'"):
        photo.edit({"Eyeglasses": 1.0}, paste="detail")


@pytest.mark.parametrize("value", ["True", np.bool_(True), torch.tensor(True)])
def test_every_true_is_the_same(editor, value):
    photo = editor.open(PORTRAIT)
    assert photo.unchanged({"Smiling": value}) == photo.unchanged({"Smiling": True}) != ()
    latents = editor.edit_latents(photo.latents, {"Smiling": value})
    assert torch.equal(latents.w, photo.latents.w)


def test_coordinates_as_an_array_are_no_photo(editor):
    photo = editor.open(PORTRAIT)
    for point in (np.array([0.5, 1.0]), np.array([[0.5, 1.0]])):
        assert torch.equal(
            editor.edit_latents(photo.latents, {"Smiling": point}).w,
            editor.edit_latents(photo.latents, {"Smiling": [0.5, 1.0]}).w,
        )


def test_an_edit_without_attributes_by_name_is_refused(editor):
    with pytest.raises(ValueError, match="expected at least one attribute with its value, such as .*, got 'Smiling'"):
        editor.edit(PORTRAIT, "Smiling")
