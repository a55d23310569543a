"""The examples of the documentation."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import pytest

import asl_pinn as asl
from asl_pinn.data import Status
from asl_pinn.estimators.registry import ESTIMATORS, method_names
from asl_pinn.io import bids
from asl_pinn.io.bids import desc_label
from asl_pinn.simulation.acquire import simulate
from asl_pinn.workflow.cli import main

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
MODEL = "dispersed:Dispersed"


def test_readme_leads_to_what_is_there():
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.fixture
def examples(monkeypatch):
    """The examples, to be imported and registered as their pages say."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(ESTIMATORS, "dictionary", "dictionary:DICTIONARY")
    yield
    for name in ("dictionary", "dispersed"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def study(tmp_path_factory, phantom, protocol):
    folder = tmp_path_factory.mktemp("study") / "study"
    data = simulate(phantom, protocol, tsnr=50.0, seed=0)
    bids.write_simulation(folder, phantom, data, seed=0)
    return folder


@pytest.mark.parametrize("model", ["buxton", "buxton+t1", MODEL])
@pytest.mark.usefixtures("examples", "plain_pictures")
def test_example_estimator_finds_the_truth_of_each_model(study, tmp_path, phantom, model):
    arguments = [str(study), str(tmp_path), "participant", "--t1_tissue=map", f"--model={model}"]
    if model == MODEL:
        arguments.append("--fix=dispersion=0.01")
    assert main(["asl-pinn", "quantify", *arguments, "--method=dictionary"]) == 0
    stem = tmp_path / "sub-01" / "perf" / "sub-01_desc-dictionary"
    for suffix in ("cbf", "att"):
        found = nib.load(f"{stem}_{suffix}.nii.gz").get_fdata()
        true = getattr(phantom, suffix)[phantom.mask]
        assert (found[~phantom.mask] == 0.0).all()
        assert np.median(np.abs(found[phantom.mask] / true - 1.0)) < 0.05
    status = nib.load(f"{stem}Status_dseg.nii.gz").get_fdata()
    assert (status[phantom.mask] == Status.FITTED).all()


def test_example_model_works_from_the_command_line(study, tmp_path):
    """In a process that knows it by PYTHONPATH alone, as users have it."""
    arguments = [study, tmp_path, "participant", f"--model={MODEL}", "--method=nlls"]
    command = [sys.executable, "-m", "asl_pinn", "quantify", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dispersion 0." in done.stdout
    assert len((EXAMPLES / "dispersed.py").read_text().splitlines()) <= 40


@pytest.mark.usefixtures("examples")
def test_example_model_recovers_its_truth(phantom):
    true = np.where(phantom.mask, 0.3, 0.0)
    dispersed = asl.Phantom(
        {**phantom.values, "dispersion": true},
        phantom.m0,
        phantom.t1_tissue,
        phantom.mask,
        phantom.grey_matter,
        phantom.affine,
    )
    _, data = asl.simulate(dispersed, tsnr=200.0, slice="all", model=MODEL)
    maps = asl.fit(data, "nlls", model=MODEL, priors={"dispersion": (0.2, 0.3)}, sd="curvature")
    fitted = maps.status == Status.FITTED
    assert fitted.sum() > 0.8 * phantom.mask.sum()
    assert abs(np.median(maps["dispersion"][fitted]) - 0.3) < 0.03
    assert np.median(np.abs(maps.att - phantom.att)[fitted]) < 0.05


QUICK = {
    "spatial-map": ["--rounds=20", "--samples=4"],
    "neural-field": ["--steps=20", "--members=4", "--width=16"],
    "pinn": ["--steps=20", "--batch_size=64", "--ode_width=16", "--signal_width=16"],
    "nlls-smoothed": ["--smoothing_fwhm=1.0"],
}
"""Flags that make a method quick enough for a test."""


@pytest.mark.usefixtures("examples", "plain_pictures")
@pytest.mark.parametrize("method", method_names())
def test_example_model_works_with_every_method(method, study, tmp_path, phantom):
    arguments = [str(study), str(tmp_path), "participant", f"--model={MODEL}"]
    flags = [f"--method={method}", *QUICK.get(method, [])]
    assert main(["asl-pinn", "quantify", *arguments, *flags]) == 0
    stem = tmp_path / "sub-01" / "perf" / f"sub-01_desc-{desc_label(method)}"
    kinds = ("", "Sd") if method != "pinn" else ("",)  # one network knows no SD
    for name in ("cbf", "att", "dispersion"):
        for kind in kinds:
            found = nib.load(f"{stem}{kind}_{name}.nii.gz").get_fdata()[phantom.mask]
            assert np.isfinite(found).all()
            assert (found > 0.0).mean() > 0.9


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
