"""Weights folders that an earlier version wrote are read by this one and give the same pixels: docs/format.md."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from csvae_hub import hub
from csvae_hub.config import FORMAT_VERSION
from csvae_hub.models import CSVAE, AttributeModel, list_models

DATA = Path(__file__).parent / "data"
FOLDERS = sorted(path.parent for path in DATA.glob("format-*/*/config.json"))
MAKE = runpy.run_path(str(DATA / "make.py"))

each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=[f"{path.parent.name}/{path.name}" for path in FOLDERS])


@each_folder
def test_it_gives_the_pixels_that_it_gave(folder):
    model = AttributeModel.from_pretrained(folder, device="cpu")
    expected = load_file(folder / "expected.safetensors")
    given = MAKE["outputs"](model, expected["x"])
    assert given.keys() == expected.keys()
    for name, tensor in given.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


@each_folder
def test_its_edit_can_be_told_from_its_reconstruction(folder):
    expected = load_file(folder / "expected.safetensors")
    assert (expected["edited"] - expected["decoded"]).abs().max() > 0.05
    assert expected["decoded"].std() > 0.05


@each_folder
def test_saved_again_it_is_the_same(folder, tmp_path):
    model = AttributeModel.from_pretrained(folder, device="cpu")
    model.save_pretrained(tmp_path)
    again = AttributeModel.from_pretrained(tmp_path, device="cpu")
    assert (again.config, again.preprocessor) == (model.config, model.preprocessor)
    before = hub.upgraded(hub.read_json(folder / hub.CONFIG))
    after = hub.read_json(tmp_path / hub.CONFIG)
    assert {name: after[name] for name in before if name not in ("csvae_hub_version", "backbone")} == {
        name: value for name, value in before.items() if name not in ("csvae_hub_version", "backbone")
    }
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_every_format_has_folders_here(version):
    folders = [folder for folder in FOLDERS if folder.parent.name == f"format-{version}"]
    assert folders
    assert {hub.read_json(folder / hub.CONFIG)["format_version"] for folder in folders} == {version}


def test_every_model_has_a_folder_here():
    kept = {hub.read_json(folder / hub.CONFIG)["model"] for folder in FOLDERS}
    assert kept >= set(list_models())
    assert CSVAE.name in kept


def test_what_makes_them_leaves_a_folder_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    script = tmp_path / "data/make.py"
    script.write_text((DATA / "make.py").read_text(encoding="utf-8"), encoding="utf-8")
    for name in MAKE["kinds"]():
        (tmp_path / f"data/format-{FORMAT_VERSION}" / name).mkdir(parents=True)
    monkeypatch.setattr("sys.argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_weights_without_the_classes_scales_draw_from_the_prior():
    folder = DATA / "format-1" / "csvae"
    assert "class_scales" not in load_file(folder / hub.WEIGHTS)
    model = AttributeModel.from_pretrained(folder, device="cpu")
    assert not model.class_scales.any()
    p_w, y = model.prior_w(torch.ones(1, len(model.attributes))), torch.ones(4000, len(model.attributes))
    torch.testing.assert_close(model.prior_latents(4000, y, None).w.mean(0), p_w.mean[0], rtol=0, atol=0.1)
