"""The built site: its links, and its pages in a browser with no network but the machine's own."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner

import csvae_hub
from csvae_hub.cli import COMMANDS, main
from csvae_hub.data import load_data
from csvae_hub.editing import edit_files
from csvae_hub.export import export_model
from csvae_hub.onnx import OnnxModel
from csvae_hub.transforms import RandomSetAttribute, counterfactuals

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
API = sorted(path.stem for path in (ROOT / "docs/api").glob("*.md") if path.stem != "index")
FIRST = {
    "models": ["from_pretrained", "set_attribute", "edit", "encode", "decode"],
    "attribute-model": ["from_pretrained", "set_attribute", "edit", "encode", "decode"],
    "editing": ["set_attribute", "edit", "open", "detect"],
}
TALLEST = 15_000
"""Pixels of an API page in a window of 1280: more is a page to divide."""
PAGES = ("", "equations/", "paper/", "evaluation/", "concepts/", "api/losses/")
REPOSITORY = "https://github.com/nobody/csvae-hub"
"""An address as the docs' workflow gives one: pages link to it, and ask it nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "CSVAE_REPOSITORY": REPOSITORY}
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert build.returncode == 0, build.stdout + build.stderr
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def address(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    """A page that may ask no other host, find no file missing and print nothing to the console."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    hosts, trouble = set(), []
    opened.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    opened.on("response", lambda response: response.status < 400 or trouble.append(response.url))
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    yield opened
    opened.close()
    assert trouble == []
    assert hosts - {None} == {"127.0.0.1"}


@in_a_browser
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path or "home")
def test_every_formula_is_drawn_from_files_of_the_site(page, address, path):
    page.goto(address + path, wait_until="networkidle")
    formulas = page.locator(".arithmatex")
    assert formulas.count() > 0
    assert page.locator(".arithmatex > .katex, .arithmatex > .katex-display > .katex").count() == formulas.count()
    assert page.locator(".katex-error").count() == 0
    shown = page.evaluate(
        """() => {
            const text = document.querySelector("article").cloneNode(true);
            text.querySelectorAll("code, pre, .katex-mathml").forEach(part => part.remove());
            return text.textContent;
        }"""
    )
    assert not [mark for mark in ("\\", "$") if mark in shown]
    fonts = page.evaluate("() => [...document.fonts].filter(font => font.status === 'error').map(font => font.family)")
    assert fonts == []


@in_a_browser
def test_colours_follow_the_system_until_the_switch_chooses(page, address):
    def becomes(scheme):
        page.wait_for_function("name => document.body.dataset.mdColorScheme === name", arg=scheme, timeout=10_000)

    dark, light = "slate", "default"
    page.emulate_media(color_scheme="dark")
    page.goto(address)
    becomes(dark)
    page.emulate_media(color_scheme="light")
    becomes(light)
    page.locator("label[title='Switch to light']").click()
    page.emulate_media(color_scheme="dark")
    becomes(light)
    page.locator("label[title='Switch to dark']").click()
    page.emulate_media(color_scheme="light")
    becomes(dark)
    page.locator("label[title='Follow the system']").click()
    becomes(light)


@in_a_browser
@pytest.mark.parametrize("path", ["concepts/", "backbones/", "hub/", "part/", "training/"])
def test_the_words_in_a_drawing_can_be_read_on_a_phone_and_the_page_is_no_wider(page, address, path):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address + path, wait_until="networkidle")
    assert page.locator("p > img[src$='.svg']").first.bounding_box()["width"] > 600
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@in_a_browser
def test_no_page_asks_another_host(page, address, site):
    places = [place.parent.relative_to(site).as_posix() for place in site.rglob("index.html")]
    assert len(places) > 50
    for place in places:
        page.goto(f"{address}{'' if place == '.' else f'{place}/'}", wait_until="load")
    page.wait_for_load_state("networkidle")
    assert page.locator(f"a.md-source[href='{REPOSITORY}']").count() > 0


@in_a_browser
def test_the_search_finds_a_page(page, address):
    page.goto(address)
    page.locator(".md-search__input").fill("negative_entropy")
    page.wait_for_selector(".md-search-result__link[href*='equations/']", state="attached", timeout=20_000)


def test_the_command_line_s_page_has_every_command_and_option(site):
    shown = CliRunner().invoke(main, ["--help"]).output.partition("Commands:")[2]
    commands = re.findall(r"^  (\w+)", shown, re.MULTILINE)
    assert commands == [*COMMANDS]
    content = (site / "cli/index.html").read_text(encoding="utf-8")
    sections = re.split(r'<h2 id="csvae-(\w+)">', content)
    assert sections[1::2] == commands
    for name, section in zip(commands, sections[2::2], strict=True):
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", section)).split())
        said = " ".join(CliRunner().invoke(main, [name, "--help"], terminal_width=1000).output.split())
        options = said.partition("Options: ")[2].split()
        assert options
        assert set(options) <= set(text.replace("\u00b6", "").split()), name


def documented(path):
    """The names with a place of their own on a page, in its order."""
    return re.findall(r'<h\d id="(csvae_hub[\w.]+)"', path.read_text(encoding="utf-8"))


def test_every_public_name_has_a_place_in_the_reference(site):
    found = {name for page in site.glob("api/*/index.html") for name in documented(page)}
    more = (export_model, OnnxModel, RandomSetAttribute, counterfactuals, load_data, edit_files)
    for thing in (*(getattr(csvae_hub, name) for name in csvae_hub.__all__), *more):
        assert f"{thing.__module__}.{thing.__qualname__}" in found
    listed = (site / "api/index.html").read_text(encoding="utf-8")
    assert [name for name in csvae_hub.__all__ if f">{name}</code></a>" not in listed] == []


@pytest.mark.parametrize("name", FIRST)
def test_the_methods_that_users_call_come_first(site, name):
    methods = [place.rpartition(".")[2] for place in documented(site / "api" / name / "index.html")]
    assert methods[1 : 1 + len(FIRST[name])] == FIRST[name]


@in_a_browser
def test_no_page_of_the_reference_is_endless(page, address):
    heights = {}
    for name in API:
        page.goto(f"{address}api/{name}/")
        heights[name] = page.evaluate("() => document.documentElement.scrollHeight")
    assert {name: height for name, height in heights.items() if height > TALLEST} == {}


class Parts(HTMLParser):
    """The places that a page has, the addresses it names and its pictures."""

    def __init__(self, page):
        super().__init__()
        self.places, self.links, self.pictures = {""}, [], []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places.add(found.get("id") or "")
        self.links += [found[key] for key in ("href", "src") if found.get(key)]
        self.pictures += [found] if tag == "img" else []


def test_every_link_of_the_site_arrives(site):
    pages = {page: Parts(page) for page in site.rglob("*.html") if page.name != "404.html"}
    broken = []
    for page, parts in pages.items():
        for link in parts.links:
            address = urlsplit(link)
            if address.scheme:
                assert address.scheme in ("https", "http", "mailto"), (page, link)
                continue
            target = (page.parent / unquote(address.path)).resolve() if address.path else page
            target = target / "index.html" if target.is_dir() else target
            place = unquote(address.fragment)
            if not target.is_file() or (target in pages and place not in pages[target].places):
                broken.append((str(page.relative_to(site)), link))
    assert broken == []


def test_every_picture_says_in_words_what_it_shows(site):
    pictures = {
        (page.parent.name, found["src"]): found.get("alt", "")
        for page in site.rglob("*.html")
        for found in Parts(page).pictures
        if not found["src"].endswith("logo.svg")  # its link says the name of the site
    }
    assert len(pictures) > 5
    assert [name for name, words in pictures.items() if len(words.split()) < 3] == []


@in_a_browser
@pytest.mark.parametrize("path", [path.stem for path in sorted((ROOT / "docs").glob("*.md"))])
def test_on_a_phone_wide_tables_scroll_inside_their_box(page, address, path):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address + ("" if path == "index" else f"{path}/"), wait_until="networkidle")
    page.wait_for_function(  # the theme boxes them when its script runs
        """() => [...document.querySelectorAll("article table:not([class])")].every(
            table => table.closest(".md-typeset__scrollwrap"))"""
    )
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    tables = page.evaluate(
        """() => [...document.querySelectorAll("article table:not([class])")].map(table => {
            const box = table.closest(".md-typeset__scrollwrap");
            return {
                columns: table.rows[0].cells.length,
                scrolls: getComputedStyle(box).overflowX === "auto" && box.scrollWidth > box.clientWidth,
                right: Math.round(box.getBoundingClientRect().right),
                narrowest: Math.min(...[...table.rows[0].cells].map(cell => cell.clientWidth)),
            };
        })"""
    )
    for table in tables:
        assert table["right"] <= 390
        assert table["scrolls"] or table["columns"] <= 6
        assert table["narrowest"] >= 40, table
