"""A model saved and loaded is the same model, and a folder that can't be one is answered with its own error."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from csvae_hub import hub
from csvae_hub.config import ModelConfig
from csvae_hub.errors import (
    ConfigError,
    CorruptWeightsError,
    MissingWeightsError,
    UnknownModelError,
    WeightsMismatchError,
    WeightsVersionError,
)
from csvae_hub.models import CSVAE


@pytest.fixture
def folder(models, tmp_path):
    models["image, every option"].save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_state(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_saved_and_loaded_models_give_the_same_pixels_to_the_bit(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    loaded = CSVAE.from_pretrained(tmp_path / "model", device="cpu")
    x = torch.rand(3, *model.config.shape)
    assert loaded.config == model.config
    assert loaded.preprocessor == model.preprocessor
    assert not any(module.training for module in loaded.modules())
    assert {k: (v.dtype, v.shape) for k, v in loaded.state_dict().items()} == {
        k: (v.dtype, v.shape) for k, v in model.state_dict().items()
    }
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    for name in ("z", "w", "y"):
        assert torch.equal(getattr(loaded.encode(x), name), getattr(model.encode(x), name))
    assert torch.equal(loaded.set_attribute(x, "Hat"), model.set_attribute(x, "Hat"))
    assert torch.equal(loaded.reconstruct(x), model.reconstruct(x))


def test_float16_halves_the_file_and_loads_as_float32(model, tmp_path):
    for name, dtype in (("whole", None), ("half", torch.float16)):
        model.save_pretrained(tmp_path / name, dtype=dtype)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.8 * sizes[1]
    loaded = CSVAE.from_pretrained(tmp_path / "half", device="cpu")
    assert loaded.dtype == torch.float32
    x = torch.rand(3, *model.config.shape)
    torch.testing.assert_close(loaded.reconstruct(x), model.reconstruct(x), rtol=0.03, atol=0.03)
    assert model.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.float16", torch.float64])
def test_every_floating_type_edits(folder, models, dtype):
    loaded = CSVAE.from_pretrained(folder, device="cpu", dtype=dtype)
    x = torch.rand(3, 3, 16, 16)
    assert str(loaded.dtype).removeprefix("torch.") == str(dtype).removeprefix("torch.")
    edited = loaded.set_attribute(x, "Hat")
    assert edited.dtype == torch.float32
    torch.testing.assert_close(edited, models["image, every option"].set_attribute(x, "Hat"), rtol=0.1, atol=0.1)
    assert loaded.adversary(loaded.encode(x).z).mean.isfinite().all()
    assert loaded.sample(2).isfinite().all()


@pytest.mark.parametrize("dtype", ["flaot32", "int64", torch.int8, "nn", 3])
def test_what_is_no_floating_type_is_refused(folder, dtype):
    with pytest.raises(ValueError, match="dtype: expected a floating type such as 'float32' or 'bfloat16', got"):
        CSVAE.from_pretrained(folder, device="cpu", dtype=dtype)


def test_config_and_preprocessor_travel_with_the_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    assert list(config)[:3] == ["format_version", "csvae_hub_version", "attributes"]
    assert config["attributes"] == ["Smiling", "Hat", "Young"]
    assert json.loads((folder / "preprocessor.json").read_text())["size"] == 16


def test_further_files_are_written_beside(models, tmp_path):
    models["image"].save_pretrained(tmp_path / "model", extra={"training.json": {"seed": 3}})
    assert hub.read_json(tmp_path / "model" / "training.json") == {"seed": 3}


def test_building_consumes_no_random_numbers_when_loading(folder):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    CSVAE.from_pretrained(folder, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


# -- folders that can't be used -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_truncated_weights(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptWeightsError, match="is truncated or corrupt: expected a whole safetensors file"):
        CSVAE.from_pretrained(folder)


def test_weights_with_nan(folder):
    rewrite_state(folder, lambda state: state["q_w.bias"].fill_(torch.nan))
    with pytest.raises(CorruptWeightsError, match=r"holds NaN or infinity in 'q_w\.bias'"):
        CSVAE.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(MissingWeightsError, match=f"^no {name} in "):
        CSVAE.from_pretrained(folder)


def test_no_such_folder_and_no_such_name():
    with pytest.raises(UnknownModelError, match="^unknown model 'no-such-model':"):
        CSVAE.from_pretrained("no-such-model")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"zdim": 3}, "unknown key 'zdim': did you mean 'z_dim'?"),
        ({"z_dim": True}, "z_dim: expected int, got True"),
        ({"erase": 0}, "erase: expected bool, got 0"),
        ({"attributes": "Hat"}, "attributes: expected a list, got 'Hat'"),
        ({"model": "vae"}, "model: expected 'csvae' for CSVAE, got 'vae'"),
        ({"backbone": {"name": "cnov"}}, "unknown backbone 'cnov': did you mean 'conv'? Known: conv, mlp, resnet"),
        ({"shape": [3, 32, 32]}, "preprocessor.size: expected the 32 pixels of the model's shape, got 16"),
    ],
)
def test_a_config_that_can_t_be(folder, changes, text):
    rewrite(folder / "config.json", **changes)
    with pytest.raises(ConfigError) as caught:
        CSVAE.from_pretrained(folder)
    assert str(caught.value).startswith(text)


def test_a_preprocessor_that_can_t_be(folder):
    rewrite(folder / "preprocessor.json", sise=16)
    with pytest.raises(ConfigError, match="^unknown key 'sise': did you mean 'size'\\?"):
        CSVAE.from_pretrained(folder)


def test_a_newer_format(folder):
    rewrite(folder / "config.json", format_version=99)
    with pytest.raises(WeightsVersionError, match="format_version 99 is newer than this library"):
        CSVAE.from_pretrained(folder)


def test_wrong_shapes_are_named(folder):
    rewrite(folder / "config.json", z_dim=9)
    with pytest.raises(
        WeightsMismatchError, match=r"expected shape \(.*\) by config\.json, got \(.*\) in model\.safet"
    ):
        CSVAE.from_pretrained(folder)


def test_weights_of_a_config_from_a_stranger_are_compared_before_memory_is_taken(folder):
    rewrite(folder / "config.json", z_dim=4096, w_dim=4096, adversary_width=4096)
    with pytest.raises(WeightsMismatchError, match="Use the files of one model"):
        CSVAE.from_pretrained(folder)


@pytest.mark.parametrize("strict", [True, False])
def test_missing_tensors_are_always_refused(folder, strict):
    rewrite_state(folder, lambda state: state.pop("q_w.bias"))
    with pytest.raises(WeightsMismatchError, match=r"1 tensors missing \(q_w\.bias\), 0 unknown \(\)\. Use the files"):
        CSVAE.from_pretrained(folder, strict=strict)


def test_further_tensors_are_refused_when_strict(folder):
    rewrite_state(folder, lambda state: state.update(extra=torch.ones(1)))
    with pytest.raises(WeightsMismatchError, match=r"0 tensors missing \(\), 1 unknown \(extra\)"):
        CSVAE.from_pretrained(folder)
    assert isinstance(CSVAE.from_pretrained(folder, strict=False).config, ModelConfig)
