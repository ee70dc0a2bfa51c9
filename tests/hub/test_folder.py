import json
import os
import subprocess
import sys

import pytest
import torch

from csvae_hub import hub
from csvae_hub.config import ModelConfig
from csvae_hub.errors import (
    ConfigError,
    CorruptWeightsError,
    HubOfflineError,
    MissingWeightsError,
    NonFiniteWeightsError,
    UnknownModelError,
    UnsafeWeightsError,
    WeightsError,
    WeightsVersionError,
)
from csvae_hub.models import AttributeModel

CONFIG = {"model": "csvae", "attributes": ["Smiling", "Über"]}


def some_state():
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(8, 3, 3, 3).to(memory_format=torch.channels_last),
        "a.half": torch.randn(5).half(),
        "a.steps": torch.tensor(7),
    }


@pytest.fixture
def folder(tmp_path):
    hub.save_weights(tmp_path / "model", CONFIG, some_state(), {"preprocessor.json": {"size": 64}})
    return tmp_path / "model"


def rewrite_config(folder, **changes):
    config = {**json.loads((folder / "config.json").read_text("utf-8")), **changes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_what_is_saved_is_loaded_to_the_bit(folder):
    config, state = hub.load_weights(folder)
    assert config == {"format_version": 1, **CONFIG}
    assert state.keys() == some_state().keys()
    for name, tensor in some_state().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    assert hub.read_json(folder / "preprocessor.json") == {"size": 64}


def test_a_folder_holds_these_files_and_nothing_temporary(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "preprocessor.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    assert (folder / "config.json").read_text("utf-8").startswith('{\n  "format_version": 1,')
    readable = (folder / "config.json").stat().st_mode
    assert (folder / "model.safetensors").stat().st_mode == readable


def test_metadata_says_that_the_tensors_are_torch_s(folder):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensors_that_share_memory_are_saved(tmp_path):
    tied = torch.randn(4, 4)
    hub.save_weights(tmp_path / "model", CONFIG, {"a": tied, "b": tied, "c": tied.T})
    state = hub.load_weights(tmp_path / "model")[1]
    assert torch.equal(state["a"], state["b"])
    assert torch.equal(state["c"], tied.T)


def test_saving_again_replaces_the_weights_and_keeps_other_files(folder):
    (folder / "README.md").write_text("a card")
    hub.save_weights(folder, CONFIG, {"b": torch.ones(1)})
    assert hub.load_weights(folder)[1].keys() == {"b"}
    assert (folder / "README.md").read_text() == "a card"


def test_a_save_that_fails_leaves_the_old_weights(folder):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match="JSON"):
        hub.save_weights(folder, CONFIG, {"b": torch.ones(1)}, {"evaluation.json": {"mse": float("nan")}})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_saving_to_a_file_s_name_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(WeightsError, match=r"taken is a file: expected the name of a folder"):
        hub.save_weights(tmp_path / "taken", CONFIG, {})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named_beside_what_is_there(folder, name):
    (folder / name).unlink()
    with pytest.raises(MissingWeightsError) as caught:
        hub.load_weights(folder)
    assert str(caught.value).startswith(
        f"no {name} in {folder}: expected a weights folder as save_pretrained writes it"
    )
    assert "preprocessor.json" in str(caught.value)


def test_a_missing_folder_has_nothing(tmp_path):
    with pytest.raises(MissingWeightsError, match="got nothing"):
        hub.load_weights(tmp_path / "absent")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    size = path.stat().st_size
    with pytest.raises(CorruptWeightsError) as caught:
        hub.load_weights(folder)
    text = str(caught.value)
    assert text.startswith(f"{path} is truncated or corrupt: expected a whole safetensors file, got {size} bytes")
    assert text.endswith("Copy or download it again")


def test_a_pickle_is_not_read(folder):
    torch.save({"a": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(CorruptWeightsError, match="expected a whole safetensors file"):
        hub.load_weights(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    state = some_state()
    state["a.half"][3] = value
    hub.save_weights(tmp_path / "model", CONFIG, state)
    with pytest.raises(NonFiniteWeightsError, match=r"holds NaN or infinity in 'a.half': expected finite numbers"):
        hub.load_weights(tmp_path / "model")


def test_the_other_tensors_with_nan_are_counted(tmp_path):
    hub.save_weights(tmp_path / "model", CONFIG, {name: torch.tensor([torch.nan]) for name in "abc"})
    with pytest.raises(CorruptWeightsError, match=r"in 'a' and 2 other tensors: expected"):
        hub.load_weights(tmp_path / "model")


def test_a_newer_format_asks_for_a_newer_library(folder):
    rewrite_config(folder, format_version=2)
    with pytest.raises(WeightsVersionError) as caught:
        hub.load_weights(folder)
    assert str(caught.value) == (
        f"{folder / 'config.json'}: format_version 2 is newer than this library, which reads up to 1:"
        " pip install --upgrade csvae-hub"
    )


@pytest.mark.parametrize("version", [None, "1", 0, True, 1.0])
def test_a_format_version_that_is_none(folder, version):
    rewrite_config(folder, format_version=version)
    with pytest.raises(CorruptWeightsError, match=r"format_version: expected a whole number from 1 to 1, got"):
        hub.load_weights(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"format_version": 1', "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[1]", r"expected a JSON object \{…\}, got list"),
    ],
)
def test_a_config_that_is_no_json_object(folder, content, words):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CorruptWeightsError, match=words):
        hub.load_weights(folder)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    monkeypatch.setattr("csvae_hub.hub.folder.PACKAGED", tmp_path / "weights")
    hub.save_weights(tmp_path / "weights" / "faces-64", CONFIG, {})
    (tmp_path / "weights" / "not-a-model").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "weights"


def test_packaged_models_are_the_folders_with_a_config(packaged):
    assert hub.list_packaged() == ["faces-64"]


def test_without_packaged_models_the_list_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr("csvae_hub.hub.folder.PACKAGED", tmp_path / "absent")
    assert hub.list_packaged() == []


def test_a_name_is_a_folder_first_and_a_packaged_model_second(packaged):
    assert hub.resolve("faces-64") == packaged / "faces-64"
    (packaged.parent / "work" / "faces-64").mkdir()
    assert hub.resolve("faces-64").absolute() == packaged.parent / "work" / "faces-64"


def test_local_dir_asks_for_a_folder(packaged):
    assert hub.resolve(f"local-dir:{packaged}") == packaged
    with pytest.raises(UnknownModelError, match=r"^no such folder: faces-64\. Without 'local-dir:'"):
        hub.resolve("local-dir:faces-64")


def test_paths_are_taken_as_they_are(packaged):
    assert hub.resolve(packaged) == packaged


@pytest.mark.parametrize("name", ["Faces_64", "../weights/absent", "not-a-model"])
def test_an_unknown_model_lists_what_there_is(packaged, name):
    with pytest.raises(UnknownModelError) as caught:
        hub.resolve(name)
    text = str(caught.value)
    assert text.startswith(f"unknown model {name!r}:")
    assert text.endswith("expected an existing folder, a packaged model (faces-64) or a Hub repo such as user/name")
    assert ("did you mean 'faces-64'?" in text) == (name == "Faces_64")


def test_a_file_is_no_weights_folder(folder):
    with pytest.raises(UnknownModelError, match=r"config\.json is a file: expected the folder that holds config\.json"):
        hub.resolve(folder / "config.json")


@pytest.mark.parametrize("name", ["faces-64", "local-dir:{packaged}"])
def test_what_is_no_hub_repo_has_no_revisions_and_needs_no_token(packaged, name):
    name = name.format(packaged=packaged)
    assert hub.resolve(name, token="hf_x", cache_dir="x", force_download=True, local_files_only=True).is_dir()
    with pytest.raises(
        ValueError, match="^revision: expected None, since .* is a folder and has no revisions, got 'v1'"
    ):
        hub.resolve(name, revision="v1")


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_weights_are_not_loaded_to_a_device_without_numbers(device):
    with pytest.raises(
        ValueError, match=r"^device: expected one that holds numbers, such as 'cpu' or 'cuda', got 'meta'"
    ):
        AttributeModel.from_pretrained("celeba-64", device=device)


@pytest.mark.parametrize("depth", ["old", "new"])
def test_the_config_of_a_model_is_read_without_its_versions(tmp_path, depth):
    said = {"attributes": ["Smiling"], "csvae_hub_version": "0.1.0"}
    said |= {"adversary_depth": 1, "adversary_width": 8} if depth == "old" else {"adversary": [8], "correction": True}
    hub.save_weights(tmp_path, said, some_state())
    assert hub.read_model_config(tmp_path) == ModelConfig(("Smiling",), adversary=(8,), correction=True)
    hub.save_weights(tmp_path, {**said, "extra": 1}, some_state())
    with pytest.raises(ConfigError, match="^unknown key 'extra'"):
        hub.read_model_config(tmp_path)


@pytest.mark.parametrize("name", ["hf-hub:faces-64", "hf-hub:/etc/passwd", "hf-hub:a/b/c", "hf-hub:", "hf-hub:../a"])
def test_what_can_t_be_a_hub_repo(packaged, name):
    with pytest.raises(UnknownModelError, match=f"^'{name}': expected a Hub repo's id after 'hf-hub:', such as"):
        hub.resolve(name)


def test_a_hub_repo_is_asked_for_last_and_only_then_is_its_client_imported(packaged, monkeypatch):
    asked = []

    def download(repo_id, **options):
        asked.append((repo_id, options))
        raise HubOfflineError("no network here")

    monkeypatch.setattr("csvae_hub.hub.download.download", download)
    for name, words in (
        ("me/faces", "'me/faces' is no folder and no packaged model, so the Hub was asked: "),
        ("hf-hub:me/faces", ""),
    ):
        with pytest.raises(HubOfflineError) as caught:
            hub.resolve(name, revision="v1", token="hf_x", cache_dir="here", local_files_only=True)
        assert str(caught.value) == f"{words}no network here"
    options = {"token": "hf_x", "cache_dir": "here", "force_download": False, "local_files_only": True}
    assert asked == [("me/faces", {"revision": "v1", **options})] * 2
    (packaged.parent / "work/me/faces").mkdir(parents=True)
    assert hub.resolve("me/faces").is_dir()
    assert len(asked) == 2


def test_packaged_models_and_folders_load_without_the_hub_s_client():
    code = (
        "import sys\nfrom csvae_hub import CSVAE, hub\nmodel = CSVAE.from_pretrained('celeba-64', device='cpu')\n"
        "CSVAE.from_pretrained(hub.PACKAGED / 'celeba-64', device='cpu')\n"
        "print(*sorted({'huggingface_hub', 'yaml', 'sympy', 'torch._dynamo', 'torchvision'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(folder, name):
    kept = folder / "kept"
    (folder / name).rename(kept)
    (folder / name).symlink_to("kept")
    hub.load_weights(folder)
    kept.rename(folder.parent / "outside")
    (folder / name).unlink()
    (folder / name).symlink_to(folder.parent / "outside")
    with pytest.raises(
        UnsafeWeightsError, match=rf"{name} is a symbolic link to .*outside, out of its folder: expected"
    ):
        hub.load_weights(folder)


@pytest.mark.parametrize("name", ["../training.json", "a/b.json", "/tmp/x.json", "..", "a\\b.json"])
def test_further_files_stay_in_the_folder(tmp_path, name):
    with pytest.raises(UnsafeWeightsError, match="expected the plain name of a file, without folders"):
        hub.save_weights(tmp_path / "model", CONFIG, {}, {name: {}})
    assert not (tmp_path / "model").exists()


def test_json_is_utf_8_ends_in_a_newline_and_replaces(tmp_path):
    path = tmp_path / "a.json"
    hub.write_json(path, {"name": "old"})
    hub.write_json(path, {"name": "Ünï"})
    assert path.read_bytes() == '{\n  "name": "Ünï"\n}\n'.encode()
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208


def test_an_error_while_replacing_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), hub.replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# -- configs of older versions ----------------------------------------------------------------------------------------

OLD = {"model": "csvae", "z_dim": 8, "adversary_width": 16, "adversary_depth": 3}
NEW = {"model": "csvae", "correction": False, "adversary": [64, 32]}


def test_a_config_of_version_0_1_gets_what_it_left_out():
    before = dict(OLD)
    assert hub.upgraded(OLD) == {"model": "csvae", "z_dim": 8, "correction": True, "adversary": [16, 16, 16]}
    assert before == OLD
    assert hub.upgraded({"z_dim": 8}) == {"z_dim": 8, "correction": True, "adversary": [256, 256]}
    assert hub.upgraded({**OLD, "adversary_depth": 0})["adversary"] == []


def test_a_config_of_today_is_left_as_it_is():
    assert hub.upgraded(NEW) == NEW
    assert hub.upgraded({**NEW, "adversary_width": 16}) == {**NEW, "adversary_width": 16}  # an unknown field then


@pytest.mark.parametrize("depth", [-1, 9, 10**9, True, "2", 2.0, None, [2]])
def test_a_depth_from_a_stranger_can_t_take_memory(depth):
    with pytest.raises(ConfigError, match=r"^adversary_depth: expected 0 to 8, got "):
        hub.upgraded({**OLD, "adversary_depth": depth})


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "字" * 83 + ".json"])
def test_the_longest_names_can_be_replaced(tmp_path, name):
    with hub.replacing(tmp_path / name) as temporary:
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_replacing_keeps_the_mode_and_follows_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere/real.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    with hub.replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600


def test_temporaries_of_killed_processes_are_cleared(tmp_path):
    old, young = tmp_path / ".csvae-old.tmp", tmp_path / ".csvae-young.tmp"
    for path in (old, young):
        path.write_text("left over")
    os.utime(old, (0, 0))
    with hub.replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert not old.exists()
    assert young.exists()
