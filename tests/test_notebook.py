"""The notebook runs from its first cell to its last, and is stored without what it printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"
SMALL = "FACES, EPOCHS = 64, 3"
"""What takes the place of the cell that is tagged "parameters": a training of seconds."""


def cells(kind):
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_it_is_stored_without_outputs():
    assert [cell["id"] for cell in cells("code") if cell["outputs"] or cell["execution_count"]] == []


def test_it_says_before_each_step_what_comes():
    heads = [line for cell in cells("markdown") for line in cell["source"] if line.startswith("#")]
    assert len(heads) >= 5


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each code cell gave, by its id: the types of data shown, and the text."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat, which reads notebooks, is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient, which runs notebooks, is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel, in which notebooks run, is not installed")
    folder = tmp_path_factory.mktemp("notebook")
    for photo in EXAMPLES.glob("*.png"):
        shutil.copy(photo, folder)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (sizes,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    sizes.source = SMALL
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def shown(outputs, kind):
    return {name for name, found in outputs.items() for one in found if kind in one.get("data", {})}


def test_it_runs_and_shows_its_pictures(outputs):
    assert shown(outputs, "image/png") == {"load", "glasses", "sweep", "map", "aligned", "switch"}


def test_it_trains_and_measures(outputs):
    assert "CSVAE(3×32×32" in outputs["fit"][-1].data["text/plain"]
    (table,) = outputs["evaluate"][-1:]
    assert "64 faces, 3 epochs" in table.data["text/markdown"]
    assert "%" in table.data["text/markdown"]


def test_it_warns_of_nothing(outputs):
    said = [one.text for found in outputs.values() for one in found if one.get("name") == "stderr"]
    ours = [text for text in said if "Warning" in text and "TqdmWarning" not in text]  # Jupyter without ipywidgets
    assert ours == []
