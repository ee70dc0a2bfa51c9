"""`csvae env`: versions and devices."""

from __future__ import annotations

import importlib.metadata
import platform

import click

from csvae_hub.cli.common import echo
from csvae_hub.cli.cores import cores, obey_the_cores

PACKAGES = (
    "torch",
    "torchvision",
    "huggingface-hub",
    "safetensors",
    "pillow",
    "numpy",
    "accelerate",
    "tensorboard",
    "datasets",
    "webdataset",
    "torchmetrics",
    "scikit-learn",
    "matplotlib",
    "opencv-python-headless",
    "gradio",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


@click.command("env")
def command() -> None:
    """Show the versions and devices that a bug report should name."""
    import torch

    obey_the_cores()
    echo(f"csvae-hub {_version('csvae-hub')}")
    echo(f"python {platform.python_version()} on {platform.platform()}")
    for package in PACKAGES:
        echo(f"{package} {_version(package)}")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    echo(f"cuda {', '.join(devices) or 'none'}")
    echo(f"threads {torch.get_num_threads()} of {cores()} cores")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
