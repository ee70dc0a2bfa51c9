"""The files around the package: they parse, and say the same as the project does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from csvae_hub import __version__, hub

ROOT = Path(__file__).resolve().parents[1]
YAML = sorted([*ROOT.glob(".github/**/*.yml"), ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml"])


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_it_parses(path):
    assert read(path)


def test_the_citation_is_of_this_version():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == __version__
    assert citation["preferred-citation"]["authors"][0]["family-names"] == "Klys"


def test_the_changelog_tells_of_this_version():
    citation, changelog = read(ROOT / "CITATION.cff"), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {__version__} - {citation['date-released']}\n" in changelog


@pytest.mark.parametrize("name", ["celeba-64", "celeba-128", "expressions-48"])
def test_readme_says_what_was_measured(name):
    (row,) = re.findall(rf"^\| \[`{name}`\].*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    folder = hub.PACKAGED / name
    figures, size = hub.read_json(folder / "evaluation.json"), (folder / hub.WEIGHTS).stat().st_size
    wished = [f"{100 * figures[part]['wished']:.0f} %" for part in ("attribute_change", "photos")]
    said = " / ".join(wished)
    if figures.get("groups"):
        (group,) = figures["groups"]
        stricter = min(group["judges"].values(), key=lambda judge: judge["accuracy"])
        said = f"{100 * stricter['accuracy']:.0f} %, of real faces {100 * stricter['own_accuracy']:.0f} %"
    config = hub.read_model_config(folder)
    cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
    assert cells == [
        str(config.shape[-1]),
        str(len(config.attributes)),
        f"{size / 1e6:.0f}",
        said,
        f"{figures['reconstruction']['psnr']:.1f} dB",
    ]


def test_the_one_command_measures_what_the_tests_reach():
    for name in ("README.md", "CONTRIBUTING.md", ".github/workflows/tests.yml", ".ci/run"):
        path = ROOT / name
        assert not path.exists() or "-m pytest --cov" in path.read_text(encoding="utf-8"), name
    assert re.search(r"^fail_under = \d\d$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_workflow_tests_every_python_that_is_supported_and_the_oldest_libraries():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    classified = set(re.findall(r"Python :: (3\.\d+)", project))
    matrix = read(ROOT / ".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert classified == {entry["python"] for entry in matrix}
    for name in ("torch", "huggingface-hub"):
        (oldest,) = re.findall(rf'"{name}>=([\d.]+)"', project)
        assert f"{name}=={oldest}.*" in matrix[0]["pins"]


def test_hooks_and_tests_run_the_same_tools():
    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    quality = (ROOT / "tests/test_quality.py").read_text(encoding="utf-8")
    for tool in ("ruff", "pyright", "lint-imports"):
        assert any(tool in hook["entry"] for hook in hooks)
        assert tool in quality


def test_workflows_can_do_no_more_than_they_need():
    for path in ROOT.glob(".github/workflows/*.yml"):
        assert read(path)["permissions"]["contents"] == "read"


def test_the_container_s_command_is_one():
    words = (ROOT / "examples/docker/Dockerfile").read_text(encoding="utf-8").split("CMD ")[1]
    command = [*yaml.safe_load(words)[1:], "--help"]
    assert (
        subprocess.run([sys.executable, "-m", "csvae_hub", *command], capture_output=True, check=False).returncode == 0
    )


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "csvae_hub", "--version"], capture_output=True, text=True, check=True)
    assert __version__ in done.stdout
