"""The frame of faces that are not aligned, and the making of the weights that are trained on them."""

from __future__ import annotations

import csv
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from csvae_hub import CSVAE, hub
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.editing import YuNet
from csvae_hub.editing.alignment import aligned, template
from csvae_hub.images import CELEBA_LANDMARKS, Preprocessor
from csvae_hub.models import create_model

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
FRAME = json.loads((ROOT / "docs/results/expression-frame.json").read_text(encoding="utf-8"))
LANDMARKS = tuple(map(tuple, FRAME["landmarks"]))
PHOTO = ROOT / "examples/astronaut-512.png"
FOLDER = hub.PACKAGED / "expressions-48"


def module(name):
    """A script of benchmarks/, imported as it finds its neighbours."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(folder)
        for one in (name, "celeba"):
            sys.modules.pop(one, None)


@pytest.fixture(scope="module")
def script():
    yield from module("expressions_48")


@pytest.fixture(scope="module")
def frame():
    yield from module("expression_frame")


# -- the frame ----------------------------------------------------------------------------------------------------


def test_the_template_is_the_median_whatever_few_faces_do(frame):
    rng = np.random.default_rng(0)
    face = np.array([(15.0, 18), (33, 18), (24, 28), (17, 37), (31, 37)])
    faces = face + rng.normal(0, 0.5, (200, 5, 2)) + rng.normal(0, 2, (200, 1, 2))
    faces[:15] = rng.uniform(0, 48, (15, 5, 2))
    found = frame.measured(faces, 48)
    assert np.array(found["pixels"]) == pytest.approx(face, abs=0.5)
    low, high = np.array(found["quartiles"])
    assert (low < face).all()
    assert (high > face).all()
    assert template(Preprocessor(48, landmarks=tuple(map(tuple, found["landmarks"])))) == pytest.approx(face, abs=0.5)
    assert found["frame"]["eyes_apart"]["median"] == pytest.approx(18, abs=0.5)
    assert found["frame"]["turn_degrees"]["median"] < 3


def test_the_template_is_as_the_set_and_its_mirror_image(frame):
    faces = np.random.default_rng(0).normal(0, 3, (50, 5, 2)) + [(15.0, 18), (33, 18), (27, 28), (17, 37), (31, 39)]
    (x, y), (x2, y2), (nose, _), (x3, y3), (x4, y4) = frame.measured(faces, 48)["pixels"]
    assert (x + x2, nose, x3 + x4) == pytest.approx((48, 24, 48), abs=0.02)
    assert (y, y3) == pytest.approx((y2, y4), abs=0.02)
    mirrored = (faces * (-1, 1) + (48, 0))[:, [1, 0, 2, 4, 3]]
    assert frame.measured(mirrored, 48)["landmarks"] == frame.measured(faces, 48)["landmarks"]


def test_faces_are_found_in_small_grey_pictures_that_show_little_else(frame):
    preprocessor = Preprocessor(48, landmarks=LANDMARKS)
    with Image.open(PHOTO) as photo:
        picture = photo.convert("RGB")
        (face,) = YuNet().detect(picture)
        small = np.asarray(aligned(picture, face.landmarks, preprocessor).convert("L"))
    nothing = np.full((48, 48), 128, np.uint8)
    (found,) = frame.found(np.stack([nothing, small]), 6, 16)
    assert found == pytest.approx(template(preprocessor), abs=2.5)


def test_the_measured_frame_is_that_of_a_preprocessor_and_closer_than_celeba_s():
    assert FRAME["split"] == "train"
    assert FRAME["found"] > 0.8 * FRAME["pictures"] >= 200
    assert template(Preprocessor(48, landmarks=LANDMARKS)) == pytest.approx(np.array(FRAME["pixels"]), abs=0.03)
    apart = [points[1][0] - points[0][0] for points in (LANDMARKS, CELEBA_LANDMARKS)]
    assert apart[0] > 1.2 * apart[1]


# -- packaging ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of 16 pixels whose brightness and place of a spot depend on the expression."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "images").mkdir()
    with (folder / "attributes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "split", *NAMES])
        for split, count in (("train", 98), ("valid", 42), ("test", 42)):
            for i in range(count):
                pixels = rng.integers(60, 120, (16, 16))
                pixels[2 * (i % 7) : 2 * (i % 7) + 3] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{split}-{i}.png")
                table.writerow([f"{split}-{i}.png", split, *(int(i % 7 == j) for j in range(7))])
    return folder


def trained(folder, exclusive=(NAMES,), width=4):
    torch.manual_seed(0)
    config = ModelConfig(
        NAMES, shape=(1, 16, 16), z_dim=4, backbone=BackboneConfig(width=width, features=8), exclusive=exclusive
    )
    record = {"trainer": {"epochs": 2}, "examples": 98, "elapsed_seconds": 60.0}
    create_model(config).save_pretrained(folder, extra={"training.json": record})
    return folder


def run(script, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["expressions_48.py", *map(str, words), "--judge-epochs", "1"])
    script.main()


def test_weights_are_stored_measured_and_drawn(script, data, tmp_path, monkeypatch, capsys):
    source, weights, docs = trained(tmp_path / "run/model"), tmp_path / "weights", tmp_path / "docs"
    monkeypatch.setenv("CSVAE_HUB_CACHE", str(tmp_path / "cache"))
    places = ("--judges", tmp_path / "judges", "--weights", weights, "--docs", docs)
    run(script, monkeypatch, "--data", data, "--trained", source, "--split", "valid", *places)
    assert not weights.exists()
    assert not docs.exists()
    assert hub.read_json(source / "evaluation-valid.json")["pictures"] == {"train": 98, "valid": 42}
    capsys.readouterr()

    run(script, monkeypatch, "--data", data, "--trained", source, *places)
    printed = capsys.readouterr().out
    assert "training the judge" not in printed  # they were kept
    types = {tensor.dtype for tensor in hub.load_tensors(weights).values() if tensor.is_floating_point()}
    assert types == {torch.float16}
    model, whole = (CSVAE.from_pretrained(folder, device="cpu") for folder in (weights, source))
    assert (model.config.adversary, whole.config.adversary) == ((), (256, 256))
    assert torch.equal(model.backbone.pixels.weight, whole.backbone.pixels.weight.half().float())
    assert model.preprocessor == Preprocessor(16, landmarks=LANDMARKS)
    assert list(hub.read_json(weights / "training.json")) == ["run"]
    assert hub.read_json(weights / "evaluation.json")["photos"]["wished"] is not None

    found = hub.read_json(docs / "results/expressions-48.json")
    assert found["pictures"] == {"train": 98, "test": 42}
    assert found["group"]["members"] == list(NAMES)
    judge = found["group"]["judges"]["resnet"]
    assert judge["own_rate"] == pytest.approx(judge["own_accuracy"])  # six of each
    assert np.array(judge["edits"]).shape == np.array(judge["own_confusion"]).shape == (7, 7)
    figures = (docs / "results/expressions-48.md").read_text(encoding="utf-8")
    assert figures in printed
    assert figures.count("| Surprise | ") == 4  # two matrices of two judges

    card = ModelCard.load(weights / "README.md")
    assert card.data.license_name == "fer2013-research"
    assert 'model.set_attribute("face.jpg", "Happy", True)' in card.text
    assert f"measured on\n{FRAME['found']} faces" in card.text
    assert "| run | 98 | 2 |" in card.text
    for path, least in ((weights / "samples.png", (7 * 32, 7 * 32)), (docs / "images/expressions.png", (600, 600))):
        with Image.open(path) as picture:
            assert picture.mode in ("L", "RGB")
            assert picture.size >= least


def test_other_models_and_larger_ones_are_refused_before_anything_is_written(script, tmp_path):
    plain = trained(tmp_path / "plain", exclusive=())
    with pytest.raises(SystemExit, match="expected one group of expressions with Happy, got"):
        script.package(plain, tmp_path / "weights")
    large = trained(tmp_path / "large", width=200)
    with pytest.raises(SystemExit, match="expected at most 4000000 bytes as float16, got"):
        script.package(large, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("record", [{"trainer": {"epochs": 2}, "examples": 9}, {"batches": 5, "device": "a GPU"}])
def test_the_record_of_a_training_gets_its_name_and_those_of_several_stay(script, tmp_path, record):
    folder = tmp_path / "long" / "model"
    folder.mkdir(parents=True)
    hub.write_json(folder / "training.json", record)
    assert script.history(folder) == {"long": record}
    hub.write_json(folder / "training.json", {"first": record, "then": record})
    assert script.history(folder) == {"first": record, "then": record}


@pytest.mark.parametrize(
    ("below", "sad", "mlp", "met"),
    [
        (0.04, 0.41, 0.35, [True, True, True, True]),
        (0.06, 0.39, 0.36, [False, False, True, False]),
        (None, None, 0.35, [None, None, True, True]),
    ],
)
def test_aims_are_met_missed_or_not_known(script, below, sad, mlp, met):
    judges = {name: {"to": {"Happy": 0.9, "Sad": share}} for name, share in (("one", sad), ("other", 0.5))}
    group = {"below_own": below, "judges": judges, "z": {"logistic": 0.3, "mlp": mlp, "base_rate": 0.25}}
    found = script.aims(group)
    assert [aim["met"] for aim in found] == met
    if sad is not None:
        assert found[1]["aim"].endswith("the worst (Sad, judge one)")
        assert found[1]["measured"] == sad


def test_a_matrix_has_a_row_for_each_member_and_dashes_for_none(script):
    text = script.matrix(["Happy", "Sad"], [[0.514, 0.0], [None, 1.0]])
    assert text.splitlines() == [
        "| % | Happy | Sad |",
        "| --- | --- | --- |",
        "| Happy | 51 | 0 |",
        "| Sad | – | 100 |",
    ]


# -- the page -----------------------------------------------------------------------------------------------------


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/expressions.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 3
    monkeypatch.chdir(tmp_path)
    if not FOLDER.is_dir():
        torch.manual_seed(0)
        backbone = BackboneConfig(width=4, features=8)
        config = ModelConfig(NAMES, shape=(1, 48, 48), z_dim=4, backbone=backbone, exclusive=(NAMES,))
        model = create_model(config)
        with torch.no_grad():
            model.class_means += torch.randn(model.class_means.shape)
            model.q_y[-1].bias[NAMES.index("Happy")] += 20
        model.save_pretrained("expressions-48")
    with Image.open(PHOTO) as picture:
        photo = picture.convert("RGB")
    photo.save("photo.jpg", quality=95)
    (face,) = YuNet().detect(photo)
    aligned(photo, face.landmarks, Preprocessor(48, landmarks=LANDMARKS)).save("face.png")
    found = {}
    exec(compile("\n".join(examples), "docs/expressions.md", "exec"), found)
    assert capsys.readouterr().out.endswith("got Happy and Sad: choose one\n")
    assert found["seen"] == "Happy"
    assert sum(found["chances"].values()).item() == pytest.approx(1, abs=1e-5)
    assert found["faces"].shape == (1, 1, 48, 48)
    assert torch.equal(found["sad"].z, found["latents"].z)
    assert torch.equal(
        found["calm"].w[0, NAMES.index("Neutral")], found["model"].class_means[NAMES.index("Neutral"), 1]
    )
    assert (found["broad"].w != found["happy"].w).sum() == 2
    with Image.open("surprise.jpg") as edited:
        assert edited.size == photo.size
        assert edited.mode == "RGB"


def test_the_figures_of_the_frame_on_the_page_are_those_that_were_measured():
    text = (ROOT / "docs/expressions.md").read_text(encoding="utf-8")
    assert f"{FRAME['pictures']} enlarged pictures" in text
    assert re.search(rf"\n?{FRAME['found']} faces", text)
    points = [f"({x:.1f}, {y:.1f})" for x, y in FRAME["pixels"]]
    assert f"| FER2013 | {points[0]}, {points[1]} | {points[2]} | {points[3]}, {points[4]} | " in text
    apart, turn = FRAME["frame"]["eyes_apart"], FRAME["frame"]["turn_degrees"]
    assert f"the eyes are {apart['lowest']:.0f} to {apart['highest']:.0f} pixels" in text
    assert f"more than {turn['median']} degrees" in text
