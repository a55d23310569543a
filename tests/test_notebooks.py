from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "experiments" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("ASL_PINN_NOTEBOOK_STEPS", "2")
    monkeypatch.setenv("ASL_PINN_NOTEBOOK_ROUNDS", "2")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["design", "first_look", "in_vivo"]
