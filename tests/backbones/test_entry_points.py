"""Backbones from installed packages: found by name, kept apart, named when they are missing or broken."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap

import pytest
import torch

from csvae_hub.backbones import ConvBackbone, create_backbone, list_backbones, registry, with_package
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.errors import ConfigError
from csvae_hub.models import CSVAE

LINES = """
import torch
from torch import nn
from csvae_hub.backbones import Backbone, register_backbone

FACTOR = nn.init.uniform_(torch.zeros(1), 2.0, 2.0)

class Lines(Backbone):
    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        self.encoder = nn.Linear(shape[0], config.features)
        self.decoder = nn.Linear(z_dim + condition_dim, shape[0])

    def encode(self, x):
        return FACTOR * self.encoder(x)

    def decode(self, z, condition):
        return self.decoder(torch.cat([z, condition], 1))
"""
MODEL = ModelConfig(("Hat",), shape=(5,), z_dim=2, backbone=BackboneConfig("lines", 4, features=8), adversary=(4,))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with one module and its entry points where Python finds both; gives the module's name."""
    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def install(package, source, **entries):
        module = package.replace("-", "_")
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{attribute}" for name, attribute in entries.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[csvae_hub.backbones]", *lines, ""]))
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        modules.append(module)
        return module

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def create(name, package=""):
    return create_backbone(BackboneConfig(name, 4, features=8, package=package), (5,), 2, 3)


def test_it_is_found_by_its_name_and_imported_no_sooner(install):
    module = install("csvae-lines", LINES, lines="Lines")
    create("mlp")
    assert module not in sys.modules
    assert type(create("lines")).__module__ == module
    assert "lines" in list_backbones()


def test_it_is_listed_among_the_others(install):
    install("csvae-lines", LINES, lines="Lines")
    assert list_backbones() == ["conv", "lines", "mlp", "resnet"]


def test_a_module_may_use_the_decorator_besides(install):
    install("csvae-lines", LINES.replace("class Lines", '@register_backbone("lines")\nclass Lines'), lines="Lines")
    assert type(create("lines")).__name__ == "Lines"
    assert list_backbones() == ["conv", "lines", "mlp", "resnet"]


def test_a_model_and_its_weights_name_the_package(install, tmp_path):
    install("csvae-lines", LINES, lines="Lines")
    model = CSVAE(MODEL).eval()
    assert model.config.backbone.package == "csvae-lines"
    assert model.config == MODEL
    model.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model/config.json").read_text())["backbone"]["package"] == "csvae-lines"


def test_loading_is_what_may_import_it_and_its_own_tensors_are_real(install, tmp_path):
    module = install("csvae-lines", LINES, lines="Lines")
    model = CSVAE(MODEL).eval()
    model.save_pretrained(tmp_path / "model")
    del sys.modules[module], registry._BACKBONES["lines"]
    loaded = CSVAE.from_pretrained(tmp_path / "model", device="cpu")
    assert sys.modules[module].FACTOR.tolist() == [2.0]
    x = torch.randn(4, 5)
    assert torch.equal(loaded.encode(x).z, model.encode(x).z)


def test_own_backbones_name_no_package():
    for name in ("conv", "mlp", "resnet"):
        assert with_package(BackboneConfig(name)).package == ""


def test_a_class_of_one_s_own_is_not_that_of_the_package_which_offers_its_name(install):
    install("csvae-lines", LINES, lines="Lines")

    class Own(registry._BACKBONES["mlp"]):
        pass

    registry.register_backbone("lines")(Own)
    assert with_package(BackboneConfig("lines")).package == ""
    assert type(create("lines")) is Own


def test_a_package_that_was_imported_by_hand_is_named_too(install):
    module = install(
        "csvae-lines", LINES.replace("class Lines", '@register_backbone("lines")\nclass Lines'), lines="Lines"
    )
    importlib.import_module(module)
    assert with_package(BackboneConfig("lines")).package == "csvae-lines"


# -- missing ----------------------------------------------------------------------------------------------------------


def test_weights_whose_backbone_is_not_installed_name_its_package(install, tmp_path):
    install("csvae-lines", LINES, lines="Lines")
    CSVAE(MODEL).save_pretrained(tmp_path / "model")
    del registry._BACKBONES["lines"]
    (tmp_path / "csvae_lines-1.0.dist-info/entry_points.txt").unlink()
    with pytest.raises(ConfigError) as caught:
        CSVAE.from_pretrained(tmp_path / "model")
    assert str(caught.value) == (
        "backbone 'lines' comes with the package 'csvae-lines', which is not installed here."
        " If you trust it: pip install csvae-lines"
    )


def test_a_mistyped_name_is_answered_with_that_of_a_package_which_is_not_imported_for_it(install):
    module = install("csvae-lines", LINES, lines="Lines")
    with pytest.raises(ConfigError) as caught:
        create("liens")
    assert str(caught.value) == "unknown backbone 'liens': did you mean 'lines'? Known: conv, lines, mlp, resnet"
    assert module not in sys.modules


@pytest.mark.parametrize("name", ["os:system", "json", "tests.backbones"])
def test_a_config_can_t_have_anything_else_imported(name):
    with pytest.raises(ConfigError, match=f"^unknown backbone '{name}':"):
        create(name)


@pytest.mark.parametrize("package", ["x; rm -rf ~", "-r evil.txt", "git+https://x", "a b", "a\n", "x" * 101])
def test_what_is_no_package_s_name_is_refused(package):
    with pytest.raises(ConfigError, match=r"^backbone\.package: expected the name of a package, or nothing, got"):
        BackboneConfig(package=package)


def test_the_same_name_from_another_package_is_refused(install):
    install("csvae-lines", LINES, lines="Lines")
    create("lines", package="CSVAE_lines")  # the same to the package index
    with pytest.raises(ConfigError) as caught:
        create("lines", package="other-lines")
    assert str(caught.value) == (
        "backbone 'lines': expected that of package 'other-lines', got that of 'csvae-lines', which is installed"
        " here: uninstall csvae-lines and install other-lines"
    )


# -- broken -----------------------------------------------------------------------------------------------------------

BROKEN = {
    "import": ("import nowhere_to_be_found", "Lines", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "attribute": (LINES, "Curves", "AttributeError: module 'csvae_broken' has no attribute 'Curves'"),
    "no backbone": (LINES, "nn.Linear", "ValueError: backbone 'broken': expected a subclass of csvae_hub.backbones."),
    "no class": (LINES, "FACTOR", "ValueError: backbone 'broken': expected a subclass of csvae_hub.backbones."),
    "halfway": (LINES + "\nregister_backbone('half')(Lines)\n1 / 0", "Lines", "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_package_is_named_when_asked_for_and_breaks_no_other(install, kind):
    source, attribute, reason = BROKEN[kind]
    install("csvae-broken", source, broken=attribute)
    install("csvae-lines", LINES, lines="Lines")
    before = dict(registry._BACKBONES)
    words = f"backbone 'broken' of package 'csvae-broken' can't be loaded ({reason}"
    with pytest.raises(ConfigError) as caught:
        create("broken")
    assert str(caught.value).startswith(words)
    assert str(caught.value).endswith("): upgrade or uninstall csvae-broken")
    assert before == registry._BACKBONES
    assert type(create("lines")).__name__ == "Lines"
    with pytest.warns(UserWarning, match="^backbone 'broken' of package") as warned:
        assert list_backbones() == ["conv", "lines", "mlp", "resnet"]
    assert [str(warning.message).startswith(words) for warning in warned] == [True]


def test_a_package_can_t_take_the_name_of_another_backbone(install):
    install("csvae-lines", LINES, conv="Lines")
    before = dict(registry._BACKBONES)
    with pytest.warns(
        UserWarning, match=r"'csvae-lines' can't be loaded \(ValueError: backbone 'conv' is taken by Conv"
    ):
        assert list_backbones() == ["conv", "mlp", "resnet"]
    assert before == registry._BACKBONES
    assert registry._BACKBONES["conv"] is ConvBackbone
    assert with_package(BackboneConfig("conv")).package == ""


def test_a_name_that_two_packages_offer_is_nobody_s(install):
    install("csvae-lines", LINES, lines="Lines")
    install("other-lines", LINES, lines="Lines")
    words = "^backbone 'lines' is offered by csvae-lines and other-lines: uninstall all but one of them$"
    with pytest.raises(ConfigError, match=words):
        create("lines")
    with pytest.warns(UserWarning, match=words):
        assert list_backbones() == ["conv", "mlp", "resnet"]
