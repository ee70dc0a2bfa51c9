"""Pictures with malformed metadata, in one folder, by the command line: `benchmarks/malformed.py` has thousands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def malformed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import malformed

    yield malformed
    del sys.modules["malformed"]


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_malformed_pictures_is_edited_or_named_one_by_one(tmp_path, malformed):
    (tmp_path / "in").mkdir()
    malformed.write(tmp_path / "in", 200, seed=1)
    malformed.tiny_model(tmp_path / "model")
    found = malformed.edit(tmp_path / "in", tmp_path / "model", tmp_path / "out")
    assert "crashed" not in found, found
    assert found["edited"] + found["failed"] == 200
    assert found["edited"] > 100
    assert found["unnamed"] == 0
    assert found["peak_mb"] < 1200
