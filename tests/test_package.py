"""What `import csvae_hub` gives, and what it leaves unimported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import csvae_hub

HEAVY = (
    "torchvision",
    "accelerate",
    "matplotlib",
    "gradio",
    "sklearn",
    "tensorboard",
    "torchmetrics",
    "huggingface_hub",
    "cv2",
)


def modules_after(code):
    """The top-level packages that are imported when the code has run in an interpreter of its own."""
    code = f"{code}\nimport sys, json\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_importing_the_package_imports_nothing_heavy():
    assert modules_after("import csvae_hub; dir(csvae_hub); csvae_hub.__version__").isdisjoint(
        {"torch", "numpy", "PIL", *HEAVY}
    )


@pytest.mark.parametrize("module", ["config", "errors", "exclusive", "hub", "opening", "preprocessing", "text"])
def test_what_runs_without_torch_imports_without_it(module):
    assert "torch" not in modules_after(f"import csvae_hub.{module}")


def test_every_public_name_is_imported_without_what_only_its_use_needs():
    code = "import csvae_hub\nfor name in csvae_hub.__all__: getattr(csvae_hub, name)"
    loaded = modules_after(code)
    assert "torch" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_public_names_and_no_others():
    assert dir(csvae_hub) == sorted([*csvae_hub.__all__, "__version__"])
    assert csvae_hub.__all__ == sorted(csvae_hub._HOMES)


@pytest.mark.parametrize("name", csvae_hub.__all__)
def test_a_public_name_is_that_of_its_home(name):
    thing = getattr(csvae_hub, name)
    assert thing.__name__ == name
    assert thing.__module__.startswith(f"csvae_hub.{csvae_hub._HOMES[name]}")
    assert thing.__doc__


def test_an_unknown_name_is_answered_with_what_there_is():
    with pytest.raises(AttributeError) as caught:
        _ = csvae_hub.CSVAEE
    assert str(caught.value) == (
        "module 'csvae_hub' has no attribute 'CSVAEE': it gives AttributeModel, CSVAE, CondVAE, CondVAEInfo,"
        " FaceEditor, Latents, Trainer, TrainerConfig, VAE, create_model, evaluate, list_backbones, list_models,"
        " register_backbone, to_images"
    )
