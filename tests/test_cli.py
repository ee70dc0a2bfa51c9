from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from csvae_hub import cli
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import CSVAE

ATTRIBUTES = ("Eyeglasses", "Smiling")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny untrained model of 16-pixel pictures."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = BackboneConfig(width=4, depth=1, features=8)
        CSVAE(ModelConfig(ATTRIBUTES, shape=(3, 16, 16), z_dim=4, backbone=backbone)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten pictures in photos/, which lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos/deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{'deep/' if i % 2 else ''}{i}.png")
    return Path("photos")


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def pixels(path):
    return np.array(Image.open(path))


def test_help_does_not_import_torch():
    program = (
        "import sys\nfrom csvae_hub.cli import main\n"
        "try: main(['edit', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'PIL', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "NAME=VALUE" in shown
    assert shown.splitlines()[-1] == "[]"


def test_edit_does_what_the_model_does(weights, folder):
    result = run("edit", folder, "Smiling=0.5", "Eyeglasses=True", "-o", "out", "--model", weights, "--batch-size", 4)
    assert "10 of 10 written to out" in result.stdout
    model = CSVAE.from_pretrained(weights, device="cpu")
    for source in sorted(folder.rglob("*.png")):
        expected = model.edit(source, {"Smiling": 0.5, "Eyeglasses": True})
        written = pixels(Path("out") / source.relative_to(folder)).astype(int)
        assert np.abs(written - np.array(expected).astype(int)).max() <= 1  # batches of other sizes round otherwise


@pytest.mark.parametrize("value", ["True", "false", "-0.5", "1e0", "2.5,1.0", "sample", "photos/0.png"])
def test_every_kind_of_value_is_taken(weights, folder, value):
    run("edit", "photos/2.png", f"Smiling={value}", "-o", "edited.png", "--model", weights)
    assert pixels("edited.png").shape == (20, 24, 3)


def test_value_can_be_another_picture(weights, folder):
    run("edit", "photos/2.png", "Smiling=photos/0.png", "-o", "edited.png", "--model", weights)
    model = CSVAE.from_pretrained(weights, device="cpu")
    expected = model.set_attribute("photos/2.png", "Smiling", model.encode("photos/0.png"))
    assert np.array_equal(pixels("edited.png"), np.array(expected))


def test_input_with_an_equals_sign_in_its_name_is_an_input(weights, folder):
    Path("photos/0.png").rename("a=b.png")
    run("edit", "a=b.png", "Smiling=1", "-o", "edited.png", "--model", weights)
    assert Path("edited.png").is_file()


def test_one_broken_picture_of_ten_is_named_and_nine_are_done(weights, folder):
    Path("photos/4.png").write_text("this is no picture")
    result = run("edit", folder, "Smiling=1", "-o", "out", "--model", weights, code=1)
    assert "9 of 10 written" in result.stdout
    assert "failed: photos/4.png: expected a picture file" in result.stderr
    assert len(list(Path("out").rglob("*.png"))) == 9


def test_json_report_names_inputs_outputs_and_failures(weights, folder):
    Path("photos/4.png").write_text("this is no picture")
    result = run("edit", folder, "Smiling=1", "-o", "out", "--model", weights, "--json", code=1)
    report = json.loads(result.stdout)
    assert len(report["edited"]) == 9
    assert report["edited"][0] == {"input": "photos/0.png", "output": "out/0.png"}
    assert [failure["input"] for failure in report["failed"]] == ["photos/4.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "nothing to change: expected at least one NAME=VALUE"),
        (["Smiling=1"], "expected at least one picture or folder, got none"),
        (["photos", "nowhere", "Smiling=1"], "no such file or folder: nowhere"),
        (["photos", "Smilling=1"], "unknown attribute 'Smilling': did you mean 'Smiling'?"),
        (["photos", "Smiling=1", "Smiling=0"], "'Smiling' is given twice"),
        (["photos", "Smiling=very"], "Smiling=very: expected True, False, a number"),
        (["photos", "Smiling=nan"], "expected finite numbers, got 'nan'"),
        (["photos", "Smiling=1,2,3"], "Smiling: expected 2 coordinates, got 3"),
        (["photos", "Smiling=1", "--device", "abacus"], "--device abacus: expected cpu, cuda or cuda:N"),
        (["photos", "Smiling=1", "--model", "nowhere"], "unknown model 'nowhere'"),
    ],
)
def test_wrong_use_ends_with_2_says_why_and_writes_nothing(weights, folder, arguments, message):
    model = [] if "--model" in arguments else ["--model", weights]
    result = run("edit", *arguments, "-o", "out", *model, code=2)
    assert message in result.stderr
    assert not Path("out").exists()


def test_broken_weights_end_with_1(weights, folder):
    Path("broken").mkdir()
    for file in weights.iterdir():
        content = file.read_bytes()
        (Path("broken") / file.name).write_bytes(content[:100] if file.suffix == ".safetensors" else content)
    result = run("edit", folder, "Smiling=1", "-o", "out", "--model", "broken", code=1)
    assert "model.safetensors is truncated or corrupt" in result.stderr


def test_plain_lines_are_printed_where_there_is_no_terminal(capsys):
    with cli._progress(10, "edited", seconds=0) as advance:
        advance(4)
        advance(6)
    assert capsys.readouterr().err == "edited 4 of 10\nedited 10 of 10\n"


def test_sweep_draws_a_strip(weights, folder):
    run(
        "sweep",
        "photos/0.png",
        "Smiling",
        "--from",
        "-1",
        "--to",
        "2",
        "--steps",
        5,
        "-o",
        "strip.png",
        "--model",
        weights,
    )
    height, width, _ = pixels("strip.png").shape
    assert height == 16
    assert width >= 5 * 16
    assert not np.array_equal(pixels("strip.png")[:, :16], pixels("strip.png")[:, -16:])


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        ("Smilling", "strip.png", "did you mean 'Smiling'?"),
        ("Smiling", "strip.doc", "-o strip.doc: expected a picture's name"),
        ("Smiling", "photos/0.png", "is the input: give another name"),
    ],
)
def test_sweep_refuses_what_cannot_be_meant(weights, folder, name, output, message):
    result = run("sweep", "photos/0.png", name, "-o", output, "--model", weights, code=2)
    assert message in result.stderr


def test_list_and_info_name_what_a_model_knows(weights, monkeypatch):
    monkeypatch.setattr("csvae_hub.hub.PACKAGED", weights.parent)
    assert run("list").stdout == "tiny  csvae  3×16×16  Eyeglasses, Smiling\n"
    assert json.loads(run("list", "--json").stdout)["tiny"]["attributes"] == list(ATTRIBUTES)
    shown = run("info", "tiny").stdout
    assert "attributes  Eyeglasses, Smiling" in shown
    assert "latents     z 4, w 2 × 2" in shown
    assert json.loads(run("info", weights, "--json").stdout)["config"]["z_dim"] == 4


def test_models_of_vectors_are_not_for_pictures(folder):
    backbone = BackboneConfig(name="mlp", width=4, depth=1, features=4)
    CSVAE(ModelConfig(("Above",), shape=(3,), z_dim=2, backbone=backbone)).save_pretrained("roll")
    result = run("edit", folder, "Above=1", "-o", "out", "--model", "roll", code=2)
    assert "roll is a model of vectors of 3 numbers, not of pictures" in result.stderr


def test_train_follows_a_recipe_with_overrides(tmp_path):
    overrides = ["--set", "trainer.epochs=1", "--set", "data.examples=200"]
    result = run("train", "--recipe", "swiss-roll", "-o", tmp_path / "run", *overrides)
    assert f"trained: {tmp_path / 'run/model'}" in result.stdout
    assert CSVAE.from_pretrained(tmp_path / "run/model").attributes == ("Above",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "trainer.epochs"], "--set trainer.epochs: expected KEY=VALUE, such as trainer.epochs=3"),
        (["--set", "trainer.epoch=3"], "did you mean 'epochs'?"),
        (["--recipe", "swiss-rol"], "did you mean 'swiss-roll'?"),
    ],
)
def test_train_refuses_unknown_names(tmp_path, arguments, message):
    result = run("train", "--recipe", "swiss-roll", "-o", tmp_path / "run", *arguments, code=2)
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_eval_writes_the_figures_and_prints_a_table(weights, tmp_path, monkeypatch):
    called = {}

    def load_data(spec, *, attributes, split, image_size, examples, seed):
        called[split] = (spec, attributes, image_size)
        return split

    def evaluate(model, train_data, valid_data, test_data, judge, *, seed, progress):
        progress("training the judge")
        called["evaluate"] = (model.attributes, train_data, valid_data, test_data, judge, seed)
        return {"seed": seed}

    monkeypatch.setattr("csvae_hub.data.load_data", load_data)
    monkeypatch.setattr("csvae_hub.evaluation.evaluate", evaluate)
    monkeypatch.setattr("csvae_hub.evaluation.markdown_table", lambda result: f"| seed | {result['seed']} |")
    output = tmp_path / "new/evaluation.json"
    result = run("eval", weights, "--data", "faces", "--seed", 3, "-o", output)
    assert called["test"] == ("faces", ATTRIBUTES, 16)
    assert called["evaluate"] == (ATTRIBUTES, "train", "valid", "test", None, 3)
    assert json.loads(output.read_text()) == {"seed": 3}
    assert "| seed | 3 |" in result.stdout
    assert "training the judge" in result.stderr


def test_eval_names_data_that_is_not_there(weights, tmp_path):
    result = run("eval", weights, "--data", tmp_path / "nowhere", "-o", tmp_path / "evaluation.json", code=1)
    assert "nowhere: expected swiss-roll, synthetic-faces, a folder with images/ and attributes.csv" in result.stderr


def test_env_names_versions():
    shown = run("env").stdout
    assert f"torch {torch.__version__.partition('+')[0]}" in shown
    assert "python 3." in shown
