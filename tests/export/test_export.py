"""The files of an export, and that a failed one leaves none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch

import csvae_hub
from csvae_hub.cli.export import FORMATS as OFFERED
from csvae_hub.config import BackboneConfig
from csvae_hub.errors import ConfigError, ExportError, MissingExtraError, WeightsError
from csvae_hub.export import export_model, formats, graphs, parity
from csvae_hub.hub import read_json
from csvae_hub.images import Preprocessor

HERE = str(Path(csvae_hub.__file__).parents[1]).encode()


@pytest.fixture
def quick(monkeypatch):
    """The name of a format whose graphs are the modules themselves."""
    written = []

    def write(module, inputs, graph, metadata):
        written.append(module)
        return json.dumps(metadata).encode()

    def read(content, graph):
        def run(inputs):
            outputs = written[-1](*inputs)
            return list(outputs) if isinstance(outputs, tuple) else [outputs]

        return run

    monkeypatch.setitem(formats.FORMATS, "quick", formats.Format(".quick", (), write, read))
    return "quick"


# -- the files --------------------------------------------------------------------------------------------------------


def test_each_graph_of_onnx_says_what_it_is(exported):
    export = exported("every option, grey, a group")
    described = read_json(export.folder / "onnx.json")
    assert [path.name for path in export.done.files] == ["encoder.onnx", "decoder.onnx", "edit.onnx", "onnx.json"]
    assert sorted(export.folder.iterdir()) == sorted(export.done.files)
    assert described["license"] == {"license": "other", "license_name": "mine"}
    assert described["csvae_hub_version"] == csvae_hub.__version__
    for name, names in described["graphs"].items():
        path = export.folder / f"{name}.onnx"
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path)
        metadata = {prop.key: prop.value for prop in model.metadata_props}
        assert {key: its if isinstance(its, str) else json.dumps(its) for key, its in described.items()} == metadata
        assert json.loads(metadata["attributes"]) == ["Happy", "Neutral", "Hat", "Sad"]
        assert json.loads(metadata["exclusive"]) == [["Happy", "Neutral", "Sad"]]
        assert json.loads(metadata["preprocessor"])["size"] == 16
        assert "likelihood" not in metadata
        assert [(one.domain, one.version) for one in model.opset_import] == [("", formats.OPSET)]
        assert [one.name for one in model.graph.input] == names["inputs"]
        assert [one.name for one in model.graph.output] == names["outputs"]
        assert HERE not in path.read_bytes()


def test_a_program_of_torch_says_what_it_is(exported):
    export = exported("vae")
    assert [path.name for path in export.done.files] == ["encoder.pt2", "decoder.pt2", "edit.pt2", "torch.json"]
    extra = {"metadata.json": ""}
    torch.export.load(export.folder / "edit.pt2", extra_files=extra)
    metadata = json.loads(extra["metadata.json"])
    assert metadata["model"] == "vae"
    assert json.loads(metadata["license"]) == {"license": "other", "license_name": "mine"}
    assert HERE not in (export.folder / "edit.pt2").read_bytes()


@pytest.mark.parametrize("kind", ["z with places", "with a flow"])
def test_the_differences_are_told_and_small(exported, kind):
    differences = exported(kind).done.differences
    assert set(differences) == {"encoder", "decoder", "edit"}
    assert all(0 <= value < 1e-4 for value in differences.values())


def test_the_caller_s_model_stays_as_it_was(build, quick, tmp_path):
    model = build("with a flow").train().double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_model(model, tmp_path, format=quick)
    assert model.training
    assert model.adversary_net is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_preprocessor_and_licence_travel_and_the_weights_are_told_apart(build, quick, tmp_path):
    landmarks = ((60.0, 100.0), (118.0, 100.0), (89.0, 130.0), (70.0, 160.0), (108.0, 160.0))
    digests = set()
    for shift in (0.0, 0.01):
        model = build()
        model.preprocessor = Preprocessor(16, landmarks=landmarks)
        with torch.no_grad():
            next(model.parameters()).add_(shift)
        export_model(model, tmp_path, format=quick, license={"license": "mit"} if shift else None)
        described = read_json(tmp_path / "quick.json")
        assert described["preprocessor"]["landmarks"] == [list(point) for point in landmarks]
        assert described["license"] == ({"license": "mit"} if shift else {})
        digests.add(described["weights"])
    assert len(digests) == 2


# -- errors -----------------------------------------------------------------------------------------------------------


def test_an_unknown_format_is_answered_with_those_there_are(build, tmp_path):
    with pytest.raises(ValueError, match=r"^format: expected 'onnx' or 'torch', got 'onx': did you mean 'onnx'\?$"):
        export_model(build(), tmp_path / "new", format="onx")
    assert tuple(formats.FORMATS) == OFFERED


def test_a_model_of_vectors_is_refused(build, tmp_path):
    model = build(shape=(5,), backbone=BackboneConfig("mlp", width=8, features=16))
    with pytest.raises(ConfigError, match=r"a model of pictures: models of vectors aren't exported, got \(5,\)"):
        export_model(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_of_an_unknown_kind_is_refused(build, tmp_path, monkeypatch):
    monkeypatch.delitem(graphs.KINDS, "vae")
    with pytest.raises(ExportError, match="model: expected one of csvae, cond-vae, cond-vae-info, got 'vae'"):
        export_model(build(), tmp_path / "new")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_named_before_any_work(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is missing: pip install 'csvae-hub\[export\]'"):
        export_model("no such model", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_folder_s_place_is_refused(build, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WeightsError, match="file is a file: expected the name of a folder"):
        export_model(build(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_graph_that_differs_is_not_written(build, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "LIMIT", -1.0)
    with pytest.raises(ExportError, match="encoder: expected outputs within 1/255 of the model's own, got a differe"):
        export_model(build(), tmp_path / "new", format=quick)
    assert not (tmp_path / "new").exists()


def test_a_difference_is_seen_in_every_batch():
    batches, module = [(torch.zeros(2, 3),), (torch.zeros(1, 3),)], torch.nn.Identity()
    assert parity.difference("edit", module, lambda x: [x[0] + 0.003], batches) == pytest.approx(0.003)
    for change, words in ((1.0, "a difference of 1"), (float("nan"), "a difference of inf")):
        with pytest.raises(ExportError, match=words):
            parity.difference("edit", module, lambda x, c=change: [x[0] + c * (len(x[0]) == 1)], batches)
    with pytest.raises(ExportError, match=r"shape \(2, 3\), got \(1, 3\)"):
        parity.difference("edit", module, lambda x: [x[0][:1]], batches)


def test_the_pictures_of_the_check_are_drawn_and_random_in_batches_of_several_sizes(build):
    batches = parity.examples(build("every option, grey, a group"))
    assert sorted({len(batch["x"]) for batch in batches}) == [1, 3, 4]
    values = torch.cat([batch["values"] for batch in batches])
    assert 0.1 < values.isnan().float().mean().item() < 0.6


def test_a_graph_that_torch_can_t_export_is_named(build, tmp_path):
    model = build()
    model.backbone.encode = lambda x, encode=model.backbone.encode: encode(x) * float(x.sum())
    with pytest.raises(ExportError, match="encoder: expected a graph that torch can export, got "):
        export_model(model, tmp_path / "new", format="torch")
    assert not (tmp_path / "new").exists()


def test_a_failed_write_leaves_the_files_that_were_there(build, quick, tmp_path, monkeypatch):
    export_model(build(), tmp_path, format=quick)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write, written = Path.write_bytes, []

    def full(path, content):
        if len(written) == 2:
            raise OSError("no space left")
        written.append(path)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        export_model(build("cond-vae"), tmp_path, format=quick)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
