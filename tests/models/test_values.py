"""What an attribute can be set to, and that an edit touches its own subspace only."""

from __future__ import annotations

import copy
from fractions import Fraction

import click
import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.cli.common import _parse_change
from csvae_hub.config import AttributePrior
from csvae_hub.errors import ImageError
from csvae_hub.models import Latents

NAMES = ("Smiling", "Hat", "Young")


def inputs(model, n=4):
    return torch.rand(n, *model.config.shape)


def generator():
    return torch.Generator().manual_seed(7)


VALUES = {
    "True": True,
    "False": False,
    "float": 0.7,
    "beyond": 1.5,
    "int": 2,
    "numpy number": np.float32(0.7),
    "0-d tensor": torch.tensor(0.7),
    "list of coordinates": [0.5, -2],
    "tuple of coordinates": (0.5, -2.0),
    "tensor of coordinates": torch.tensor([0.5, -2.0]),
    "coordinates for each": torch.tensor([[0.5, -2.0]] * 4),
    "array of coordinates": np.array([0.5, -2.0]),
    "array of coordinates for each": np.array([[0.5, -2.0]] * 4, dtype=np.float16),
    "numpy's numbers": [np.float32(0.5), np.int64(-2)],
    "bool of numpy": np.bool_(True),
    "text": "0.7",
    "sample": "sample",
    "transfer from each": "latents",
    "transfer from one": "one",
    "transfer from an image": "image",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", list(VALUES))
def test_an_edit_leaves_z_and_every_other_subspace_equal_to_the_bit(model, name, kind):
    latents, others = model.encode(inputs(model)), model.encode(inputs(model))
    value = VALUES[kind]
    if isinstance(value, str) and value in ("latents", "one", "image"):
        value = {"latents": others, "one": others[0], "image": inputs(model, 1)}[value]
    before = latents.w.clone()
    edited = model.set_attribute(latents, name, value, generator=generator())
    i = NAMES.index(name)
    rest = [j for j in range(3) if j != i]
    assert isinstance(edited, Latents)
    assert torch.equal(edited.z, latents.z)
    assert torch.equal(edited.w[:, rest], latents.w[:, rest])
    assert not torch.equal(edited.w[:, i], before[:, i])
    assert edited.w.isfinite().all()
    assert torch.equal(latents.w, before)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        0.0,
        1.0,
        0.25,
        -0.5,
        2.0,
        np.float32(0.25),
        torch.tensor(1.0),
        np.array(2),
        np.bool_(True),
        Fraction(1, 4),
        "1e-1",
    ],
)
def test_a_number_is_a_point_on_the_line_through_the_class_means(model, value):
    latents = model.encode(inputs(model))
    absent, present = model.class_means[1]
    point = model.set_attribute(latents, "Hat", value).w[:, 1]
    torch.testing.assert_close(point, (absent + float(value) * (present - absent)).expand(4, 2))


@pytest.mark.parametrize(
    "value",
    [
        [0.5, -2],
        (0.5, -2.0),
        torch.tensor([0.5, -2.0]),
        torch.tensor([[0.5, -2.0]] * 4),
        np.array([0.5, -2.0]),
        np.array([-2.0, 0.5], dtype=np.float16)[::-1],
        np.array([[0.5, -2.0]] * 4, dtype=np.float32),
        [np.float32(0.5), np.int8(-2)],
        (torch.tensor(0.5), np.array(-2)),
        [Fraction(1, 2), -2],
        "0.5,-2",
    ],
    ids=str,
)
def test_coordinates_are_taken_as_they_are(model, value):
    edited = model.set_attribute(model.encode(inputs(model)), "Hat", value)
    assert torch.equal(edited.w[:, 1], torch.tensor([0.5, -2.0]).expand(4, 2))


def test_one_attribute_s_own_prior_says_where_its_classes_are(new_model):
    model = new_model(priors={"Hat": AttributePrior(absent_loc=-7.0, present_loc=7.0)})
    latents = model.encode(inputs(model))
    assert (model.set_attribute(latents, "Hat", False).w[:, 1] < -6).all()
    assert (model.set_attribute(latents, "Hat", True).w[:, 1] > 6).all()


def test_a_sample_is_drawn_from_the_class_that_has_the_attribute(model):
    latents = model.encode(inputs(model, 1))
    many = Latents.cat([latents] * 4000)
    drawn = model.set_attribute(many, "Hat", "sample", generator=generator()).w[:, 1]
    p_w = model.prior_w(torch.ones(1, 3))
    torch.testing.assert_close(drawn.mean(0), p_w.mean[0, 1], rtol=0, atol=0.1)
    torch.testing.assert_close(drawn.std(0), p_w.stddev[0, 1], rtol=0.05, atol=0)


def test_a_sample_of_a_trained_model_is_drawn_from_where_the_class_s_pictures_are(model):
    trained = copy.deepcopy(model)
    trained.class_means.copy_(torch.randn(3, 2, 2))
    trained.class_scales.copy_(torch.rand(3, 2, 2) + 0.1)
    many = Latents.cat([trained.encode(inputs(trained, 1))] * 4000)
    drawn = trained.set_attribute(many, "Hat", "sample", generator=generator()).w[:, 1]
    torch.testing.assert_close(drawn.mean(0), trained.class_means[1, 1], rtol=0, atol=0.1)
    torch.testing.assert_close(drawn.std(0), trained.class_scales[1, 1], rtol=0.05, atol=0)
    prior = trained.prior_latents(4000, torch.zeros(4000, 3), generator()).w
    torch.testing.assert_close(prior.mean(0), trained.class_means[:, 0], rtol=0, atol=0.1)
    torch.testing.assert_close(prior.std(0), trained.class_scales[:, 0], rtol=0.05, atol=0)


def test_a_sample_is_the_same_again_by_its_generator(image_model):
    latents = image_model.encode(inputs(image_model))
    first, second = (image_model.set_attribute(latents, "Hat", "sample", generator=generator()) for _ in range(2))
    assert torch.equal(first.w, second.w)
    assert not torch.equal(image_model.set_attribute(latents, "Hat", "sample").w, first.w)


def test_transfer_takes_the_other_s_subspace(model):
    latents, x = model.encode(inputs(model)), inputs(model)
    others = model.encode(x)
    assert torch.equal(model.set_attribute(latents, "Hat", others).w[:, 1], others.w[:, 1])
    assert torch.equal(model.set_attribute(latents, "Hat", others[2]).w[:, 1], others.w[2, 1].expand(4, 2))
    transferred = model.set_attribute(latents, "Hat", x[2:3] if x.ndim == 2 else x[2])
    torch.testing.assert_close(transferred.w[:, 1], others.w[2, 1].expand(4, 2))


def test_transfer_goes_by_the_attribute_s_name_whatever_its_place(image_model):
    latents = image_model.encode(inputs(image_model))
    foreign = Latents(latents.z, torch.randn(4, 2, 2), torch.zeros(4, 2), ("Hat", "Moustache"))
    assert torch.equal(image_model.set_attribute(latents, "Hat", foreign).w[:, 1], foreign.w[:, 0])


def test_transfer_from_any_kind_of_image(image_model, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "hat.png")
    x = inputs(image_model)
    expected = image_model.set_attribute(x, "Hat", image_model.encode(array))
    for value in (array, Image.fromarray(array), tmp_path / "hat.png", str(tmp_path / "hat.png")):
        assert torch.equal(image_model.set_attribute(x, "Hat", value), expected)


def test_several_attributes_are_several_edits(model):
    latents = model.encode(inputs(model))
    at_once = model.edit(latents, {"Hat": True, "Young": 0.3})
    one_by_one = model.set_attribute(model.set_attribute(latents, "Young", 0.3), "Hat", True)
    assert torch.equal(at_once.w, one_by_one.w)
    assert torch.equal(model.edit(latents, {}).w, latents.w)


def test_pixels_change_with_the_attribute(image_model):
    x = inputs(image_model)
    assert not torch.equal(image_model.set_attribute(x, "Hat", True), image_model.set_attribute(x, "Hat", False))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1.0], r"value for 'Hat': expected 2 coordinates, got 1: \[1.0\]"),
        ([], r"value for 'Hat': expected 2 coordinates, got 0: \[\]"),
        (
            None,
            "value for 'Hat': expected True, False, a number, 2 coordinates, an image, Latents or 'sample', got None",
        ),
        ({"x": 1}, "value for 'Hat': expected True, False, a number"),
        (float("nan"), "value for 'Hat': expected finite numbers, got nan"),
        ([float("inf"), 0.0], r"value for 'Hat': expected finite numbers, got \[inf, 0.0\]"),
        (np.zeros(3), r"value for 'Hat': expected 2 coordinates, got 3: array"),
        (torch.zeros(1), "value for 'Hat': expected 2 coordinates, got 1: tensor"),
        (np.array([np.inf, 0.0]), "value for 'Hat': expected finite numbers, got array"),
        ("nan", "value for 'Hat': expected finite numbers, got 'nan'"),
        ("0.5,1,2", r"value for 'Hat': expected 2 coordinates, got 3: \[0.5, 1.0, 2.0\]"),
        ("https://example.org/hat.png", "value for 'Hat': expected the name of a file, got a web address: download"),
        (np.array("x"), "value for 'Hat'|expected"),
        (np.array([None]), "expected an array of uint8"),
        (1j, "value for 'Hat': expected True, False"),
        (torch.zeros(3, 2), r"value for 'Hat': expected shape \(2,\) or \(4, 2\), got \(3, 2\)"),
    ],
)
def test_a_value_that_means_nothing_is_refused(image_model, value, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        image_model.set_attribute(inputs(image_model), "Hat", value)


def test_latents_of_another_number_are_refused(image_model):
    latents = image_model.encode(inputs(image_model, 3))
    text = "^value for 'Hat': expected the latents of one image or of as many as are edited, got 3$"
    with pytest.raises(ValueError, match=text):
        image_model.set_attribute(inputs(image_model), "Hat", latents)


def test_a_path_that_is_not_there_is_named(image_model):
    with pytest.raises(ImageError, match=r"absent\.png"):
        image_model.set_attribute(inputs(image_model), "Hat", "absent.png")


@pytest.mark.parametrize("text", ["yes", "on", "absent.png", "1,5,x", "", "a" * 5000, "\0"])
def test_text_that_is_no_value_is_answered_in_the_words_of_the_command_line(image_model, text):
    with pytest.raises(ImageError) as caught:
        image_model.set_attribute(inputs(image_model), "Hat", text)
    words = (
        "expected True, False, a number, coordinates such as 2.5,1.0, 'sample' or the name of a picture that is there"
    )
    assert str(caught.value) == f"value for 'Hat': {words}, got {text!r}"
    with pytest.raises(click.UsageError) as refused:
        _parse_change(f"Hat={text}")
    assert refused.value.message == f"Hat={text}: {words}, got {text!r}"


@pytest.mark.parametrize("text", ["True", "false", "FALSE", "0.25", "-1e-3", "2.5,1.0", "sample"])
def test_text_means_what_it_means_on_the_command_line(image_model, text):
    x = inputs(image_model)
    value = _parse_change(f"Hat={text}")[1]
    assert not isinstance(value, str) or value == "sample"
    expected = image_model.set_attribute(x, "Hat", value, generator=generator())
    assert torch.equal(image_model.set_attribute(x, "Hat", text, generator=generator()), expected)


@pytest.mark.parametrize("values", [{}, "Hat", ["Hat"], None, 3])
def test_an_edit_of_nothing_is_refused(image_model, values):
    text = "^values: expected at least one attribute with its value, such as {'Smiling': True}, got "
    for given in (inputs(image_model), Image.new("RGB", (20, 20))):
        with pytest.raises(ValueError, match=text):
            image_model.edit(given, values)
