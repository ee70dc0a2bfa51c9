"""The group of commands, and `csvae env`."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from csvae_hub.cli import COMMANDS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "--json"],
        ["info", "celeba-64"],
        ["info", "celeba-64", "--json"],
        *([name, "--help"] for name in COMMANDS),
    ],
    ids=" ".join,
)
def test_what_needs_no_tensors_imports_no_torch(arguments):
    program = (
        "import sys\nfrom csvae_hub.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
        "print([name for name in ('torch', 'PIL', 'numpy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(shown.splitlines()) > 1
    assert shown.splitlines()[-1] == "[]"


def test_env_names_versions(run):
    shown = run("env").stdout
    assert f"torch {torch.__version__.partition('+')[0]}" in shown
    assert "python 3." in shown


def test_the_list_of_commands_has_whole_sentences(run):
    commands = run("-h").stdout.partition("Commands:")[2].strip().splitlines()
    assert len(commands) > 10
    assert all(line.endswith(".") and not line.endswith("..") for line in commands)


def test_every_command_is_there(run):
    shown = run("--help").stdout
    commands = {line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line.strip()}
    assert commands >= {"edit", "sweep", "map", "list", "info", "train", "eval", "push", "download", "demo", "env"}
