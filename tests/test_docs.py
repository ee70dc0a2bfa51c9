from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageChops, ImageStat

ROOT = Path(__file__).resolve().parents[1]
EQUATIONS = (ROOT / "docs/equations.md").read_text(encoding="utf-8")


def test_docs_build_without_warnings(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
    assert (tmp_path / "site/equations/index.html").is_file()
    assert "negative_entropy" in (tmp_path / "site/api/losses/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(csvae_hub(?:\.\w+)+)`", EQUATIONS))))
def test_functions_named_beside_the_equations_exist(name):
    module, _, function = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:  # a method: the class is one step up
        module, _, cls = module.rpartition(".")
        found = getattr(importlib.import_module(module), cls)
    assert callable(getattr(found, function))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", EQUATIONS))))
def test_tests_named_beside_the_equations_exist(name):
    path, _, function = name.partition("::")
    assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 150


def test_contributing_names_every_part_of_the_package():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    layout = text.partition("## How the code is laid out")[2].partition("## How it is written")[0]
    folders = {path.parent.name + "/" for path in (ROOT / "csvae_hub").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "csvae_hub").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"(?:^    |  )(\w+(?:\.py|/))", layout, re.MULTILINE)) == folders | modules


def test_every_promise_of_security_names_tests_that_exist():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "| ---"))]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", row.rpartition(" | ")[2] or row)
        assert named, row
        assert all((ROOT / path).exists() for path in named), row


def test_the_examples_on_training_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setitem(sys.modules, "lightning", SimpleNamespace(LightningModule=LightningStandIn))
    names = {"__name__": "example"}
    exec(compile("\n".join(examples), "docs/training.md", "exec"), names)
    assert re.search(r"^3 epochs, least error 0\.\d{4}$", capsys.readouterr().out, re.MULTILINE)
    for run in ("mine", "stops-early"):
        assert (tmp_path / "runs" / run / "model/model.safetensors").is_file()
    training = names["training"]
    training.made = training.configure_optimizers()
    before = {name: p.detach().clone() for name, p in training.named_parameters() if p.requires_grad}
    training.training_step(names["data"].batch(range(16)), 0)
    after = dict(training.named_parameters())
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    assert {"reconstruction", "kl_w", "negative_entropy"} <= training.logged.keys()


class LightningStandIn(torch.nn.Module):
    """The methods of a `LightningModule` that manual optimisation uses."""

    def optimizers(self):
        return self.made

    def manual_backward(self, loss):
        assert not self.automatic_optimization
        loss.backward()

    def log_dict(self, values):
        self.logged = values


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("[x](nowhere.md)", "'nowhere.md'"),
        ("[x](results/nowhere.json)", "'results/nowhere.json'"),
        ("[x](photos.md#no-such-place)", "#no-such-place"),
        ("[x](#no-such-place)", "#no-such-place"),
        ("[x](/photos/)", "absolute link '/photos/'"),
        ("[x](photos)", "unrecognized relative link 'photos'"),
        ("[`x`][csvae_hub.nothing]", "csvae_hub.nothing"),
    ],
)
def test_the_strict_build_fails_on_a_broken_link(tmp_path, link, complaint):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("api", "images"))
    (tmp_path / "docs/images").mkdir()
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.png"))
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    (tmp_path / "docs/broken.md").write_text(f"# Broken\n\n{link}\n", encoding="utf-8")
    settings = {"INHERIT": str(ROOT / "mkdocs.yml"), "nav": ["broken.md", "photos.md"], "docs_dir": "docs"}
    (tmp_path / "mkdocs.yml").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    build = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    said = [line for line in build.stderr.splitlines() if "'broken.md'" in line or "broken.md:" in line]
    assert build.returncode == 1
    assert any(complaint in line for line in said), build.stderr


def test_each_how_to_page_has_a_picture():
    guide = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("  - Guide:\n")[2].partition("  - Method:\n")[0]
    pages = {*re.findall(r": ([\w-]+)\.md$", guide, re.MULTILINE), "evaluation", "concepts", "models"}
    assert len(pages) > 14
    for page in pages - {"format", "ethics"}:  # these show nothing that a picture could say
        shown = re.findall(r"!\[.+\]\((images/[\w.-]+)\)", (ROOT / f"docs/{page}.md").read_text(encoding="utf-8"))
        assert shown, page
        assert all((ROOT / "docs" / path).is_file() for path in shown)


def test_the_script_of_the_pages_draws_their_pictures(tmp_path, monkeypatch):
    drawn = runpy.run_path(str(ROOT / "benchmarks/pages.py"))
    monkeypatch.setattr(sys, "argv", ["pages.py", "-o", str(tmp_path)])
    drawn["main"]()
    for name in drawn["PICTURES"]:
        kept = ROOT / "docs/images" / name
        if kept.suffix == ".svg":
            assert (tmp_path / name).read_text(encoding="utf-8") == kept.read_text(encoding="utf-8")
        else:
            with Image.open(tmp_path / name) as fresh, Image.open(kept) as old:
                assert fresh.size == old.size
                difference = ImageChops.difference(fresh.convert("RGB"), old.convert("RGB"))
            assert max(ImageStat.Stat(difference).mean) < 2  # of 255: other versions of the libraries round otherwise
        assert any(f"images/{name}" in page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))


def test_the_logo_is_drawn_by_its_script_and_is_legible():
    script = runpy.run_path(str(ROOT / "benchmarks/logo.py"))
    assert (ROOT / "docs/images/logo.svg").read_text(encoding="utf-8") == script["logo"]()
    assert contrast(script["FACE"], script["TILE"]) > 4.5  # the W3C's bound for text
    assert contrast(script["ATTRIBUTE"], script["TILE"]) > 4.5
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "logo: images/logo.svg" in settings
    assert "favicon: images/logo.svg" in settings


def contrast(first, second):
    """The ratio of luminances of two colours #rrggbb, by WCAG 2."""

    def luminance(colour):
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)
