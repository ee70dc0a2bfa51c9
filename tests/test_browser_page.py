"""The static page of `examples/browser`: it computes what Python does, and asks no other host."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import os
import shutil
import stat
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.editing import YuNet
from csvae_hub.editing.alignment import fit, template, warped
from csvae_hub.editing.blending import layer, put_back
from csvae_hub.models import create_model
from csvae_hub.onnx import Code, OnnxModel

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "examples/browser"
PHOTO = ROOT / "examples/astronaut-512.png"
CHROMIUM = shutil.which("chromium")
RUNTIME = [PAGE / "files" / name for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")]
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None or not all(path.is_file() for path in RUNTIME),
    reason="Chromium is not installed, or python examples/browser/prepare.py has not been run",
)
EYES = ((202.0, 110.0), (246.0, 112.0))
"""Near those of PHOTO."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page with celeba-64 and with a small grey model of a group, as prepare.py lays them out."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "files").mkdir()
    for path in RUNTIME:
        shutil.copy(path, folder / "files")
    torch.manual_seed(0)
    backbone, names = BackboneConfig(width=4, features=16), ("Happy", "Hat", "Sad")
    grey = create_model(
        ModelConfig(names, shape=(1, 48, 48), z_dim=8, backbone=backbone, exclusive=(("Happy", "Sad"),))
    )
    with torch.no_grad():
        for parameter in grey.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    grey.save_pretrained(folder / "grey")
    models = ["--model", "celeba-64", "--model", str(folder / "grey")]
    subprocess.run([sys.executable, PAGE / "prepare.py", *models, "-o", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=switches)
        yield opened
        opened.close()


@pytest.fixture
def page(address, browser):
    """The page with its example photo; asked of no other host all the while, and without errors."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(90_000)
    hosts, errors = set(), []
    opened.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(address)
    opened.wait_for_selector("#download:enabled")
    yield opened
    opened.close()
    assert hosts - {None} == {"127.0.0.1"}
    assert errors == []


def shown(page, name):
    """The pixels (H, W, 3) of a canvas."""
    url = page.evaluate("id => document.getElementById(id).toDataURL()", name)
    return np.asarray(Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).astype(int)


WATCH = """() => { window.edited = new Promise((done, fail) => {
    document.addEventListener("edited", () => done(), { once: true });
    setTimeout(() => fail(new Error(`no answer; ${document.querySelector("#problem").textContent}`)), 60000);
}); window.edited.catch(() => null); }"""


def after(page, act):
    """The photo with the changes, once the page has answered to something."""
    page.evaluate(WATCH)
    act()
    page.evaluate("() => window.edited")
    return shown(page, "after")


def slide(page, name, value):
    return lambda: page.get_by_label(name, exact=True).fill(value)


def open_photo(page, path):
    after(page, lambda: page.set_input_files("#file", path))


def whole(page):
    if page.locator("#close-up").is_checked():
        page.click("#close-up")


def click(page, point, side):
    """Clicks on a point of the photo, which is shown whole and is so many pixels wide."""
    box = page.locator("#before").bounding_box()
    x, y = (corner + value * box["width"] / side for corner, value in zip((box["x"], box["y"]), point, strict=True))
    page.mouse.click(x, y)


def marks(page, size):
    """Where the marks of both eyes are, in pixels of the photo of a size, shown whole."""
    style = "() => [...document.querySelectorAll('.eye')].map(eye => [eye.style.left, eye.style.top].map(parseFloat))"
    return np.array(page.evaluate(style)) / 100 * size


def difference(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


# -- the page beside Python -------------------------------------------------------------------------------------------


@in_a_browser
def test_two_clicks_a_slider_and_the_download_are_what_python_makes_of_them(page, site):
    open_photo(page, PHOTO)
    whole(page)
    for eye in EYES:
        after(page, lambda eye=eye: click(page, eye, 512))
    eyes = marks(page, 512)
    assert np.abs(eyes - EYES).max() < 2
    model, picture = OnnxModel.from_folder(site / "files/celeba-64"), Image.open(PHOTO).convert("RGB")
    transform = fit(eyes, template(model.description.preprocessor)[:2])
    crop = warped(picture, transform, 64)
    assert difference(shown(page, "crop"), crop).max() <= 3
    own = model.encode(crop)
    i = model.attributes.index("Eyeglasses")
    absent, present = np.array(model.description.class_means[i])
    moved = own.w.copy()
    moved[0, i] = absent + 1.2 * (present - absent)
    edited = after(page, slide(page, "Eyeglasses", "1.2"))
    drawn = {"own": model.decode(own)[0], "edited": model.decode(Code(own.z, own.y, moved))[0]}
    wanted = np.rint(255 * drawn["edited"]).transpose(1, 2, 0)
    assert difference(shown(page, "decoded"), wanted).max() <= 3
    seen = torch.from_numpy(np.asarray(crop).copy()).movedim(-1, 0) / 255
    expected = picture.copy()
    put_back(
        expected,
        layer(*(torch.from_numpy(drawn[name]) for name in ("edited", "own")), seen, "changed"),
        transform,
    )
    assert difference(edited, picture).max() > 40
    assert difference(edited, expected).max() <= 6
    assert difference(edited, expected).mean() < 0.05
    with page.expect_download() as found:
        page.click("#download")
    assert found.value.suggested_filename == "astronaut-512-edited.png"
    assert np.array_equal(np.asarray(Image.open(found.value.path()).convert("RGB")), edited)
    reset = after(page, lambda: page.click("#reset"))
    assert np.array_equal(reset, np.asarray(picture))


@in_a_browser
def test_the_detector_marks_the_eyes_as_python_s_does(page):
    whole(page)
    (face,) = YuNet().detect(Image.open(PHOTO).convert("RGB"))
    assert np.abs(marks(page, 512) - face.landmarks[:2]).max() < 3


@in_a_browser
def test_a_large_photo_is_shown_reduced_and_downloaded_at_its_own_size(page, tmp_path):
    large = Image.open(PHOTO).convert("RGB").resize((1500, 1500), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.png")
    open_photo(page, tmp_path / "large.png")
    whole(page)
    reduced = after(page, slide(page, "Eyeglasses", "1.2"))
    assert reduced.shape == (1024, 1024, 3)
    with page.expect_download() as found:
        page.click("#download")
    result = Image.open(found.value.path()).convert("RGB")
    change = difference(result, large)
    assert change.shape == (1500, 1500, 3)
    assert change[15:600, 380:950].max() > 40
    change[15:600, 380:950] = 0
    assert not change.any()
    assert difference(result.resize((1024, 1024), Image.Resampling.BICUBIC), reduced).mean() < 2


@in_a_browser
def test_a_mark_is_dragged(page):
    whole(page)
    before = marks(page, 512)
    box = page.locator(".eye").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 5, y + 2)
    page.mouse.move(x + 11, y + 4)
    after(page, page.mouse.up)
    moved = (marks(page, 512) - before) * page.locator("#before").bounding_box()["width"] / 512
    assert np.abs(moved - [[0, 0], [11, 4]]).max() < 1.5


# -- what is around it ------------------------------------------------------------------------------------------------


@in_a_browser
def test_without_a_face_two_clicks_are_asked_for(page, tmp_path):
    Image.new("RGB", (400, 300), "grey").save(tmp_path / "grey.png")
    page.set_input_files("#file", tmp_path / "grey.png")
    page.get_by_text("No face found: click on both eyes.").wait_for()
    assert page.locator("#download").is_disabled()
    assert page.locator(".eye:visible").count() == 0
    click(page, (240, 120), 400)
    page.get_by_text("Now the other eye.").wait_for()
    after(page, lambda: click(page, (160, 120), 400))
    assert np.abs(marks(page, (400, 300)) - [(160, 120), (240, 120)]).max() < 2
    assert page.locator("#download").is_enabled()


@in_a_browser
def test_something_else_than_a_photo_is_answered_and_the_next_photo_is_taken(page, tmp_path):
    (tmp_path / "wrong.png").write_text("no photo at all")
    page.set_input_files("#file", tmp_path / "wrong.png")
    page.locator("#problem").get_by_text("expected a photo (JPEG, PNG, WebP, …), got something else").wait_for()
    page.click("#example")
    page.wait_for_selector("#problem", state="hidden")


@in_a_browser
def test_everything_is_done_by_the_keyboard(page):
    page.get_by_label("Smiling", exact=True).focus()
    first = shown(page, "after")
    slid = after(page, lambda: page.keyboard.press("Home"))
    assert difference(slid, first).max() > 20
    page.locator("#plane").focus()
    assert "plane of Smiling" in page.locator("#plane").get_attribute("aria-label")
    for _ in range(4):
        moved = after(page, lambda: page.keyboard.press("ArrowUp"))
    assert difference(moved, slid).max() > 5
    whole(page)
    before = marks(page, 512)
    page.locator(".eye").first.focus()
    after(page, lambda: page.keyboard.press("ArrowRight"))
    assert np.allclose(marks(page, 512) - before, [[1, 0], [0, 0]], atol=0.01)


@in_a_browser
def test_the_plane_is_filled_and_a_click_in_it_changes_the_photo(page):
    page.select_option("#shown", label="Wearing hat")
    page.wait_for_selector("#plane[data-faces='25']")
    faces = shown(page, "plane").reshape(5, 96, 5, 96, 3).swapaxes(1, 2).reshape(25, -1)
    assert len(np.unique(faces, axis=0)) == 25
    first = shown(page, "after")
    box = page.locator("#plane").bounding_box()
    clicked = after(page, lambda: page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"]))
    assert difference(clicked, first).max() > 20


@in_a_browser
def test_a_grey_model_with_a_group_takes_the_same_photo(page):
    page.select_option("#model", "grey")
    choice = page.get_by_label("One of these")
    choice.wait_for()
    page.wait_for_selector("#sliders select:enabled")
    assert page.get_by_label("Hat", exact=True).is_visible()
    assert page.get_by_label("Happy", exact=True).count() == 0
    first, other = shown(page, "after"), {"Happy": "Sad", "Sad": "Happy"}
    name = other[choice.evaluate("select => select.selectedOptions[0].label")]
    changed = after(page, lambda: choice.select_option(label=name))
    assert difference(changed, first).max() > 5
    assert choice.evaluate("select => select.selectedOptions[0].label") == name


@in_a_browser
def test_every_control_has_a_name_and_a_phone_needs_no_sideways_scrolling(page):
    nameless = """() => [...document.querySelectorAll("input, select, button, canvas")].filter(part =>
        !(part.ariaLabel ?? "").trim() && ![...(part.labels ?? [])].some(label => label.textContent.trim())
        && !part.textContent.trim()).map(part => part.outerHTML)"""
    assert page.evaluate(nameless) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360


@in_a_browser
def test_the_page_lets_nothing_out(page):
    refused = page.evaluate("() => fetch('https://example.org/').then(() => 'sent', error => 'refused')")
    assert refused == "refused"
    policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    assert "default-src 'self'" in policy
    assert "http" not in policy


# -- prepare.py -------------------------------------------------------------------------------------------------------


def prepared(tmp_path, path):
    command = [sys.executable, PAGE / "prepare.py", "-o", tmp_path / "site"]
    return subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)


def test_a_runtime_that_is_not_the_expected_one_is_refused(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "other.tgz", "w:gz") as package:
        for path in RUNTIME:
            found = tarfile.TarInfo(f"package/dist/{path.name}")
            found.size = 5
            package.addfile(found, io.BytesIO(b"other"))
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n/bin/cp {tmp_path / 'other.tgz'} .\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    done = prepared(tmp_path, str(npm.parent))
    assert done.returncode == 1
    assert "expected a package of SHA-512 q0y+Jrrt" in done.stderr
    assert not any((tmp_path / "site/files").iterdir())


def test_a_missing_npm_is_named(tmp_path):
    done = prepared(tmp_path, str(tmp_path))
    assert done.returncode == 1
    assert "npm is missing" in done.stderr
