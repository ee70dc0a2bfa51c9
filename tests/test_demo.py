"""What a visitor of the page can do, without the page."""

from __future__ import annotations

import importlib.metadata
import socket
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image, ImageCms

from csvae_hub.cli import main
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.demo import Session, build, session, start
from csvae_hub.demo.editors import Editors
from csvae_hub.demo.plane import CELLS, SIDE, Plane, decoded_faces, with_marks
from csvae_hub.demo.session import HIGHEST, LOWEST, VIEW_SIDE, read_file
from csvae_hub.editing import Face, FaceEditor, read_mark
from csvae_hub.editing.blending import Paste
from csvae_hub.errors import ImageError, MissingExtraError, NoFaceError, UnknownAttributeError
from csvae_hub.images import CELEBA_LANDMARKS
from csvae_hub.models import create_model

SPACE = Path(__file__).resolve().parents[1] / "examples/space"
ATTRIBUTES = ("Smiling", "Hat", "Young")
SIZE = (400, 300)
PLACES = ((20, 40), (220, 60))
"""Of the faces' frames in a photo of SIZE; the first face is the larger one."""
FRAMES = ((20, 40, 198, 258), (220, 60, 380, 256))


def tiny(**changes):
    torch.manual_seed(0)
    config = {"attributes": ATTRIBUTES, "shape": (3, 16, 16), "z_dim": 8}
    model = create_model(ModelConfig(**config | {"backbone": BackboneConfig(width=4, features=16)} | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        if model.name == "vae":
            model.class_means.normal_()
    return model.eval()


class Finder:
    """Finds faces at fixed places of a photo of SIZE, or of one of the same shape, in pixels of that."""

    def __init__(self, faces=2):
        self.faces = faces

    def detect(self, image):
        scale = image.width / SIZE[0]
        found = []
        for place, shrink in list(zip(PLACES, (1.0, 0.9), strict=True))[: self.faces]:
            points = (np.array(CELEBA_LANDMARKS) * shrink + place) * scale
            (left, top), (right, bottom) = points.min(0) - 20 * scale * shrink, points.max(0) + 20 * scale * shrink
            found.append(Face((left, top, right, bottom), points, 0.9))
        return found


def picture(size=SIZE, mode="RGB"):
    noise = np.random.default_rng(0).integers(60, 200, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)


def packed(image, kind="PNG", **options):
    file = BytesIO()
    image.save(file, kind, **{"compress_level": 1} | options)
    return file.getvalue()


def pixels(data, mode="RGB"):
    return np.asarray(Image.open(BytesIO(data)).convert(mode)).astype(int)


@pytest.fixture(scope="module")
def editor():
    return FaceEditor(tiny(), Finder())


@pytest.fixture
def here(editor):
    opened = Session(editor, packed(picture()))
    opened.close_up = False
    return opened


@pytest.mark.parametrize("point", [(0.0, 0.0), (3.5, -2.0), (-7.25, 11.0)])
def test_pixels_and_points_of_a_plane_lead_back_to_each_other(point):
    place = Plane.around((0.0, 1.0), (4.0, -2.0), own=(1.0, 1.0))
    assert place.point(*place.pixel(point)) == pytest.approx(point)


def test_second_coordinate_goes_up():
    place = Plane((0.0, 0.0), 1.0)
    assert place.pixel((0.5, 0.5))[1] < place.pixel((0.5, -0.5))[1]


@pytest.mark.parametrize("own", [(0.0, 0.0), (30.0, 0.0), (1.0, -50.0)])
def test_plane_holds_both_class_means_and_the_photo(own):
    points = (0.0, 1.0), (4.0, -2.0), own
    for point in points:
        assert all(0 <= pixel <= SIDE for pixel in Plane.around(*points).pixel(point))


@torch.no_grad()
def test_cell_shows_the_face_at_the_point_that_a_click_on_it_picks(editor):
    latents = editor.model.encode(picture((16, 16)))
    place = Plane((1.5, 1.5), 6.0)
    shown = np.asarray(decoded_faces(editor.model, latents, "Hat", place), dtype=float)
    cell = SIDE // CELLS
    for row, column in ((0, 0), (0, 4), (3, 1)):
        x, y = (column + 0.5) * cell, (row + 0.5) * cell
        face = editor.model.decode(editor.model.edit(latents, {"Hat": place.point(x, y)}))[0]
        mean = shown[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].mean((0, 1))
        assert mean == pytest.approx(255 * face.mean((1, 2)).numpy(), abs=1.0)


def test_ring_lies_where_the_face_is_and_at_the_border_where_it_is_beyond():
    blank, place = Image.new("RGB", (SIDE, SIDE), "grey"), Plane((0.0, 0.0), 1.0)
    for here, (x, y) in (((0.5, 0.5), (360, 120)), ((9.0, 0.0), (SIDE - 1, 240))):
        changed = np.argwhere((np.asarray(with_marks(blank, place, {}, here)) != np.asarray(blank)).any(-1))
        assert abs(changed - (y, x)).max() <= 20
        assert len(changed) > 100
    assert with_marks(blank, place, {}, (0, 0)) is not blank


# -- changes --------------------------------------------------------------------------------------------------------


def test_nothing_changed_gives_the_photo_itself(here):
    assert here.after() == here.before()
    assert np.array_equal(pixels(here.download()), np.asarray(picture()))


def test_moves_and_picks_are_edits_of_the_library(here, editor):
    here.move("Smiling", 1.25)
    here.show("Hat")
    here.pick(100, 30)
    values = {"Smiling": 1.25, "Hat": here._plane().point(100, 30)}
    assert here.after() != here.before()
    for paste in get_args(Paste):
        here.paste = paste
        result = pixels(here.download())
        wished = np.asarray(editor.edit(picture(), values, face=0, paste=paste)).astype(int)
        assert abs(result - wished).max() <= 1  # two faces in a batch round otherwise than one
        assert abs(result - np.asarray(picture())).max() > 10


def test_clicks_beyond_the_picture_are_taken_to_its_border(here):
    here.pick(-50, 10_000)
    assert here._changes[0]["Smiling"] == here._plane().point(0, SIDE)
    here.nudge(2, 3)
    assert here._changes[0]["Smiling"] == pytest.approx(here._plane().point(SIDE / 10, 0.85 * SIDE))


def test_download_is_marked_where_something_is_changed(here, tmp_path):
    (tmp_path / "a.png").write_bytes(here.download())
    assert read_mark(tmp_path / "a.png") is None
    here.move("Smiling", 1.25)
    (tmp_path / "a.png").write_bytes(here.download())
    assert read_mark(tmp_path / "a.png")["edits"][0]["parameters"] == "a model; Smiling=1.25"


def test_reset_takes_back_the_changes_of_all_faces(here):
    here.move("Young", 1.5)
    here.choose(1)
    here.move("Hat", -0.5)
    assert here.after() != here.before()
    here.reset()
    assert here.after() == here.before()


def test_each_face_keeps_its_own_changes(here):
    here.move("Smiling", 1.4)
    here.choose(1)
    assert here.level("Smiling") != 1.4
    first = pixels(here.download())
    here.move("Smiling", -0.4)
    both = pixels(here.download())
    original = np.asarray(picture()).astype(int)
    for result, changed in ((first, (True, False)), (both, (True, True))):
        for (left, top, right, bottom), is_changed in zip(FRAMES, changed, strict=True):
            part = np.s_[top + 60 : bottom - 60, left + 60 : right - 60]
            assert (result[part] != original[part]).any() == is_changed
    here.pick(0, 0)
    here.choose(0)
    assert here.level("Smiling") == 1.4


def test_levels_are_read_from_the_photo_until_they_are_set(here, editor):
    model, latents = editor.model, here._view.latents[0]
    absent, present = (model.edit(latents, {"Hat": value}).w[0, 1] for value in (0.0, 1.0))
    along = (latents.w[0, 1] - absent) @ (present - absent) / (present - absent).square().sum()
    assert here.level("Hat") == pytest.approx(min(max(along.item(), 0), 1), abs=0.006)
    here.move("Hat", 0.31)
    assert here.level("Hat") == 0.31
    here.pick(*here._plane().pixel(tuple(present.tolist())))
    assert here.level("Hat") == 1.0
    for x, y in ((0, 0), (SIDE, SIDE), (0, SIDE), (SIDE, 0)):  # far beyond both ends
        here.pick(x, y)
        assert 0 <= here.level("Hat") <= 1
    here.move("Hat", HIGHEST + 1)
    assert here.level("Hat") == HIGHEST


def test_first_edit_turns_an_attribute_that_the_model_has(here):
    wished = float(here.level("Hat") < 0.5)
    here.turn(("Beard", "Hat", "Young"))
    assert here.level("Hat") == wished
    assert (here.shown, list(here._changes[0])) == ("Hat", ["Hat"])
    here.reset()
    here.turn(("Beard",))
    assert here.after() == here.before()


def test_plane_follows_what_is_moved_and_is_quick_while_it_stays(here):
    first = here.plane()
    assert here.plane_is_quick
    here.move("Young", 0.5)
    assert here.shown == "Young"
    assert not here.plane_is_quick
    second = here.plane()
    here.move("Young", 0.9)
    assert here.plane_is_quick
    assert len({first, second, here.plane()}) == 3
    here.choose(1)
    assert not here.plane_is_quick


def test_plane_shows_the_face_with_its_other_changes(here):
    before = here.plane()
    here.move("Hat", 1.5)
    here.show("Smiling")
    assert not here.plane_is_quick
    assert here.plane() != before


def test_wrong_names_and_faces_change_nothing(here):
    with pytest.raises(UnknownAttributeError, match="did you mean 'Smiling'"):
        here.move("Smilling", 1.0)
    with pytest.raises(UnknownAttributeError):
        here.show("Beard")
    with pytest.raises(ValueError, match="expected a face from 0 to 1, got 2"):
        here.choose(2)
    assert (here.shown, here.face, here.after()) == ("Smiling", 0, here.before())


# -- photos ---------------------------------------------------------------------------------------------------------


def test_large_photo_is_shown_small_and_downloaded_whole(editor):
    large = picture((1600, 1200))
    here = Session(editor, packed(large))
    here.close_up, here.paste = False, "difference"
    here.move("Smiling", 1.5)
    assert Image.open(BytesIO(here.after())).size == (VIEW_SIDE, round(VIEW_SIDE * 3 / 4))
    result, original = pixels(here.download()), np.asarray(large).astype(int)
    wished = np.asarray(editor.edit(large, {"Smiling": 1.5}, face=0, paste="difference")).astype(int)
    assert abs(result - wished).max() <= 1
    assert abs(result - original).max() > 10


def test_close_up_is_where_the_face_is(editor):
    here = Session(editor, packed(picture()))
    here.close_up = True
    face = here._view.faces[0]
    shown = Image.open(BytesIO(here.before())).size
    assert shown[0] <= 2 * max(face.box[2] - face.box[0], face.box[3] - face.box[1]) + 1
    assert here.after() == here.before()
    here.move("Smiling", 1.5)
    assert Image.open(BytesIO(here.after())).size == shown
    assert pixels(here.download()).shape == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize(("size", "close"), [(1.0, True), (0.5, False)])
def test_close_up_is_the_start_where_the_face_is_small(editor, monkeypatch, size, close):
    face = editor.detect(picture())[0]
    monkeypatch.setattr(session, "LARGE", face.size / (size * min(SIZE)) * (1.01 if close else 0.99) * size)
    assert Session(editor, packed(picture())).close_up == close


def test_photo_is_upright_keeps_transparency_and_colour_profile(editor):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Session(editor, packed(picture().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif))
    assert Image.open(BytesIO(turned.download())).size == SIZE
    clear = picture(mode="RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(SIZE))
    here = Session(editor, packed(clear))
    here.move("Hat", 1.5)
    assert np.array_equal(pixels(here.download(), "RGBA")[..., 3], np.asarray(clear)[..., 3])
    here.close_up = False
    assert (pixels(here.before())[0] > 240).all()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profiled = Session(editor, packed(picture(), icc_profile=profile))
    for data in (profiled.before(), profiled.after(), profiled.download()):
        assert Image.open(BytesIO(data)).info["icc_profile"] == profile


def test_photos_that_cannot_be_edited_are_refused_in_plain_words(editor, monkeypatch, tmp_path):
    with pytest.raises(NoFaceError, match="no face found in this photo of 400×300 pixels"):
        Session(FaceEditor(editor.model, Finder(0)), packed(picture()))
    with pytest.raises(ImageError, match="expected a photo .JPEG, PNG, WebP, …., got something else: choose another"):
        Session(editor, b"not a photo")
    with pytest.raises(ImageError, match="broken off or corrupt"):
        Session(editor, packed(picture())[:3000])
    with pytest.raises(ImageError, match="the photo is gone: choose it again"):
        read_file(tmp_path / "none.png")
    monkeypatch.setattr(session, "MAX_PIXELS", 100_000)
    with pytest.raises(ImageError, match="at most 0.1 megapixels, got 400×300 pixels: make it smaller"):
        Session(editor, packed(picture()))


# -- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"model": "vae"}, {"model": "cond-vae"}, {"w_dim": 3}, {"shape": (1, 16, 16)}])
def test_every_model_of_pictures_can_be_moved(changes):
    here = Session(FaceEditor(tiny(**changes), Finder(1)), packed(picture()))
    assert here.has_planes == ("shape" in changes)
    assert [crop.size for crop in here.crops()] == [(16, 16)]
    before = here.after()
    here.move("Hat", 1.5 if here.level("Hat") < 0.5 else -0.5)
    assert here.after() != before
    assert here.plane_is_quick != here.has_planes
    assert all(LOWEST <= here.level(name) <= HIGHEST for name in ATTRIBUTES)


def test_editors_offer_the_packaged_models_of_pictures_and_the_named_one(tmp_path, monkeypatch):
    packaged = tmp_path / "weights"
    for name, model in {"faces": tiny(), "other": tiny(attributes=("Young", "Hat")), "points": vectors()}.items():
        model.save_pretrained(packaged / name)
    tiny(attributes=("Pale", "Dark"), exclusive=(("Pale", "Dark"),)).save_pretrained(tmp_path / "mine")
    monkeypatch.setattr("csvae_hub.hub.folder.PACKAGED", packaged)
    editors = Editors(str(tmp_path / "mine"), "cpu")
    assert editors.choices == [("mine", "0"), ("faces", "1"), ("other", "2")]
    assert [editors.name(key) for _, key in editors.choices] == [str(tmp_path / "mine"), "faces", "other"]
    assert (editors.most, editors.most_groups) == (3, 1)
    assert editors.groups == {str(tmp_path / "mine"): (("Pale", "Dark"),), "faces": (), "other": ()}
    assert list(editors.attributes["other"]) == ["Young", "Hat"]
    assert editors["other"].model.attributes == ("Young", "Hat")
    assert editors["other"] is editors["other"]
    assert editors["other"].detector is editors["faces"].detector
    with pytest.raises(ValueError, match="got one of vectors of 5 numbers"):
        Editors(str(packaged / "points"))


def vectors():
    return tiny(shape=(5,), backbone=BackboneConfig(name="mlp", width=8, features=16))


# -- the command ----------------------------------------------------------------------------------------------------


def test_missing_gradio_is_answered_with_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match="gradio is missing: pip install 'csvae-hub.demo.'"):
        build()


def test_command_refuses_a_model_of_vectors_and_a_wrong_device(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", ModuleType("gradio"))  # it is not reached
    vectors().save_pretrained(tmp_path / "points")
    for arguments, words in (
        (["--model", str(tmp_path / "points")], "expected a model of pictures, got one of vectors"),
        (["--device", "toaster"], "--device toaster: expected cpu, cuda or cuda:N"),
        (["--port", "0"], "Invalid value for '--port'"),
    ):
        result = CliRunner().invoke(main, ["demo", *arguments])
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())


def test_taken_port_is_said_with_the_remedy():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"can't listen on 127.0.0.1, port {port} .*: give another port or host"):
            start(build, port=port)


def test_space_builds_its_page_as_its_front_matter_says():
    front = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["sdk"] == "gradio"
    assert front["sdk_version"].split(".")[0] == importlib.metadata.version("gradio").split(".")[0]
    assert "csvae-hub[demo]" in (SPACE / "requirements.txt").read_text(encoding="utf-8")
    script = f"import runpy; print(runpy.run_path({str(SPACE / front['app_file'])!r})['page'].title)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "csvae-hub", run.stderr
