from __future__ import annotations

import struct
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.editing import Face, FaceEditor, batches, files
from csvae_hub.editing.files import Outcome, PlanError, edit_files, left_out, plan_files, save_picture
from csvae_hub.models import CSVAE


class Inverting:
    """Stands in for a model: inverts pictures and counts how many it is given at once."""

    def __init__(self):
        self.batches = []

    def edit(self, pictures, values):
        self.batches.append(len(pictures))
        return [Image.fromarray(255 - np.array(picture)) for picture in pictures]


class Spots:
    """Stands in for a detector: a photo's first pixel says how many faces it has, beside one that is cut off."""

    landmarks = np.array([(24, 30), (40, 30), (32, 40), (26, 48), (38, 48)], dtype=float)

    def detect(self, image):
        count = image.getpixel((0, 0))[0] // 10
        cut = Face((-20, 0, 10, 60), self.landmarks - (40, 0), 0.9)
        return [Face((10, 10, 54 - i, 60), self.landmarks, 0.9) for i in range(count)] + [cut]


def failures(outcomes):
    return {job.source.name: outcome.error for job, outcome in outcomes.items() if outcome.error}


@pytest.fixture
def editor():
    config = ModelConfig(("A",), shape=(3, 16, 16), z_dim=4, backbone=BackboneConfig(width=4, depth=1, features=8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FaceEditor(CSVAE(config).eval(), Spots())


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
        (["photos"], "new.png", r"new\.png is a file: expected a folder, since the input .*photos is one"),
        (["photos/a.png"], "out.jgp", r"out\.jgp: can't write this kind: name an output that ends in \.jpg"),
        (["photos/a.png"], "out.eps", r"out\.eps: can't write this kind"),
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
    assert edit_files(model, {}, jobs, batch_size=2, advance=done.append) == dict.fromkeys(jobs, Outcome())
    assert model.batches == [2, 1]
    assert sum(done) == 3
    assert Image.open(tmp_path / "out/deep/c.png").getpixel((0, 0)) == (253, 255, 255)


def test_broken_picture_is_named_and_the_rest_is_done(folder, tmp_path):
    (folder / "b.JPG").write_text("no picture")
    done = []
    outcomes = edit_files(Inverting(), {}, plan_files([folder], tmp_path / "out"), advance=done.append)
    assert [(job.source.name, bool(outcome.error)) for job, outcome in outcomes.items()] == [
        ("a.png", False),
        ("b.JPG", True),
        ("c.png", False),
    ]
    assert "b.JPG: expected a picture file" in failures(outcomes)["b.JPG"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.png", "c.png"]
    assert sum(done) == 3


def test_picture_that_cannot_be_written_is_named_and_leaves_nothing(folder, tmp_path):
    (tmp_path / "out/a.png").mkdir(parents=True)
    (message,) = failures(edit_files(Inverting(), {}, plan_files([folder], tmp_path / "out"))).values()
    assert "can't write" in message
    assert str(tmp_path / "out/a.png") in message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.JPG", "deep"]


def test_large_photos_make_small_batches(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BATCH_PIXELS", 16 * 16)
    model = Inverting()
    edit_files(model, {}, plan_files([folder], tmp_path / "out"))
    assert model.batches == [1, 1, 1]


def test_a_megapixel_makes_a_batch_of_photos(tmp_path):
    source = tmp_path / "photo.png"
    Image.new("L", (1000, 500)).save(source)
    jobs = [files.Job(source, tmp_path / f"out/{i}.png", source) for i in range(9)]
    model = Inverting()
    assert not failures(edit_files(model, {}, jobs, mark=False))
    assert model.batches == [2, 2, 2, 2, 1]


def drawn_photos(folder, counts):
    folder.mkdir()
    for i, count in enumerate(counts):
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        noise[0, 0] = 10 * count
        Image.fromarray(noise).save(folder / f"{i}.png")
    return plan_files([folder], folder.with_name("out"))


def test_the_faces_of_a_batch_go_through_the_model_together(tmp_path, editor, monkeypatch):
    jobs = drawn_photos(tmp_path / "in", [2, 0, 1, 3, 1])
    encoded, encode = [], editor.model.encode
    monkeypatch.setattr(editor.model, "encode", lambda x: encoded.append(len(x)) or encode(x))
    outcomes = edit_files(editor, {"A": 2.0}, jobs, face="all", batch_size=3)
    assert encoded == [6, 1]
    assert [outcome.faces for outcome in outcomes.values()] == [2, None, 1, 3, 1]
    assert [len(outcome.skipped) for outcome in outcomes.values()] == [1, 0, 1, 1, 1]
    assert list(failures(outcomes)) == ["1.png"]
    assert failures(outcomes)["1.png"].startswith(f"{jobs[1].source}: the face is cut by the border")


@pytest.mark.parametrize("face", ["largest", "all"])
def test_a_photo_is_edited_alike_in_any_batch_and_by_the_editor_itself(tmp_path, editor, face):
    jobs = drawn_photos(tmp_path / "in", [2, 1, 3, 1])
    edit_files(editor, {"A": 2.0}, jobs, face=face, batch_size=3)
    for job in jobs:
        alone = np.array(editor.edit(job.source, {"A": 2.0}, face=face)).astype(int)
        with Image.open(job.target) as written, Image.open(job.source) as source:
            assert np.abs(np.array(written).astype(int) - alone).max() <= 1  # batches of other sizes round otherwise
            assert not np.array_equal(np.array(written), np.array(source))


def test_one_face_a_file_is_all_that_fits_without_the_photo(editor):
    with pytest.raises(ValueError, match="are one a file: name the largest or one by its number"):
        edit_files(editor, {"A": 1.0}, [], face="all", keep_size=False)


def test_memory_is_bounded_by_what_is_in_work(tmp_path, editor, monkeypatch):
    """However many files there are, few are open at once."""
    jobs = drawn_photos(tmp_path / "in", [1] * 24)
    seen, most, prepare = [], [], batches.BatchEditor.prepare

    def watched(self, picture):
        aligned = prepare(self, picture)
        seen.append(weakref.ref(aligned.picture))
        most.append(sum(one() is not None for one in seen))
        return aligned

    monkeypatch.setattr(batches.BatchEditor, "prepare", watched)
    edit_files(editor, {"A": 1.0}, jobs, batch_size=2)
    assert len(most) == 24
    assert max(most) <= files.AHEAD + 1 + 3 * 2


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


# -- whatever goes wrong ------------------------------------------------------------------------------------------

FAULTS = [TypeError("a"), KeyError("b"), struct.error("c"), RuntimeError("d"), MemoryError("e"), ValueError("f")]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", ["read", "prepared", "edited", "saved"])
def test_any_error_of_one_picture_is_its_own(folder, tmp_path, monkeypatch, step, error):
    def failing(function, place):
        def wrapped(*args):
            if "b.JPG" in str(args) or any(_first(arg) == (1, 0, 0) for arg in args[place:]):
                raise error
            return function(*args)

        return wrapped

    def _first(thing):
        pictures = thing if isinstance(thing, list) else [thing]
        return next(
            (p.getpixel((0, 0)) for p in pictures if isinstance(p, Image.Image) and p.getpixel((0, 0))[0] == 1), 0
        )

    Image.new("RGB", (16, 16), (1, 0, 0)).save(folder / "b.JPG", "PNG")
    owner, name = {
        "read": (files, "open_with_metadata"),
        "prepared": (batches.BatchEditor, "prepare"),
        "edited": (batches.BatchEditor, "edit"),
        "saved": (files, "save_picture"),
    }[step]
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), 1))
    jobs = plan_files([folder], tmp_path / "out")
    done = []
    outcomes = edit_files(Inverting(), {}, jobs, advance=done.append)
    assert list(failures(outcomes)) == ["b.JPG"]
    said = failures(outcomes)["b.JPG"]
    assert said.startswith(f"{folder / 'b.JPG'}: ")
    assert f"{type(error).__name__}: {error}" in said
    assert sum(done) == 3
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.png", "c.png"]


def test_standard_streams_are_refused(folder, tmp_path):
    for inputs, output in (([Path("-")], tmp_path / "out"), ([folder / "a.png"], Path("-"))):
        with pytest.raises(PlanError, match="^- is no file: pictures are not read from or written to standard streams"):
            plan_files(inputs, output)


@pytest.mark.parametrize("suffix", [".gif", ".jfif", ".jpe", ".avif"])
def test_every_kind_that_is_read_is_taken_from_a_folder(folder, tmp_path, suffix):
    Image.new("RGB", (16, 16), (200, 0, 0)).save(folder / f"d{suffix}", files.FORMATS[suffix])
    outcomes = edit_files(Inverting(), {}, plan_files([folder], tmp_path / "out"))
    assert not failures(outcomes)
    with Image.open(tmp_path / f"out/d{suffix}") as written:
        assert np.abs(np.array(written.convert("RGB")).astype(int) - (55, 255, 255)).max() < 12


def test_what_is_left_out_is_counted_with_the_reason(folder, tmp_path):
    for name in ("a.heic", "b.heic", "deep/notes.txt", "README"):
        (folder / name).write_text("x")
    (folder / "out").mkdir()
    (folder / "out/old.txt").write_text("x")
    said = left_out([folder, folder / "a.png"], folder / "out")
    assert said[0].startswith("left out 1 .csv (no format that is read: .jpg, .jpeg,")
    assert "left out 2 .heic (reading it needs pillow-heif)" in said
    assert "left out 1 hidden (the name begins with a dot)" in said
    assert any(line.startswith("left out 1 .txt (no format") for line in said)
    assert any(line.startswith("left out 1 without an ending (no format") for line in said)
    assert len(said) == 5


def test_few_pixels_are_decoded_ahead(folder, tmp_path, monkeypatch):
    """However large the photos are."""
    monkeypatch.setattr(files, "MAX_AHEAD_PIXELS", 16 * 16)
    at_once, most, read = [0], [], files.open_with_metadata

    def watched(path):
        at_once[0] += 1
        most.append(at_once[0])
        result = read(path)
        at_once[0] -= 1
        return result

    monkeypatch.setattr(files, "open_with_metadata", watched)
    edit_files(Inverting(), {}, plan_files([folder], tmp_path / "out"))
    assert most == [1, 1, 1]
