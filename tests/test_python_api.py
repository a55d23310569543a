"""What people call from Python."""

import subprocess
import sys

import numpy as np
import pytest
from bids_fixtures import PROTOCOL, write_dataset
from matplotlib.figure import Figure

import asl_pinn as asl
from asl_pinn.data import Status
from asl_pinn.errors import InputError
from asl_pinn.io import bids
from asl_pinn.simulation.acquire import simulate


@pytest.fixture(scope="module")
def data(phantom, protocol):
    return simulate(phantom, protocol, tsnr=20.0, seed=0)


def test_the_import_does_not_wait_for_jax():
    code = "import sys, asl_pinn; dir(asl_pinn); "
    code += "assert not {'jax', 'numpy', 'nibabel', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_name_is_there_and_no_other():
    for name in asl.__all__:
        assert name in dir(asl)
        assert getattr(asl, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'quantify'"):
        asl.quantify  # noqa: B018


def test_five_lines_from_a_dataset_to_maps(phantom, protocol, tmp_path):
    study, out = tmp_path / "study", tmp_path / "out"
    bids.write_simulation(study, phantom, simulate(phantom, protocol, tsnr=20.0, seed=0), seed=0)
    data = asl.load(study, participant="01", t1_tissue="map")
    maps = asl.fit(data, "nlls", model="buxton")
    assert isinstance(maps.plot(), Figure)
    files = maps.save(out)
    assert out / "sub-01" / "perf" / "sub-01_desc-nlls_cbf.nii.gz" in files
    assert all(path.is_file() for path in files)
    fitted = maps.status == Status.FITTED
    assert fitted.sum() > 0.9 * phantom.mask.sum()
    for name, values in phantom.values.items():
        assert np.median(np.abs(maps[name][fitted] / values[fitted] - 1.0)) < 0.05
        assert (maps.sd[name][fitted] > 0.0).all()
    assert maps.cbf is maps["cbf"]


def test_arrays_are_fitted_as_files_are(data):
    protocol = data.protocol
    same = asl.AslData.from_arrays(
        data.delta_m,
        data.m0,
        label_duration=protocol.label_duration,
        pld=protocol.pld,
        t1_tissue=data.t1_tissue,
        mask=data.mask,
    )
    expected, found = (
        asl.fit(each, "nlls", model="buxton", sd="curvature") for each in (data, same)
    )
    assert np.array_equal(found.cbf, expected.cbf)


def test_bounds_priors_and_held_values_reach_the_fit(data):
    maps = asl.fit(data, "nlls", model="buxton", bounds={"cbf": (None, 50.0)}, sd="curvature")
    assert maps.cbf.max() <= 50.0
    assert (maps.status == Status.ON_BOUND).any()
    held = asl.fit(data, "nlls", fix={"att": 1.2}, sd="curvature")
    assert held.model.names == ("cbf",)
    tight = asl.fit(data, "nlls", model="buxton", priors={"att": (2.0, 0.001)}, sd="curvature")
    assert np.allclose(tight.att[data.valid], 2.0, atol=0.1)


def test_models_may_be_given_as_such(data):
    by_name = asl.fit(data, "nlls", model="buxton", sd="curvature")
    as_such = asl.fit(data, "nlls", model=asl.models.Buxton(), sd="curvature")
    assert np.array_equal(by_name.att, as_such.att)


def test_samples_of_a_posterior_and_the_history_of_a_fit_are_kept(data):
    maps = asl.fit(
        data,
        "spatial-map",
        model="buxton",
        rounds=2,
        samples=4,
        edge_dof={"att": 0},
        progress=False,
    )
    for name in ("cbf", "att"):
        assert maps.samples[name].shape == (4, *data.mask.shape)
        assert np.ptp(maps.samples[name], axis=0)[data.valid].min() > 0.0
    assert all(np.isfinite(values).all() for values in maps.history.values())
    assert maps.history


def test_the_history_of_a_training_is_kept(data):
    quick = {"steps": 4, "members": 2, "width": 8, "depth": 1, "model": "buxton"}
    maps = asl.fit(data, "neural-field", progress=False, **quick)
    assert maps.history
    assert all(np.isfinite(values).all() for values in maps.history.values())
    assert not maps.samples


def test_float64_needs_no_preparation(data):
    single, double = (
        asl.fit(data, "nlls", model="buxton", dtype=dtype, sd="curvature") for dtype in "fd"
    )
    assert double.cbf.dtype == np.float64
    assert single.cbf.dtype == np.float32
    assert np.allclose(single.cbf, double.cbf, rtol=1e-2)


def test_reprs_are_one_short_line(data, phantom):
    maps = asl.fit(data, "nlls", model="buxton", sd="curvature")
    for thing in (data, maps, phantom):
        assert len(repr(thing)) < 120
        assert "\n" not in repr(thing)
    assert repr(maps).startswith("Maps(nlls: medians CBF 54.0 mL/100g/min, ATT 1.40 s")


@pytest.mark.parametrize(
    ("method", "choices", "message"),
    [
        ("magic", {}, "unknown method 'magic'"),
        ("nlls", {"model": "magic"}, "unknown model 'magic'"),
        ("nlls", {"rounds": 3}, "nlls has no option 'rounds', only "),
        ("nlls", {"grid": "many"}, "nlls: option grid is a whole number, not 'many'"),
        (
            "nlls",
            {"model": "buxton", "bounds": {"abv": (0, 1)}},
            "model buxton has no parameter 'abv', only cbf, att",
        ),
        (
            "nlls",
            {"bounds": {"t1_tissue": (0, 1)}},
            "has no parameter 't1_tissue', only cbf, att, ",
        ),
        ("nlls", {"fix": {"abv": 1}}, "model buxton has no parameter 'abv', only cbf, att"),
        ("spatial-map", {"edge_dof": {"t1_tissue": 1}}, "the model has no parameter 't1_tissue'"),
    ],
)
def test_choices_that_there_are_not_are_refused(data, method, choices, message):
    with pytest.raises(InputError) as caught:
        asl.fit(data, method, **choices)
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    for stem, folder in (
        ("sub-01_ses-1_run-01", "sub-01/ses-1/perf"),
        ("sub-01_ses-1_run-02", "sub-01/ses-1/perf"),
        ("sub-01_ses-2_acq-fast", "sub-01/ses-2/perf"),
        ("sub-02", "sub-02/perf"),
    ):
        write_dataset(root, stem=stem, folder=folder)
    return root


@pytest.mark.parametrize(
    ("selected", "stem"),
    [
        ({"participant": "02"}, "sub-02/perf/sub-02"),
        ({"participant": "sub-02"}, "sub-02/perf/sub-02"),
        ({"session": "1", "run": 2}, "sub-01/ses-1/perf/sub-01_ses-1_run-02"),
        ({"session": "ses-2"}, "sub-01/ses-2/perf/sub-01_ses-2_acq-fast"),
        ({"acquisition": "fast"}, "sub-01/ses-2/perf/sub-01_ses-2_acq-fast"),
    ],
)
def test_one_series_is_chosen_by_its_labels(study, selected, stem):
    data = asl.load(study, **selected)
    assert data.stem == stem
    assert np.allclose(data.protocol.pld, PROTOCOL.pld)


def test_several_series_or_none_are_listed(study):
    with pytest.raises(InputError, match="2 of its ASL series match") as caught:
        asl.load(study, participant="01", session=1)
    assert "run= from sub-01_ses-1_run-01, sub-01_ses-1_run-02" in str(caught.value)
    with pytest.raises(InputError, match="none of its ASL series match") as caught:
        asl.load(study, participant="01", session=3)
    assert "sub-01_ses-2_acq-fast" in str(caught.value)
    with pytest.raises(InputError, match="no participant sub-09"):
        asl.load(study, participant="09")


def test_notes_of_the_reader_are_logged(tmp_path, caplog):
    write_dataset(tmp_path, mask=None)
    asl.load(tmp_path)
    assert any("no mask in the dataset" in record.message for record in caplog.records)


def test_constants_and_mask_may_be_given(study, tmp_path):
    data = asl.load(study, participant="02", t1_blood=1.5, t1_tissue=1.1)
    assert data.protocol.t1_blood == 1.5
    assert np.allclose(data.t1_tissue, 1.1)
    with pytest.raises(InputError, match="nonexistent"):
        asl.load(study, participant="02", mask=tmp_path / "nonexistent.nii.gz")
    with pytest.raises(InputError, match="nonexistent"):
        asl.load(study, participant="02", t1_tissue=tmp_path / "nonexistent.nii.gz")


def test_a_simulation_is_the_truth_and_the_same_data_each_time(phantom, protocol):
    truth, data = asl.simulate(phantom, tsnr=5.0, seed=3)
    assert truth.mask.shape == (*phantom.mask.shape[:2], 1)
    assert np.array_equal(truth.cbf[..., 0], phantom.cbf[..., 1])
    assert np.allclose(data.protocol.pld, protocol.pld)
    assert np.array_equal(data.delta_m, asl.simulate(phantom, tsnr=5.0, seed=3)[1].delta_m)
    assert not np.array_equal(data.delta_m, asl.simulate(phantom, tsnr=5.0, seed=4)[1].delta_m)


def test_schedules_are_named_listed_or_a_protocol(phantom):
    durations = asl.schedules.label_durations("free_lunch", 5)
    protocol = asl.schedules.time_encoded_protocol(durations)
    named, listed, whole = (
        asl.simulate(phantom, schedule=schedule, n_delays=5, slice="all")[1]
        for schedule in ("free_lunch", list(durations), protocol)
    )
    assert np.array_equal(named.delta_m, listed.delta_m)
    assert np.array_equal(named.delta_m, whole.delta_m)
    assert named.mask.shape == phantom.mask.shape


def test_simulations_of_other_models(phantom):
    _, plain = asl.simulate(phantom, tsnr=np.inf)
    _, inferred = asl.simulate(phantom, tsnr=np.inf, model="buxton+t1")
    assert np.allclose(plain.delta_m, inferred.delta_m)
    with pytest.raises(InputError, match="phantom 'brain' is unknown"):
        asl.simulate("brain")
    with pytest.raises(InputError, match="slice '7'"):
        asl.simulate(phantom, slice=7)
