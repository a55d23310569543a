"""The examples of the documentation."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import pytest

from asl_pinn import bids
from asl_pinn.cli import main
from asl_pinn.data import Status
from asl_pinn.estimators import ESTIMATORS, Estimator
from asl_pinn.simulate import simulate

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"


def test_readme_is_one_screen_and_leads_to_what_is_there():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 40
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.fixture
def dictionary(monkeypatch):
    """The example estimator, registered as its page says."""
    spec = importlib.util.spec_from_file_location("dictionary", EXAMPLES / "dictionary.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "dictionary", module)
    spec.loader.exec_module(module)
    sentence = "The signal was compared with {att_entries} transit times."
    entry = Estimator(module.fit, module.DictionaryOptions, "dictionary matching", sentence)
    monkeypatch.setitem(ESTIMATORS, "dictionary", entry)


@pytest.fixture
def study(tmp_path, phantom, protocol):
    data = simulate(phantom, protocol, tsnr=50.0, seed=0)
    bids.write_simulation(tmp_path / "study", phantom, data, seed=0)
    return tmp_path / "study"


def test_example_estimator_finds_the_truth_from_the_command_line(
    dictionary, study, tmp_path, phantom
):
    arguments = [str(study), str(tmp_path / "maps"), "participant", "--t1_tissue=map"]
    assert main(["asl-pinn", "quantify", *arguments, "--method=dictionary"]) == 0
    stem = tmp_path / "maps" / "sub-01" / "perf" / "sub-01_desc-dictionary"
    for suffix in ("cbf", "att"):
        found = nib.load(f"{stem}_{suffix}.nii.gz").get_fdata()
        true = getattr(phantom, suffix)[phantom.mask]
        assert (found[~phantom.mask] == 0.0).all()
        assert np.median(np.abs(found[phantom.mask] / true - 1.0)) < 0.05
    status = nib.load(f"{stem}Status_dseg.nii.gz").get_fdata()
    assert (status[phantom.mask] == Status.FITTED).all()


def test_example_figure_is_drawn(study, tmp_path, monkeypatch):
    matplotlib.use("agg")
    perf = tmp_path / "maps" / "sub-01" / "perf"
    perf.mkdir(parents=True)
    truth = study / "derivatives" / "truth"
    for method in ("nlls", "spatialMap"):
        for suffix in ("cbf", "att"):
            source = truth / "sub-01" / "perf" / f"sub-01_desc-truth_{suffix}.nii.gz"
            (perf / f"sub-01_desc-{method}_{suffix}.nii.gz").write_bytes(source.read_bytes())
    output = tmp_path / "figure.png"
    monkeypatch.setattr(sys, "argv", ["figure.py", str(truth), str(tmp_path / "maps"), str(output)])
    runpy.run_path(str(EXAMPLES / "figure.py"), run_name="__main__")
    assert output.read_bytes().startswith(b"\x89PNG")
