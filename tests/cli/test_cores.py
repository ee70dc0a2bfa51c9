"""torch's threads: those of OMP_NUM_THREADS, or no more than the cores there are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from csvae_hub.cli import cores as module
from csvae_hub.cli.cores import cores, obey_the_cores

AVAILABLE = cores()


@pytest.mark.parametrize(
    ("files", "number"),
    [
        ({}, AVAILABLE),
        ({"cpu.max": "max 100000\n"}, AVAILABLE),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, min(AVAILABLE, 2)),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, AVAILABLE),
        ({"cpu.max": "what\n"}, AVAILABLE),
    ],
)
def test_a_container_s_quota_counts(tmp_path, files, number):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cores(tmp_path) == number


def test_threads_are_no_more_than_cores_but_where_the_user_says_so(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(module, "cores", lambda: 1)
    try:
        torch.set_num_threads(3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        obey_the_cores()
        assert torch.get_num_threads() == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        obey_the_cores()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_the_command_obeys_the_environment():
    command = [sys.executable, "-m", "csvae_hub", "env"]
    said = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines()[-1] == f"threads 1 of {AVAILABLE} cores"
