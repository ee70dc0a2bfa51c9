"""What is installed: one wheel, from the tree as from the source archive, with the package and nothing beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

from csvae_hub import __version__

pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
ROOT = Path(__file__).resolve().parents[1]
LARGEST = 30_000_000
"""Bytes of the wheel: more is a download to think about."""
INFO = f"csvae_hub-{__version__}.dist-info/"


def build(target, tree, folder, **environment):
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, env={**os.environ, **environment})
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel):
    with ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder that the source archive holds."""
    folder = tmp_path_factory.mktemp("sdist")
    (folder / "dist").mkdir()
    with tarfile.open(build("sdist", ROOT, folder / "dist")) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"csvae_hub-{__version__}"


def tracked(*paths):
    listed = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("the tree is no checkout of git")
    return set(listed.stdout.splitlines())


def test_the_source_archive_holds_all_that_the_tests_need(unpacked):
    held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert tracked() - held == {".ci/run"}
    assert held - tracked() >= {"PKG-INFO"}


def test_the_wheel_of_the_source_archive_is_the_same_to_the_byte(wheel, unpacked, tmp_path):
    again = build("wheel", unpacked, tmp_path)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < LARGEST


def test_the_wheel_holds_the_package_and_nothing_else(names):
    about = {f"{INFO}{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    licences = {f"{INFO}licenses/{name}" for name in ("LICENSE", "csvae_hub/editing/yunet/LICENSE")}
    assert set(names) == {*tracked("csvae_hub"), *about, *licences}
    assert len(names) == len(set(names))


def test_the_wheel_brings_types_recipes_weights_and_the_command(wheel, names):
    recipes = {path.name for path in (ROOT / "csvae_hub/training/recipes").glob("*.toml")}
    wanted = {"csvae_hub/py.typed", *(f"csvae_hub/training/recipes/{name}" for name in recipes)}
    for folder in (ROOT / "csvae_hub/weights").iterdir():
        files = ("README.md", "config.json", "model.safetensors", "preprocessor.json")
        wanted |= {f"csvae_hub/weights/{folder.name}/{name}" for name in files}
    assert len(recipes) > 5
    assert wanted <= set(names)
    with ZipFile(wheel) as archive:
        assert "csvae = csvae_hub.cli:main" in archive.read(f"{INFO}entry_points.txt").decode()


def test_three_lines_run_from_the_installed_wheel(wheel, tmp_path):
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(tmp_path / "site")]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    script = """
        from csvae_hub import CSVAE
        model = CSVAE.from_pretrained("celeba-64")
        model.set_attribute({photo!r}, "Eyeglasses", True).save("edited.png")
        import csvae_hub
        print(csvae_hub.__file__)
    """.format(photo=str(ROOT / "examples/astronaut.png"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.strip() == str(tmp_path / "site/csvae_hub/__init__.py")
    with Image.open(tmp_path / "edited.png") as edited:
        assert edited.size == (192, 192)


def test_the_index_s_page_has_links_that_arrive_once_the_project_has_an_address(wheel, tmp_path):
    def metadata(built):
        with ZipFile(built) as archive:
            return archive.read(f"{INFO}METADATA").decode()

    address, revision = "https://code.example/me/csvae-hub", f"v{__version__}"
    found = metadata(build("wheel", ROOT, tmp_path, CSVAE_REPOSITORY=address, CSVAE_REVISION=revision))
    assert f"Project-URL: Repository, {address}\n" in found
    links = re.findall(r'(?:\]\(|src=")([^)"#]+)', found)
    assert len(links) > 20
    for link in links:
        kind, place = re.fullmatch(rf"(?:{address}/(raw|blob)/{revision}/)?(.+)", link).groups()
        assert (ROOT / place).exists() if kind else place.startswith(("https://", "http://"))
        assert (kind == "raw") == place.endswith((".png", ".svg"))
    assert "\nProject-URL" not in metadata(wheel)
    assert (ROOT / "README.md").read_text(encoding="utf-8") in metadata(wheel)
