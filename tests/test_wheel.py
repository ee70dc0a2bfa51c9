"""What is installed: one wheel, from the tree as from the source archive, with the package and nothing beside it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from csvae_hub import __version__

pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
ROOT = Path(__file__).resolve().parents[1]
LARGEST = 30_000_000
"""Bytes of the wheel: more is a download to think about."""
INFO = f"csvae_hub-{__version__}.dist-info/"


def build(target, tree, folder):
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel):
    with ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_of_the_source_archive_is_the_same_to_the_byte(wheel, tmp_path):
    (tmp_path / "sdist").mkdir()
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "wheel").mkdir()
    again = build("wheel", tmp_path / f"csvae_hub-{__version__}", tmp_path / "wheel")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < LARGEST


def test_the_wheel_holds_the_package_and_nothing_else(names):
    listed = subprocess.run(["git", "ls-files", "csvae_hub"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("the tree is no checkout of git")
    about = {f"{INFO}{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    licences = {f"{INFO}licenses/{name}" for name in ("LICENSE", "csvae_hub/editing/yunet/LICENSE")}
    assert set(names) == {*listed.stdout.splitlines(), *about, *licences}
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
