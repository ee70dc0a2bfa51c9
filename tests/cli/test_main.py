"""The group of commands, and `csvae env`."""

from __future__ import annotations

import subprocess
import sys

import torch


def test_help_does_not_import_torch():
    program = (
        "import sys\nfrom csvae_hub.cli import main\n"
        "try: main(['edit', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'PIL', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "NAME=VALUE" in shown
    assert shown.splitlines()[-1] == "[]"


def test_env_names_versions(run):
    shown = run("env").stdout
    assert f"torch {torch.__version__.partition('+')[0]}" in shown
    assert "python 3." in shown


def test_every_command_is_there(run):
    shown = run("--help").stdout
    commands = {line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line.strip()}
    assert commands >= {"edit", "sweep", "map", "list", "info", "train", "eval", "push", "download", "demo", "env"}
