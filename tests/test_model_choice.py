"""The model that the data choose, and where they are not asked."""

import dataclasses
import json
import pickle

import nibabel as nib
import numpy as np
import pytest
from bids_fixtures import PULSED, write_dataset

import asl_pinn as asl
from asl_pinn.errors import InputError
from asl_pinn.estimators import base, model_choice
from asl_pinn.estimators.model_choice import choose_model
from asl_pinn.estimators.voxelwise.objective import NllsOptions
from asl_pinn.io import bids
from asl_pinn.models.choice import Candidate, ModelChoice, candidates
from asl_pinn.simulation.acquire import simulate
from asl_pinn.workflow import run
from asl_pinn.workflow.cli import main

ARTERIAL = "buxton+arterial"
COARSE = 16


@pytest.fixture(scope="module", autouse=True)
def coarse_grid():
    """A grid that takes a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_choice, "_OPTIONS", NllsOptions(grid=COARSE))
        yield


@pytest.fixture(scope="module")
def vessels(phantom):
    """The small brain with arteries in a tenth of its voxels."""
    x, y, z = np.indices(phantom.mask.shape)
    artery = phantom.mask & ((3 * x + 5 * y + 7 * z) % 10 == 0)
    values = {
        **phantom.values,
        "abv": np.where(artery, 0.02, 0.0),
        "abat": np.where(phantom.mask, 0.55 * phantom.att, 0.0),
    }
    return dataclasses.replace(phantom, values=values)


@pytest.fixture(scope="module")
def arterial(vessels, protocol):
    return simulate(vessels, protocol, tsnr=5.0, seed=0, model=asl.models.get(ARTERIAL))


@pytest.fixture(scope="module")
def choice(arterial):
    return choose_model(arterial)


def without_choice(data) -> str:
    found = choose_model(data)
    assert found.model == candidates(data.protocol)[0]
    assert not found.compared
    assert not found.n_voxels
    return found.reason


def test_arteries_are_found_and_the_numbers_of_the_alternatives_told(choice, vessels):
    assert choice.model == ARTERIAL
    tissue, whole, dispersed = choice.compared
    assert (tissue.model, whole.model) == candidates()[:2]
    assert tissue.evidence == tissue.prediction == 0.0
    assert whole.evidence > 0.1
    assert whole.prediction > 0.1
    assert dispersed.evidence < whole.evidence
    assert dispersed.prediction is None
    true = (vessels["abv"] > 0.0).sum() / vessels.mask.sum()
    assert 0.5 * true < whole.fraction < 1.5 * true
    assert "buxton does not" in choice.sentence


@pytest.mark.parametrize("tsnr", [0.5, 5.0])
def test_without_arteries_tissue_alone_is_chosen(phantom, protocol, tsnr):
    found = choose_model(simulate(phantom, protocol, tsnr=tsnr, seed=0))
    assert found.model == "buxton"
    assert [each.model for each in found.compared] == ["buxton", ARTERIAL]
    assert found.compared[1].prediction is None
    assert found.compared[1].evidence < 0.0
    assert f"{ARTERIAL} does not describe the data better" in found.reason


def test_what_raises_the_evidence_but_predicts_worse_is_not_chosen(arterial, monkeypatch):
    """As correlated noise and motion may do."""
    monkeypatch.setattr(model_choice, "_predictive", lambda whole, left: -whole)
    found = choose_model(arterial)
    assert found.compared[1].evidence > 0.0 > found.compared[1].prediction
    assert found.model == "buxton"


def test_a_model_that_the_delays_do_not_determine_is_not_chosen(arterial, monkeypatch):
    def refuse(problem):
        raise InputError("7 delay(s) do not determine aBAT")

    monkeypatch.setattr(model_choice, "check_identifiable", refuse)
    found = choose_model(arterial)
    assert found.model == "buxton"
    assert "do not determine aBAT" in found.reason


def test_where_the_data_are_not_asked(arterial, phantom):
    def with_protocol(**changes):
        return dataclasses.replace(
            arterial, protocol=dataclasses.replace(arterial.protocol, **changes)
        )

    assert "VascularCrushing" in without_choice(with_protocol(vascular_crushing=True))
    few = asl.AslData.from_arrays(
        arterial.delta_m[..., :4],
        arterial.m0,
        label_duration=arterial.protocol.label_duration[:4],
        pld=arterial.protocol.pld[:4],
    )
    assert "arteries need 5 delays, of which there are 4" in without_choice(few)
    first = np.cumsum(phantom.mask).reshape(phantom.mask.shape) <= 60
    small = dataclasses.replace(arterial, mask=phantom.mask & first)
    assert "60 voxels do not tell" in without_choice(small)
    pulsed = with_protocol(labeling="pulsed", vascular_crushing=True)
    assert choose_model(pulsed).model == "pulsed"
    held = choose_model(arterial, held={"att": 1.2})
    assert held.model == "buxton"
    assert "(att)" in held.reason


def test_a_choice_is_restored_from_what_a_sidecar_states(choice):
    stated = json.loads(json.dumps(choice.stated()))
    assert ModelChoice.restored(choice.model, stated) == choice
    assert pickle.loads(pickle.dumps(choice)) == choice


def test_a_fit_from_python_lets_the_data_choose(arterial, vessels, choice):
    maps = asl.fit(arterial, "nlls", bounds={"abv": (None, 0.5)}, grid=COARSE)
    assert maps.model.name == ARTERIAL
    assert maps.model["abv"].upper == 0.5
    assert maps.choice.model == choice.model
    artery = vessels["abv"] > 0.0
    assert np.median(maps.probability["abv"][artery]) > 0.9
    assert np.median(maps.probability["abv"][vessels.mask & ~artery]) < 0.1
    crushed = dataclasses.replace(arterial.protocol, vascular_crushing=True)
    plain = asl.fit(dataclasses.replace(arterial, protocol=crushed), "nlls", sd="curvature")
    named = asl.fit(arterial, "nlls", model="buxton", sd="curvature")
    assert np.array_equal(plain.cbf, named.cbf)
    assert plain.choice.model == "buxton"
    assert not plain.probability
    assert named.choice is None


def test_the_probability_is_that_of_single_voxels_where_the_method_has_none(arterial):
    problem = base.make_problem(arterial, asl.models.get(ARTERIAL).softened(), "float32")
    found = model_choice.sparse_probability(problem)
    maps = asl.fit(arterial, "nlls", model=ARTERIAL, grid=COARSE)
    assert np.allclose(found["abv"], maps.probability["abv"][arterial.valid], atol=1e-5)


def chosen(study, out, monkeypatch, *options: str) -> list:
    asked = []

    def choose(data, *arguments, **keywords):
        asked.append(data.stem)
        compared = (Candidate("buxton", 0.0, 0.0, 0.0), Candidate(ARTERIAL, 0.5, 0.4, 0.1))
        return ModelChoice(ARTERIAL, "it is made up", 200, compared)

    monkeypatch.setattr(run, "choose_model", choose)
    command = ["asl-pinn", "quantify", str(study), str(out), "participant", "--method=nlls"]
    assert main([*command, "--t1_tissue=map", f"--grid={COARSE}", *options]) == 0
    return asked


@pytest.mark.usefixtures("plain_pictures")
def test_a_run_is_asked_once_and_the_choice_told(arterial, vessels, tmp_path, monkeypatch, capsys):
    study, out = tmp_path / "study", tmp_path / "out"
    bids.write_simulation(study, vessels, arterial, seed=0, model=asl.models.get(ARTERIAL))
    assert chosen(study, out, monkeypatch) == ["sub-01/perf/sub-01"]
    assert f" skipped; model {ARTERIAL}; usable\nreport: " in capsys.readouterr().out
    base_name = out / "sub-01" / "perf" / "sub-01_desc-nlls"
    stated = json.loads(base_name.with_name("sub-01_desc-nlls_cbf.json").read_text())
    assert stated["Model"] == ARTERIAL
    assert stated["ModelChoice"]["Reason"] == "it is made up"
    assert stated["ModelChoice"]["Compared"][ARTERIAL]["LogEvidencePerVoxel"] == 0.5
    image = nib.load(f"{base_name}ABV_probseg.nii.gz")
    values = np.asarray(image.dataobj)
    assert 0.0 <= values.min() < 0.1 < 0.9 < values.max() <= 1.0
    page = base_name.with_name("sub-01_desc-nlls_report.html").read_text()
    assert f"model {ARTERIAL} was chosen, as it is made up" in page
    assert "log evidence per voxel" in page
    assert f"chosen among buxton or {ARTERIAL}" in page
    # maps of the same origin have the answer
    assert chosen(study, out, monkeypatch) == []
    assert "already complete" in capsys.readouterr().out
    assert chosen(study, out, monkeypatch, "--seed=1") == ["sub-01/perf/sub-01"]
    # and so has the sidecar that a result is to be made from again
    before = {path: path.read_bytes() for path in out.rglob("sub-*.nii.gz")}
    sidecar = f"{base_name}_cbf.json"
    assert main(["asl-pinn", "quantify", f"--from={sidecar}"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    stated_again = json.loads(base_name.with_name("sub-01_desc-nlls_cbf.json").read_text())
    assert stated_again["ModelChoice"] == stated["ModelChoice"]


@pytest.mark.usefixtures("plain_pictures")
def test_pulsed_labelling_needs_no_flag(tmp_path, capsys):
    study = write_dataset(tmp_path / "study", metadata=PULSED)
    arguments = ["quantify", str(study), str(tmp_path / "out"), "participant", "--method=nlls"]
    main(["asl-pinn", *arguments])
    (sidecar,) = (tmp_path / "out").rglob("*_desc-nlls_cbf.json")
    assert json.loads(sidecar.read_text())["Model"] == "pulsed"
