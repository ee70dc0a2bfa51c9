from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from csvae_hub.editing import files
from csvae_hub.editing.files import PlanError, edit_files, plan_files, save_picture


class Inverting:
    """Stands in for a model: inverts pictures and counts how many it is given at once."""

    def __init__(self):
        self.batches = []

    def edit(self, pictures, values):
        self.batches.append(len(pictures))
        return [Image.fromarray(255 - np.array(picture)) for picture in pictures]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.JPG", "deep/c.png", ".hidden.png")):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(folder / name)
    (folder / "attributes.csv").write_text("file\n")
    return folder


def test_folder_keeps_its_relative_names(folder, tmp_path):
    out = tmp_path / "out"
    pairs = [(str(j.source.relative_to(folder)), str(j.target.relative_to(out))) for j in plan_files([folder], out)]
    assert pairs == [(name, name) for name in ("a.png", "b.JPG", "deep/c.png")]


@pytest.mark.parametrize(
    ("output", "target"), [("x.jpg", "x.jpg"), ("new", "new/a.png"), ("photos/deep", "photos/deep/a.png")]
)
def test_one_file_goes_to_a_picture_or_into_a_folder(folder, tmp_path, output, target):
    (job,) = plan_files([folder / "a.png"], tmp_path / output)
    assert job.target == tmp_path / target


def test_output_inside_the_input_folder_is_no_input_the_second_time(folder):
    jobs = plan_files([folder], folder / "deep")
    assert [job.source.name for job in jobs] == ["a.png", "b.JPG"]


def test_input_is_overwritten_only_where_it_is_named_as_output(folder):
    assert all(job.source == job.target for job in plan_files([folder], folder))
    assert plan_files([folder / "a.png"], folder / "a.png")[0].target == folder / "a.png"
    with pytest.raises(PlanError, match=r"a\.png is an input and would be overwritten: name another folder"):
        plan_files([folder / "a.png"], folder)


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        ([], "out", "expected at least one picture or folder, got none"),
        (
            ["photos", "photos/a.png"],
            "out",
            r"a\.png and .*a\.png would both be written to .*a\.png: edit them in two calls",
        ),
        (["photos/a.png", "photos/deep/c.png"], "x.png", "names one picture, but there are 2 inputs: name a folder"),
        (["photos"], "photos/a.png", "is a file: expected a folder"),
        (["empty"], "out", r"no pictures in .*empty: expected files that end in \.jpg"),
        (["nowhere"], "out", "no such file or folder: .*nowhere"),
        (
            ["photos/attributes.csv"],
            "out",
            r"attributes\.csv: can't write this kind: name an output that ends in \.jpg",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(folder, tmp_path, inputs, output, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match=message):
        plan_files([tmp_path / name for name in inputs], tmp_path / output)


def test_every_picture_is_edited_and_written(folder, tmp_path):
    model, done = Inverting(), []
    jobs = plan_files([folder], tmp_path / "out")
    assert edit_files(model, {}, jobs, batch_size=2, advance=done.append) == {}
    assert model.batches == [2, 1]
    assert sum(done) == 3
    assert Image.open(tmp_path / "out/deep/c.png").getpixel((0, 0)) == (253, 255, 255)


def test_broken_picture_is_named_and_the_rest_is_done(folder, tmp_path):
    (folder / "b.JPG").write_text("no picture")
    done = []
    failed = edit_files(Inverting(), {}, plan_files([folder], tmp_path / "out"), advance=done.append)
    assert [job.source.name for job in failed] == ["b.JPG"]
    assert "b.JPG: expected a picture file" in next(iter(failed.values()))
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.png", "c.png"]
    assert sum(done) == 3


def test_picture_that_cannot_be_written_is_named_and_leaves_nothing(folder, tmp_path):
    (tmp_path / "out/a.png").mkdir(parents=True)
    failed = edit_files(Inverting(), {}, plan_files([folder], tmp_path / "out"))
    (message,) = failed.values()
    assert "can't write" in message
    assert str(tmp_path / "out/a.png") in message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.JPG", "deep"]


def test_large_photos_make_small_batches(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BATCH_PIXELS", 16 * 16)
    model = Inverting()
    edit_files(model, {}, plan_files([folder], tmp_path / "out"))
    assert model.batches == [1, 1, 1]


@pytest.mark.parametrize("suffix", sorted(files.FORMATS))
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_kind_that_is_listed_can_be_written(tmp_path, suffix, mode):
    path = tmp_path / f"new/picture{suffix}"
    save_picture(Image.new(mode, (16, 8), 100), path)
    with Image.open(path) as written:
        assert written.size == (16, 8)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_colour_profile_is_kept(tmp_path, suffix):
    picture = Image.new("RGB", (16, 16))
    picture.info["icc_profile"] = b"a profile"
    save_picture(picture, tmp_path / f"picture{suffix}")
    with Image.open(tmp_path / f"picture{suffix}") as written:
        assert written.info["icc_profile"] == b"a profile"
