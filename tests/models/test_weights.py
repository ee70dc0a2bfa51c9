"""A model saved and loaded is the same model, and a folder that can't be one is answered with its own error."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from csvae_hub import hub
from csvae_hub.config import ModelConfig
from csvae_hub.errors import (
    ConfigError,
    CorruptWeightsError,
    HubOfflineError,
    MissingWeightsError,
    NonFiniteWeightsError,
    UnknownModelError,
    WeightsMismatchError,
    WeightsVersionError,
)
from csvae_hub.images import CELEBA_LANDMARKS
from csvae_hub.models import CSVAE, VAE, AttributeModel
from csvae_hub.models.pretrained import _Bound


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
        ({"backbone": {"name": "cnov"}}, "unknown backbone 'cnov': did you mean 'conv'? Known: conv, mlp, resnet"),
        ({"shape": [3, 32, 32]}, "preprocessor.size: expected the 32 pixels of the model's shape, got 16"),
    ],
)
def test_a_config_that_can_t_be(folder, changes, text):
    rewrite(folder / "config.json", **changes)
    with pytest.raises(ConfigError) as caught:
        CSVAE.from_pretrained(folder)
    assert str(caught.value).startswith(text)


def test_a_class_takes_its_own_weights_only(folder):
    rewrite(folder / "config.json", model="vae")
    with pytest.raises(ConfigError) as caught:
        CSVAE.from_pretrained(folder)
    assert str(caught.value) == (
        f"{folder}: model: expected csvae, got 'vae': Use VAE.from_pretrained, or AttributeModel's."
    )
    with pytest.raises(ConfigError, match="expected vae, got 'csvae': Use CSVAE.from_pretrained, or AttributeModel's"):
        VAE.from_pretrained("celeba-64")
    rewrite(folder / "config.json", model="csvea")
    with pytest.raises(ConfigError, match="expected csvae, got 'csvea': did you mean 'csvae'"):
        CSVAE.from_pretrained(folder)
    rewrite(folder / "config.json", model="gan")
    with pytest.raises(
        ConfigError, match=r"model: expected cond-vae or .* or vae, got 'gan': Use the class of that name"
    ):
        AttributeModel.from_pretrained(folder)


def test_a_preprocessor_that_can_t_be(folder):
    rewrite(folder / "preprocessor.json", sise=16)
    with pytest.raises(ConfigError, match="^unknown key 'sise': did you mean 'size'\\?"):
        CSVAE.from_pretrained(folder)


@pytest.mark.parametrize(
    "landmarks",
    [
        [[70.0, 111.0]] * 5,
        [[0.0, 0.0]] * 5,
        [[1e300, 1e300], *CELEBA_LANDMARKS[1:]],
        [[-1e300, 111.3], *CELEBA_LANDMARKS[1:]],
        [[x / 1e300, y / 1e300] for x, y in CELEBA_LANDMARKS],
        [[x / 20, y / 20] for x, y in CELEBA_LANDMARKS],
        [[x * 2, y * 2] for x, y in CELEBA_LANDMARKS],
        [[x, 111.3] for x, _ in CELEBA_LANDMARKS],
        [[178 - x, y] for x, y in CELEBA_LANDMARKS],
        [[x, 218 - y] for x, y in CELEBA_LANDMARKS],
        [[y, x] for x, y in CELEBA_LANDMARKS],
        CELEBA_LANDMARKS[::-1],
    ],
)
def test_landmarks_that_no_face_has_are_refused_on_load(folder, landmarks):
    rewrite(folder / "preprocessor.json", landmarks=landmarks)
    with pytest.raises(ConfigError, match=r"^landmarks: expected those of an upright face in \(178, 218\) pixels, got"):
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


@pytest.mark.parametrize(
    "changes",
    [
        {"z_dim": 4096, "w_dim": 4096, "adversary": [4096, 4096]},
        {"backbone": {"name": "resnet", "width": 4096, "depth": 64, "features": 4096}},
        {"backbone": {"name": "resnet", "width": 1, "depth": 64, "features": 1}},
        {"shape": [4096], "backbone": {"name": "mlp", "width": 4096, "depth": 64}},
        {"attributes": [str(i) for i in range(1024)], "z_dim": 4096, "erase": True},
    ],
)
def test_a_model_larger_than_its_weights_is_given_up_before_memory_is_taken(folder, changes):
    rewrite(folder / "config.json", **changes)
    before = time.process_time(), resident()
    with pytest.raises(WeightsMismatchError, match=r"got a larger one by config\.json\. Use the files of one model$"):
        CSVAE.from_pretrained(folder)
    assert time.process_time() - before[0] < 2
    assert resident() - before[1] < 50_000_000


@pytest.mark.parametrize(
    ("changes", "empty", "words"),
    [
        (
            {"backbone": {"name": "conv", "width": 1, "depth": 4096}},
            60_000,
            "backbone.depth: expected 0 to 64, got 4096",
        ),
        ({}, 60_000, r"it holds 600\d\d tensors: expected at most 20000"),
        (
            {"attributes": [str(i) for i in range(4096)], "priors": {str(i): {} for i in range(4096)}},
            19_000,
            "attributes: expected at most 1024 names, got 4096",
        ),
        (
            {"attributes": [str(i) for i in range(1024)], "priors": {str(i): {} for i in range(1, 1025)}},
            0,
            "priors: expected attributes of this model .* got '1024'",
        ),
    ],
)
def test_many_small_things_take_no_time(folder, changes, empty, words):
    rewrite(folder / "config.json", **changes)
    rewrite_state(folder, lambda state: state.update({str(i): torch.zeros(0) for i in range(empty)}))
    before = time.process_time()
    with pytest.raises((ConfigError, CorruptWeightsError), match=words):
        CSVAE.from_pretrained(folder)
    assert time.process_time() - before < 2


def resident():
    """Bytes of memory that this process has, or 0 where the system doesn't say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.is_file() else 0


def test_tensors_of_another_kind_are_named(folder):
    rewrite_state(folder, lambda state: state.update({"q_w.bias": state["q_w.bias"].int()}))
    with pytest.raises(
        WeightsMismatchError, match=r"q_w\.bias: expected a floating type by config\.json, got torch\.int32"
    ):
        CSVAE.from_pretrained(folder)


def test_numbers_too_large_for_the_type_asked_for(folder):
    rewrite_state(folder, lambda state: state["q_w.bias"].fill_(1e6))
    assert CSVAE.from_pretrained(folder, device="cpu").dtype == torch.float32
    with pytest.raises(
        NonFiniteWeightsError, match=r"holds numbers too large for torch\.float16 in 'q_w\.bias': ask for"
    ):
        CSVAE.from_pretrained(folder, device="cpu", dtype="float16")


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


# -- modules that wait for their weights --------------------------------------------------------------------------


class Odd(nn.Module):
    """Keeps numbers beside its state, and computes with its first weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4) * 0.5)
        self.linear = nn.Linear(4, 2)
        with torch.no_grad():
            self.linear.weight /= self.linear.weight.norm().item()
        self.register_buffer("steps", torch.arange(5.0) * 2, persistent=False)
        self.full = torch.full((2, 2), 7.0)


def test_a_bound_leaves_a_module_that_fits_as_it_is():
    torch.manual_seed(0)
    plain = Odd()
    torch.manual_seed(0)
    with _Bound({"a": torch.ones(22)}):
        odd = Odd()
    assert torch.equal(odd.steps, torch.arange(5.0) * 2)
    assert torch.equal(odd.full, torch.full((2, 2), 7.0))
    assert all(torch.equal(tensor, odd.state_dict()[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("size", [torch.Size([300_000]), (300_000,), [300, 1000], 300_000])
@pytest.mark.parametrize("make", [torch.empty, torch.zeros, torch.ones, torch.randn, lambda s: torch.full(s, 1.0)])
def test_every_way_to_take_memory_is_counted(make, size):
    if isinstance(size, int):
        size = (size,)
    with (
        pytest.raises(WeightsMismatchError, match="expected a model of 10 numbers in 1 tensors"),
        _Bound({"a": torch.ones(10)}),
    ):
        make(size)


def test_many_small_tensors_are_counted():
    with pytest.raises(WeightsMismatchError, match="in 1 tensors"), _Bound({"a": torch.ones(10)}):
        nn.Sequential(*(nn.Linear(1, 1) for _ in range(1000)))


def test_loaded_tensors_are_the_model_s_own_and_trainable(folder):
    model = CSVAE.from_pretrained(folder, device="cpu")
    assert all(parameter.is_leaf for parameter in model.parameters())
    model.reconstruct(torch.rand(1, 3, 16, 16))
    (folder / "model.safetensors").write_bytes(b"")
    model.train()
    out = model(torch.rand(4, 3, 16, 16), torch.ones(4, 3))
    out.p_x.mean.sum().backward()
    assert model.backbone.pixels.weight.grad.isfinite().all()


@pytest.mark.parametrize("device", ["cuda", "cuda:7", torch.device("cuda"), "toaster", "", 3.5])
def test_a_device_that_this_machine_lacks_is_refused_before_weights_are_read(device):
    if str(device).startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ValueError, match=r"^device: expected cpu, cuda or cuda:N, one that this machine has, got '"):
        AttributeModel.from_pretrained("no such name", device=device)


def test_nothing_is_pushed_while_the_network_is_switched_off(models, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubOfflineError, match="^HF_HUB_OFFLINE is set, so nothing can be pushed to me/hats: unset it"):
        models["image"].push_to_hub("me/hats")
