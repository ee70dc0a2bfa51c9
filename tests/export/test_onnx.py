"""`csvae_hub.onnx` edits pictures as the model does, without torch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import csvae_hub
from csvae_hub.errors import (
    ConfigError,
    CorruptWeightsError,
    ImageError,
    MissingExtraError,
    MissingWeightsError,
    UnknownAttributeError,
    UnsafeWeightsError,
    WeightsMismatchError,
    WeightsVersionError,
)
from csvae_hub.images import load_images
from csvae_hub.onnx import Code, OnnxModel

KINDS = ("every option, grey, a group", "z with places", "cond-vae")
WITHOUT_TORCH = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        kept = {"torch", "torchvision", "safetensors", "huggingface_hub", "einops", "click", "onnx", "onnxscript"}
        if name.partition(".")[0] in kept:
            raise ModuleNotFoundError(f"{name} is refused", name=name)

sys.meta_path.insert(0, Refuse())
from csvae_hub.onnx import OnnxModel
model = OnnxModel.from_folder(sys.argv[1])
model.set_attribute(sys.argv[2], "Happy", True).save(sys.argv[3])
print(sorted(model.predict_attributes(sys.argv[2])), model.decode(model.encode(sys.argv[2])).shape)
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module", params=KINDS)
def both(request, exported):
    """A model of each kind, and its export."""
    export = exported(request.param)
    return export.model, OnnxModel.from_folder(export.folder)


@pytest.fixture(scope="module")
def model(exported):
    """An export of a grey model with a group."""
    return OnnxModel.from_folder(exported("every option, grey, a group").folder)


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of an export, to be damaged."""
    return shutil.copytree(exported("every option, grey, a group").folder, tmp_path / "copy")


def picture(mode="RGB", size=(16, 16), seed=0):
    """A picture of smooth colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    return Image.fromarray(coarse, "RGBA").resize(size, Image.Resampling.BICUBIC).convert(mode)


def levels(a, b):
    """The largest difference of two pictures, in levels of 255."""
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max()


# -- the same as the model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1"])
@pytest.mark.parametrize("size", [(16, 16), (9, 30), (53, 40), (200, 180)])
def test_the_input_has_the_pixels_of_the_preprocessor(exported, mode, size):
    export = exported("z with places")
    given = picture(mode, size)
    expected = load_images(given, export.model.preprocessor).tensor.numpy()
    seen = []
    onnx = OnnxModel.from_folder(export.folder)
    onnx._run = lambda name, **inputs: seen.append(inputs["x"]) or {"z": None, "y": None}
    onnx.encode(given)
    assert seen[0].dtype == np.float32
    assert np.array_equal(seen[0], expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P"])
@pytest.mark.parametrize("size", [(16, 16), (9, 30), (53, 40), (200, 180)])
def test_an_edited_picture_is_the_model_s_within_a_level(both, mode, size):
    torch_model, onnx_model = both
    given = picture(mode, size)
    values = {"Happy": True, "Hat": 0.4}
    got, expected = onnx_model.edit(given, values), torch_model.edit(given, values)
    assert (got.mode, got.size) == (expected.mode, expected.size)
    assert levels(got, expected) <= 1
    assert (np.asarray(got) != np.asarray(expected)).mean() < 0.02  # where the last bit rounds the other way


def test_codes_pictures_and_probabilities_are_the_model_s(both):
    torch_model, onnx_model = both
    given = [picture(size=(20, 30), seed=seed) for seed in range(3)]
    code, expected = onnx_model.encode(given), torch_model.encode(given)
    for name in ("z", "y", *(["w"] if torch_model.name == "csvae" else [])):
        np.testing.assert_allclose(getattr(code, name), getattr(expected, name).detach(), rtol=1e-4, atol=1e-5)
    assert (code.w is None) == (torch_model.name != "csvae")
    np.testing.assert_allclose(onnx_model.decode(code), torch_model.decode(expected).detach(), rtol=1e-4, atol=1e-5)
    probabilities = onnx_model.predict_attributes(given)
    assert tuple(probabilities) == onnx_model.attributes == torch_model.attributes
    for name, expected in torch_model.predict_attributes(given).items():
        np.testing.assert_allclose(probabilities[name], expected.detach(), rtol=1e-4, atol=1e-6)


VALUES = [
    {"Hat": True},
    {"Hat": False, "Happy": 1.5},
    {"Happy": True},
    {"Happy": False},
    {"Happy": False, "Sad": True},
    {"Happy": True, "Sad": 0.3},
    {"Hat": "0.5"},
    {"Hat": "true"},
    {"Hat": np.float32(0.5)},
    {"Happy": np.bool_(True)},
    {"Happy": np.array(True)},
    {"Hat": 2},
]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_values_mean_what_they_mean_to_the_model(both, values):
    torch_model, onnx_model = both
    assert levels(onnx_model.edit(picture(), values), torch_model.edit(picture(), values)) <= 1


@pytest.mark.parametrize(
    "values",
    [
        {"Happy": True, "Sad": True},
        {"Happy": False, "Neutral": False, "Sad": False},
        {"Neutral": False},
        {"Hat": float("inf")},
        {"Hat": float("nan")},
    ],
    ids=str,
)
def test_it_refuses_what_the_model_refuses_in_the_same_words(exported, model, values):
    with pytest.raises(ValueError, match="expected|every member") as expected:
        exported("every option, grey, a group").model.edit(picture(), values)
    with pytest.raises(type(expected.value), match=re.escape(str(expected.value))):
        model.edit(picture(), values)


# -- kinds of pictures ------------------------------------------------------------------------------------------------


def test_what_comes_back_is_of_the_kind_that_came_in(model, tmp_path):
    given = picture(size=(20, 30))
    given.save(tmp_path / "picture.png")
    expected = model.set_attribute(given, "Hat")
    from_path = model.set_attribute(tmp_path / "picture.png", "Hat")
    assert isinstance(from_path, Image.Image)
    assert levels(from_path, expected) == 0
    array = model.set_attribute(np.array(given), "Hat")
    assert (type(array), array.dtype, array.shape) == (np.ndarray, np.uint8, (30, 20, 3))
    assert levels(array, expected) == 0
    assert model.set_attribute(np.array(given)[..., :1], "Hat").shape == (30, 20, 1)
    several = model.set_attribute([given, np.array(picture("L"))], "Hat")
    assert [type(one) for one in several] == [Image.Image, np.ndarray]
    assert several[1].shape == (16, 16)
    assert levels(several[0], expected) <= 1


def test_the_picture_outside_the_square_and_alpha_stay(model):
    given = picture("RGBA", (20, 30))
    edited = np.array(model.set_attribute(given, "Hat"))
    assert np.array_equal(edited[:5], np.array(given)[:5])
    assert np.array_equal(edited[..., 3], np.array(given)[..., 3])
    assert levels(edited[5:25], np.array(given)[5:25]) > 5


# -- without torch ----------------------------------------------------------------------------------------------------


def test_it_runs_where_torch_can_t_be_imported(exported, tmp_path):
    export = exported("every option, grey, a group")
    picture(size=(20, 30)).save(tmp_path / "in.png")
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH]
    run = subprocess.run(
        [*command, export.folder, tmp_path / "in.png", tmp_path / "out.png"],
        cwd=Path(csvae_hub.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "['Happy', 'Hat', 'Neutral', 'Sad'] (1, 1, 16, 16)\n"
    with Image.open(tmp_path / "out.png") as got:
        assert levels(got, export.model.set_attribute(picture(size=(20, 30)), "Happy", True)) <= 1


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [[0.5, 0.2], "sample", "0.5,0.2", np.zeros((8, 8, 3), np.uint8), None], ids=type)
def test_other_values_are_refused(model, given):
    with pytest.raises(
        ValueError, match=r"value for 'Hat': expected True, False or a number, got (?s:.*)AttributeModel"
    ):
        model.set_attribute(picture(), "Hat", given)


def test_a_text_that_is_no_value_is_named(model):
    with pytest.raises(ValueError, match="value for 'Hat': expected True, False, a number, .* got 'much'"):
        model.set_attribute(picture(), "Hat", "much")


def test_wrong_calls_are_answered(model):
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'Hatt': did you mean 'Hat'"):
        model.set_attribute(picture(), "Hatt")
    with pytest.raises(ValueError, match=r"expected at least one attribute with its value, such as \{'Happy': True\}"):
        model.edit(picture(), {})
    with pytest.raises(ImageError, match="at least one picture, got an empty list"):
        model.encode([])
    with pytest.raises(ImageError, match=r"pictures\[1\]: expected a path, a PIL image or a uint8 array"):
        model.encode([picture(), torch.zeros(3, 16, 16)])
    code = model.encode(picture())
    with pytest.raises(ValueError, match=r"^w: expected shape \(B, 4, 2\), got None$"):
        model.decode(Code(code.z, code.y))
    with pytest.raises(ValueError, match=r"^z: expected shape \(B, 8\), got \(8,\)$"):
        model.decode(Code(code.z[0], code.y, code.w))
    with pytest.raises(ValueError, match="the same number of pictures in each part of a code, got z .* w "):
        model.decode(Code(code.z, code.y, np.repeat(code.w, 2, axis=0)))


def test_a_code_at_the_class_means_decodes_to_the_edit(model):
    code, i = model.encode(picture()), model.attributes.index("Hat")
    assert code.w is not None
    for value in (False, True):
        moved = code.w.copy()
        moved[0, i] = model.description.class_means[i][value]
        wanted = model.set_attribute(picture("L"), "Hat", value)
        got = np.rint(model.decode(Code(code.z, code.y, moved))[0, 0] * 255)
        assert np.abs(got - np.array(wanted)).max() <= 1
    assert not np.array_equal(got, np.rint(model.decode(code)[0, 0] * 255))


def test_a_model_without_subspaces_has_no_class_means(exported):
    assert OnnxModel.from_folder(exported("cond-vae").folder).description.class_means == ()


def test_a_code_of_float64_is_decoded(model):
    code = model.encode(picture())
    assert np.array_equal(model.decode(Code(code.z.astype(float), code.y, code.w)), model.decode(code))


@pytest.mark.parametrize("folder", ["nothing", "."])
def test_a_folder_without_an_export_is_named(tmp_path, folder):
    (tmp_path / "photo.jpg").touch()
    got = "nothing" if folder == "nothing" else "photo.jpg"
    with pytest.raises(MissingWeightsError, match=rf"no onnx.json in .*: expected a folder that `csvae .* got {got}"):
        OnnxModel.from_folder(tmp_path / folder)


def test_damaged_exports_are_named(copy, exported, tmp_path):
    def edit():
        OnnxModel.from_folder(copy).set_attribute(picture(), "Hat")

    graph = (copy / "edit.onnx").read_bytes()
    (copy / "edit.onnx").write_bytes(graph[: len(graph) // 2])
    with pytest.raises(CorruptWeightsError, match="edit.onnx: expected a graph that onnxruntime reads, got "):
        edit()
    shutil.copy(exported("z with places").folder / "edit.onnx", copy)
    with pytest.raises(WeightsMismatchError, match=r"edit.onnx is not of the export that onnx.json describes"):
        edit()
    (copy / "edit.onnx").unlink()
    with pytest.raises(MissingWeightsError, match="no edit.onnx in .* got decoder.onnx, encoder.onnx, onnx.json"):
        edit()
    (tmp_path / "edit.onnx").write_bytes(graph)
    (copy / "edit.onnx").symlink_to(tmp_path / "edit.onnx")
    with pytest.raises(UnsafeWeightsError, match="out of its folder"):
        edit()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"format_version": 2},
            WeightsVersionError,
            "format_version 2 is newer than this library, which reads up to 1",
        ),
        ({"colour": 1}, ConfigError, "unknown key 'colour'"),
        ({"attributes": []}, ConfigError, "attributes: expected at least one name"),
        ({"graphs": {}}, ConfigError, "graphs: expected encoder, decoder and edit"),
        ({"class_means": [[[0, 0], [1, 1]]]}, ConfigError, "class_means: expected two points of w for each attribute"),
        ({"class_means": [[[0, 0], [1]]] * 4}, ConfigError, "class_means: expected two points of w"),
        ({"shape": [2, 16, 16]}, ConfigError, "shape: expected 1 or 3 channels first"),
        ({"shape": [1, 32, 32]}, ConfigError, "shape: expected sides of 16"),
    ],
)
def test_a_description_is_checked(copy, change, error, words):
    described = json.loads((copy / "onnx.json").read_text(encoding="utf-8"))
    (copy / "onnx.json").write_text(json.dumps({**described, **change}), encoding="utf-8")
    with pytest.raises(error, match=words):
        OnnxModel.from_folder(copy)


def test_a_missing_onnxruntime_is_named(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime is missing: pip install 'csvae-hub\[export\]'"):
        OnnxModel.from_folder(copy)
