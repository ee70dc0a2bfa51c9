"""Arguments that cannot be meant, and where an edited photo goes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["out.eps", "edited.jgp", "out.PSD", "new/out.xcf"])
def test_one_photo_is_not_written_in_a_kind_that_can_not_be_written(run, weights, folder, name):
    arguments = ("edit", "photos/0.png", "Smiling=1", "--aligned", "--model", weights, "-o", name)
    result = run(*arguments, code=2)
    assert f"{name}: can't write this kind: name an output that ends in .jpg, .jpeg, " in result.stderr
    assert not Path(name).exists()
    Path(name).mkdir(parents=True)
    run(*arguments)
    assert [path.name for path in Path(name).iterdir()] == ["0.png"]


@pytest.mark.parametrize("inputs", [["photos"], ["photos/0.png", "photos/2.png"]])
def test_many_photos_are_not_written_to_a_file(run, weights, folder, inputs):
    result = run("edit", *inputs, "Smiling=1", "--aligned", "--model", weights, "-o", "out.gif", code=2)
    assert "name a folder without an ending, or one that exists" in result.stderr
    assert not Path("out.gif").exists()


def test_a_number_at_the_end_of_a_folder_is_no_ending(run, weights, folder):
    for i, inputs in enumerate((["photos/0.png"], ["photos/0.png", "photos/2.png"])):
        name = f"run-{i}.5"
        run("edit", *inputs, "Smiling=1", "--aligned", "--model", weights, "-o", name)
        assert len(list(Path(name).iterdir())) == len(inputs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("-", "-: expected the name of a file; standard streams are not supported"),
        ("https://example.org/a=b.png", "expected the name of a file, got a web address: download the picture first"),
        ("S3://bucket/a.png", "expected the name of a file, got a web address"),
    ],
)
def test_standard_streams_and_web_addresses_are_refused(run, folder, name, message):
    for arguments in (
        ("edit", name, "Smiling=1", "-o", "out.png"),
        ("edit", "photos/0.png", f"Smiling={name}", "-o", "out.png"),
        ("edit", "photos/0.png", "Smiling=1", "-o", name),
        ("sweep", name, "Smiling", "-o", "out.png"),
        ("sweep", "photos/0.png", "Smiling", "-o", name),
        ("map", name, "Smiling", "-o", "out.png"),
        ("map", "photos/0.png", "Smiling", "-o", name),
        ("eval", "model", "--data", "faces", "-o", name),
        ("train", "-o", name),
        ("download", "alice/hats", "-o", name),
    ):
        assert message in run(*arguments, code=2).stderr
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_a_face_that_is_not_there_is_answered_with_those_that_are(run, weights, photos):
    command = ("--model", weights, "-o", "out.png", "--face", 3)
    for photo, choices in (("one.png", "choose 0"), ("two.jpg", "choose 0 (the largest) to 1")):
        assert choices in run("edit", f"photos/{photo}", "Smiling=1", *command, code=1).stderr
        assert choices in run("sweep", f"photos/{photo}", "Smiling", *command, code=1).stderr


@pytest.mark.parametrize("empty", ["input", "output"])
def test_a_variable_that_was_not_set_does_not_mean_the_current_folder(run, folder, empty):
    inputs, output = ("", "out") if empty == "input" else ("photos", "")
    message = "empty name: expected the name of a file"
    assert message in run("edit", inputs, "Smiling=1", "-o", output, code=2).stderr
    assert [path.name for path in Path().iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "photos/0.png", "Smiling", "--from", "nan", "-o", "s.png"], "--from nan --to 1.0: expected finite"),
        (["sweep", "photos/0.png", "Smiling", "--to", "1e300", "-o", "s.png"], "expected finite numbers such as 0"),
        (["edit", "photos", "Smiling=1", "--device", "meta", "-o", "out"], "--device meta: expected cpu, cuda"),
        (["edit", "photos", "Smiling=1", "--face", "9" * 5000, "-o", "out"], "expected largest, all or a number"),
        (["eval", "model", "--data", "synthetic-faces", "--data-seed", -1, "-o", "e.json"], "'--data-seed'"),
        (["eval", "model", "--data", "synthetic-faces", "--seed", 2**64, "-o", "e.json"], "'--seed'"),
        (["download", "alice/hats", "--force", "--offline"], "--force with --offline"),
        (["download", "../hats", "--offline"], "Repo id must"),
    ],
)
def test_values_that_can_not_be_meant_are_wrong_use(run, folder, arguments, message):
    assert message in run(*arguments, code=2).stderr
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_two_members_of_a_group_are_refused_before_any_photo_is_opened(run, make_model, photos):
    folder = make_model(exclusive=(("Smiling", "Eyeglasses"),))
    result = run("edit", photos, "Smiling=True", "Eyeglasses=True", "-o", "out", "--model", folder, code=2)
    assert "expected one of Smiling, Eyeglasses to be present, got Smiling and Eyeglasses" in result.stderr
    assert not Path("out").exists()
    assert "exactly one Smiling, Eyeglasses" in run("info", folder).stdout
