"""The page in a browser, with no network but the machine's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.models import create_model

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
PHOTO = Path(__file__).resolve().parents[1] / "examples/astronaut-512.png"
FACE = np.s_[5:200, 130:320]
"""Where in PHOTO a change may reach."""
GUARD = """
import signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background is started deaf to it

def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        place = args[1] if event in ("socket.connect", "socket.sendto") else args
        host = place[0] if isinstance(place, tuple) else "local file"
        if host not in ("127.0.0.1", "localhost", "::1", "0.0.0.0", None, "", "local file", b"127.0.0.1", b"localhost"):
            print("OUTSIDE", event, args, file=sys.stderr, flush=True)
            raise OSError("no network in this test")

sys.addaudithook(watch)
from csvae_hub.cli import main
main(["demo", *sys.argv[1:]])
"""


class Server:
    """`csvae demo` in a process of its own, in which sockets to other machines are refused and noted."""

    def __init__(self, folder, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self.files, self.log = folder / "files", folder / "log"
        quiet = {"GRADIO_TEMP_DIR": str(self.files), "GRADIO_ANALYTICS_ENABLED": "True", "OMP_NUM_THREADS": "2"}
        with self.log.open("w") as log:
            command = [sys.executable, "-c", GUARD, "--port", str(self.port), *options]
            self.process = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log, text=True)
        deadline = time.monotonic() + 120
        while self.address not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def said(self):
        return self.log.read_text()

    def kept(self):
        return [path for path in self.files.rglob("*") if path.is_file()]

    def end(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(120)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("demo"))
    try:
        yield running
    finally:
        running.end()
    assert running.kept() == []


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield opened
        opened.close()


@pytest.fixture
def page(server, browser):
    """The page as it opens, with the example photo; asked of no other host all the while."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    hosts = set()
    opened.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    opened.goto(server.address)
    opened.wait_for_selector("#after img", timeout=60_000)
    yield opened
    opened.close()
    assert hosts - {None} == {"127.0.0.1"}


SOURCES = "() => [...document.querySelectorAll('#before img, #after img, #plane img')].map(image => image.src)"


def pictures(page):
    """Before, after and the plane, as the page shows them."""
    return [
        np.asarray(Image.open(BytesIO(page.request.get(url).body())).convert("RGB")).astype(int)
        for url in page.evaluate(SOURCES)
    ]


def after(page, act):
    """What is shown after the page has answered to something."""
    old = page.evaluate(SOURCES)
    act()
    page.wait_for_function(f"old => ({SOURCES})()[1] !== old[1]", arg=old, timeout=20_000)
    return pictures(page)


def slider(page, name):
    return page.get_by_role("slider", name=f"range slider for {name}")


def open_photo(page, path):
    def choose():
        page.click("#photo button[aria-label='Remove Image']")
        page.set_input_files("#photo input[type=file]", path)

    return choose


def download(page):
    with page.expect_download() as found:
        page.click("#download")
    return found.value.suggested_filename, Image.open(found.value.path())


def click_plane(page, x, y):
    box = page.locator("#plane img").bounding_box()
    return lambda: page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_photo_is_uploaded_changed_and_downloaded(page, server):
    page.click("#photo button[aria-label='Remove Image']")
    page.wait_for_selector("#after img", state="detached")
    page.set_input_files("#photo input[type=file]", PHOTO)
    page.wait_for_selector("#after img")
    before, same, _ = pictures(page)
    assert np.array_equal(before, same)
    for name, value in (("Smiling", "-0.3"), ("Eyeglasses", "1.3")):
        old = page.evaluate(SOURCES)[2]
        _, moved, _ = after(page, lambda name=name, value=value: slider(page, name).fill(value))
        assert abs(moved - same).max() > 20
        page.wait_for_function(f"old => ({SOURCES})()[2] !== old", arg=old)  # the plane of what was moved follows
        assert page.input_value("#shown input") == name
        same = moved
    plane = pictures(page)[2]
    _, picked, ring = after(page, click_plane(page, 0.1, 0.9))
    assert abs(picked - same).max() > 20
    assert abs(ring - plane)[400:470, 10:90].max() > 100
    assert float(slider(page, "Eyeglasses").input_value()) < 1.2  # it was 1.3
    name, result = download(page)
    assert name == "astronaut-512-edited.png"
    original = np.asarray(Image.open(PHOTO).convert("RGB")).astype(int)
    change = abs(np.asarray(result).astype(int) - original)
    assert change.shape == original.shape
    assert change[FACE].max() > 20
    change[FACE] = 0
    assert not change.any()
    before, reset, _ = after(page, lambda: page.click("#reset"))
    assert np.array_equal(before, reset)


def test_plane_that_is_chosen_is_shown(page):
    _, first, plane = pictures(page)
    url = page.evaluate(SOURCES)[2]
    page.click("#shown input")
    page.get_by_role("option", name="Wearing hat").click()
    page.wait_for_function(f"old => ({SOURCES})()[2] !== old", arg=url)
    assert abs(pictures(page)[2] - plane).max() > 50
    _, changed, _ = after(page, click_plane(page, 0.9, 0.1))
    assert abs(changed - first).max() > 20


def test_close_up_and_detail_change_what_is_shown(page):
    _, close, _ = pictures(page)
    _, whole, _ = after(page, lambda: page.click("#close-up input"))
    assert whole.shape == (512, 512, 3)
    assert close.shape[0] < 300
    after(page, lambda: slider(page, "Smiling").fill("0.5"))
    kept = pictures(page)[1]
    _, decoded, _ = after(page, lambda: page.get_by_label("The whole face").click())
    assert abs(decoded - kept)[FACE].mean() > 1


def test_example_opens_with_an_edit_that_shows_and_the_divider_has_the_same_pictures(page):
    before, edited, _ = pictures(page)
    assert abs(edited - before).max() > 40
    assert page.input_value("#shown input") == "Eyeglasses"
    sources = page.evaluate(SOURCES)[:2]
    assert not page.locator("#compare").count()
    page.get_by_label("Divider").click()
    page.wait_for_selector("#compare img")
    compared = page.evaluate("() => [...document.querySelectorAll('#compare img')].map(image => image.src)")
    assert [Path(source).parent.name for source in compared] == [Path(source).parent.name for source in sources]
    page.get_by_label("Side by side").click()
    page.wait_for_selector("#after img")
    _, reset, _ = after(page, lambda: page.click("#reset"))
    assert np.array_equal(before, reset)


def test_face_is_chosen_among_several(page, tmp_path):
    photo = Image.open(PHOTO).convert("RGB")
    both = Image.new("RGB", (900, 512), "grey")
    both.paste(photo, (0, 0))
    both.paste(photo.resize((380, 380)), (516, 60))
    both.save(tmp_path / "both.png")
    after(page, open_photo(page, tmp_path / "both.png"))
    faces = page.locator("#faces .thumbnail-item")
    faces.nth(1).wait_for()
    assert faces.count() == 2
    after(page, lambda: slider(page, "Smiling").fill("-0.3"))
    after(page, lambda: faces.nth(1).click())
    after(page, lambda: slider(page, "Eyeglasses").fill("1.5"))
    result = np.asarray(download(page)[1]).astype(int)
    change = abs(result - np.asarray(both)).max(-1)
    assert change[:, :500].max() > 20
    assert change[:, 516:].max() > 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Image.new("RGB", (300, 200), "green"), "no face found in this photo of 300×200 pixels"),
        ("no photo at all", "expected a photo (JPEG, PNG, WebP, …), got something else"),
    ],
)
def test_what_cannot_be_edited_is_said_in_the_librarys_words(page, tmp_path, content, words):
    path = tmp_path / "wrong.png"
    path.write_text(content) if isinstance(content, str) else content.save(path)
    open_photo(page, path)()
    page.locator("#message").get_by_text(words).wait_for()
    time.sleep(1)
    assert page.locator("#message").get_by_text(words).is_visible()  # it stays
    assert "Traceback" not in page.content()
    page.wait_for_selector("#after img", state="detached")
    assert page.locator("#download").is_disabled()
    page.click("#example")
    page.wait_for_selector("#after img")
    assert not page.get_by_text(words).count()
    assert page.locator("#download").is_enabled()


def test_too_large_a_file_is_refused(page, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(21 * 2**20))
    open_photo(page, tmp_path / "large.png")()
    page.get_by_text("exceed the maximum allowed size of 20").first.wait_for()


def test_an_error_that_passes_stays_on_the_page_until_the_next_photo(page, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(21 * 2**20))
    open_photo(page, tmp_path / "large.png")()
    page.locator("#problem").get_by_text("exceed the maximum allowed size of 20").wait_for()
    page.evaluate("() => document.querySelectorAll('.toast-messages').forEach(toast => toast.remove())")
    time.sleep(1)
    assert page.locator("#problem[role=alert]").get_by_text("exceed the maximum").is_visible()
    page.click("#example")
    page.wait_for_selector("#after img")
    page.wait_for_function("() => document.querySelector('#problem').textContent === ''")
    assert page.locator("#problem").is_hidden()


def test_every_picture_has_words_and_every_control_a_name(page):
    unnamed = "() => [...document.querySelectorAll('img')].filter(image => !image.alt.trim()).map(i => i.outerHTML)"
    page.wait_for_function(f"() => ({unnamed})().length === 0")
    after(page, lambda: slider(page, "Smiling").fill("0.5"))
    assert page.evaluate(unnamed) == []
    page.get_by_label("Divider").click()
    page.wait_for_selector("#compare img")
    page.wait_for_function(f"() => ({unnamed})().length === 0")


def test_the_plane_is_moved_by_the_keyboard_alone(page):
    page.locator("#plane button:has(img)").focus()
    changed = [after(page, lambda key=key: page.keyboard.press(key))[1:] for key in ("ArrowUp", "ArrowRight")]
    assert abs(changed[0][1] - changed[1][1]).max() > 50  # the ring
    assert page.evaluate("() => !!document.activeElement.closest('#plane')")
    page.keyboard.press("Enter")  # no place, no pick
    page.locator("#plane-left").focus()
    back = after(page, lambda: page.keyboard.press("Enter"))
    assert abs(back[2] - changed[0][1]).max() <= abs(back[2] - changed[1][1]).max()


def test_licence_and_documents_are_linked(page):
    links = page.evaluate("() => [...document.querySelectorAll('.notes a')].map(link => link.href)")
    assert any("opensource.org/license/mit" in link for link in links)
    assert any("arxiv.org/abs/1812.06190" in link for link in links)
    page.get_by_text("Model card of celeba-128").click()
    page.get_by_text("non-commercial research").first.wait_for()


def test_server_asks_no_other_machine_and_listens_to_this_one_only(page, server):
    after(page, lambda: slider(page, "Young").fill("1.2"))
    assert "OUTSIDE" not in server.said()
    assert "Traceback" not in server.said()
    assert server.kept()
    listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line}
    assert f"0100007F:{server.port:04X}" in listening
    assert f"00000000:{server.port:04X}" not in listening


def test_members_of_a_group_are_a_choice(browser, tmp_path):
    """A model of expressions: radio buttons in the place of their sliders; one that is chosen changes the photo."""
    torch.manual_seed(0)
    names = ("Happy", "Hat", "Sad")
    backbone = BackboneConfig(width=4, features=16)
    config = ModelConfig(names, shape=(1, 48, 48), z_dim=8, backbone=backbone, exclusive=(("Happy", "Sad"),))
    model = create_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "expressions")
    running = Server(tmp_path, "--model", str(tmp_path / "expressions"))
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    try:
        opened.goto(running.address)
        opened.wait_for_selector("#after img", timeout=60_000)
        assert slider(opened, "Hat").is_visible()
        assert not slider(opened, "Happy").is_visible()
        choice = opened.locator("#group-0")
        boxes = [choice.get_by_role("radio", name=name) for name in ("Happy", "Sad")]
        chosen = [box.is_checked() for box in boxes]
        assert sorted(chosen) == [False, True]
        _, first, _ = pictures(opened)
        other = boxes[chosen.index(False)]
        _, changed, _ = after(opened, other.click)
        assert abs(changed - first).max() > 5
        assert other.is_checked()
    finally:
        opened.close()
        running.end()
