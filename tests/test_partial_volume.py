"""Grey and white matter told apart: the model, the regression, the fractions, the files."""

import dataclasses

import jax
import numpy as np
import pytest
from bids_fixtures import MASK, SHAPE, save_nifti, write_dataset

import asl_pinn as asl
from asl_pinn import models
from asl_pinn.acquisition.protocol import label_durations, time_encoded_protocol
from asl_pinn.data import AslData, Status
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import Estimate, without_absent
from asl_pinn.estimators.partial_volume import kernel_edges, pure_images
from asl_pinn.io import bids
from asl_pinn.io.bids.tissues import fractions_from_t1
from asl_pinn.models.partial_volume import pure_model
from asl_pinn.problem import join, make_problem, split, take
from asl_pinn.workflow.cli import main

MODEL = models.get("partial-volume")
TRUTH = {"cbf_gm": 60.0, "att_gm": 1.1, "cbf_wm": 20.0, "att_wm": 1.5}
PROTOCOL = time_encoded_protocol(label_durations("t1_adjusted", 7))
TIMES = {"t": PROTOCOL.t, "label_duration": PROTOCOL.label_duration}


def brain(shape: tuple[int, int, int] = (16, 12, 1), noise: float = 0.0) -> AslData:
    """Tissue whose fractions vary, with the same perfusion everywhere; the first rows are fluid."""
    rng = np.random.default_rng(3)
    gm, wm = rng.dirichlet([1.0, 1.0, 0.4], shape)[..., :2].transpose(3, 0, 1, 2)
    gm[0], wm[0] = 0.05, 0.02
    m0 = 1000.0 * (0.98 * gm + 0.82 * wm + 1.15 * (1.0 - gm - wm))
    signal = MODEL.curve(TRUTH, **TIMES, m0=m0[..., None], gm=gm[..., None], wm=wm[..., None])
    noisy = signal + noise * rng.standard_normal(signal.shape)
    return AslData.from_arrays(
        noisy, m0, label_duration=PROTOCOL.label_duration, pld=PROTOCOL.pld, gm=gm, wm=wm
    )


def test_a_voxel_of_one_tissue_is_buxtons_model_of_it():
    for label, t1, coefficient in (("gm", 1.33, 0.98), ("wm", 0.83, 0.82)):
        whole = {name: float(name == label) for name in ("gm", "wm")}
        pure = models.Buxton().curve(
            {"cbf": TRUTH[f"cbf_{label}"], "att": TRUTH[f"att_{label}"]},
            **TIMES,
            t1_tissue=t1,
            partition_coefficient=coefficient,
        )
        np.testing.assert_allclose(MODEL.curve(TRUTH, **TIMES, **whole), pure, rtol=1e-5)


def test_fluid_in_a_voxel_takes_signal_away_and_does_not_bias_the_m0_of_blood():
    # Blood of M0 1000: the water of each tissue is that of blood times its coefficient.
    full = MODEL.curve(TRUTH, **TIMES, m0=980.0, gm=1.0, wm=0.0)
    half = MODEL.curve(TRUTH, **TIMES, m0=0.5 * 980.0 + 0.5 * 1150.0, gm=0.5, wm=0.0)
    np.testing.assert_allclose(half, 0.5 * full, rtol=1e-5)


def test_arteries_beside_it_have_the_same_m0_of_blood():
    both = models.get("partial-volume+arterial")
    values = {**TRUTH, "cbf_gm": 0.0, "cbf_wm": 0.0, "abv": 0.01, "abat": 0.5}
    in_grey = both.curve(values, **TIMES, m0=980.0, gm=1.0, wm=0.0)
    in_fluid = both.curve(values, **TIMES, m0=1150.0, gm=0.0, wm=0.0)
    assert float(in_grey.max()) > 0.0
    np.testing.assert_allclose(in_grey, in_fluid, rtol=1e-5)


def test_fractions_stay_with_their_voxels():
    problem = make_problem(brain(), MODEL, np.float32)
    again = join(*split(problem))
    few = take(problem, np.array([3, 1]))
    assert np.array_equal(again.tissue.gm, problem.tissue.gm)
    assert np.array_equal(few.tissue.wm, problem.tissue.wm[[3, 1]])
    assert make_problem(brain(), models.get("buxton"), np.float32).tissue.gm is None


def test_the_regression_finds_pure_tissue_where_it_is_the_same_everywhere():
    problem = make_problem(brain(), MODEL, np.float32)
    images = pure_images(problem, (5, 5, 1))
    pure = {"m0": 1000.0 * np.array([[0.98], [0.82]]), "gm": [[1.0], [0.0]], "wm": [[0.0], [1.0]]}
    expected = np.asarray(MODEL.curve(TRUTH, **TIMES, **{n: np.array(v) for n, v in pure.items()}))
    found = 1000.0 * images.signal
    assert np.abs(found - expected[..., None]).max() < 1e-3 * expected.max()


def test_the_regression_states_its_noise():
    data, draws = brain(), np.random.default_rng(0)
    problem = make_problem(data, MODEL, np.float32)
    noise = draws.standard_normal((400, problem.n_voxels)).astype(np.float32)
    images = pure_images(dataclasses.replace(problem, measured=noise), (5, 5, 1))
    scaled = images.signal.std(axis=1) * np.sqrt(images.precision)
    assert abs(np.median(scaled) - 1.0) < 0.02
    assert np.all(abs(scaled - 1.0) < 0.2)


def test_voxelwise_fits_find_both_tissues_where_they_are():
    data = brain()
    maps = asl.fit(data, "nlls", model="partial-volume", progress=False)
    told = {"GM": data.gm >= 0.1, "WM": data.wm >= 0.1}
    for p in MODEL.parameters:
        values, where = maps[p.name], told[p.tissue]
        assert np.all(values[~where] == 0.0)
        assert np.array_equal(maps.told(p.name), where)
        assert abs(np.median(values[where]) / TRUTH[p.name] - 1.0) < 0.02
        assert np.all(maps.sd[p.name][where] > 0.0)
    fluid = ~told["GM"] & ~told["WM"]
    assert fluid.any()
    assert np.array_equal(maps.status == Status.SKIPPED, fluid)


def test_every_method_masks_what_hardly_is_there():
    problem = take(make_problem(brain(), MODEL, np.float32), np.arange(4))
    gm, wm = np.array([0.9, 0.05, 0.5, 0.02]), np.array([0.05, 0.9, 0.4, 0.03])
    problem = dataclasses.replace(problem, tissue=problem.tissue._replace(gm=gm, wm=wm))
    ones = np.ones((4, 4), np.float32)
    found = without_absent(Estimate(ones, np.ones(4, int), ones, samples=ones[None]), problem, 0.1)
    expected = np.array([[1, 0, 1, 0]] * 2 + [[0, 1, 1, 0]] * 2)
    for values in (found.values, found.sd, found.samples[0]):
        assert np.array_equal(values, expected)
    assert found.status.tolist() == [*[Status.FITTED] * 3, Status.SKIPPED]


@pytest.mark.parametrize(("model", "named"), [("arterial", "aBV"), ("t1", "T1")])
def test_what_belongs_to_no_tissue_is_refused_by_voxelwise_fits(model, named):
    with pytest.raises(InputError, match=f"{named}.*neither tissue.*spatial-map"):
        pure_model(models.get(f"partial-volume+{model}"), "GM")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"gm": None, "wm": None}, {}, r"needs the fractions.*--gm and --wm"),
        ({}, {"pv_kernel": "4x4x1"}, r"--pv_kernel is three odd numbers.*4x4x1"),
        ({}, {"min_fraction": 1.1}, r"no voxel has 1\.1 of GM: check --gm"),
    ],
)
def test_what_a_fit_cannot_work_with_is_refused_in_one_line(changes, options, message):
    data = dataclasses.replace(brain(), **changes)
    with pytest.raises(InputError, match=message):
        asl.fit(data, "nlls", model="partial-volume", progress=False, **options)


@pytest.mark.parametrize("text", ["5x5", "1x1x1", "5x5x0", "axbxc"])
def test_kernels_that_are_none(text):
    with pytest.raises(InputError, match="--pv_kernel"):
        kernel_edges(text)


@pytest.mark.parametrize(
    ("gm", "wm", "message"),
    [
        (0.5, None, "both grey and white matter"),
        (50.0, 50.0, "gm must be fractions between 0 and 1"),
        (0.8, 0.8, "the sum of gm and wm must be"),
    ],
)
def test_fractions_that_cannot_be(gm, wm, message):
    with pytest.raises(InputError, match=message):
        AslData.from_arrays(np.ones((2, 2, 1, 3)), 1.0, label_duration=1.8, pld=1.8, gm=gm, wm=wm)


def test_fractions_from_t1_are_those_that_were_mixed():
    wm = np.array([1.0, 0.7, 0.0, 0.0, 0.0])
    gm = np.array([0.0, 0.3, 1.0, 0.4, 0.0])
    rate = gm / 1.33 + wm / 0.83 + (1.0 - gm - wm) / 4.3
    found = fractions_from_t1(1.0 / rate, 1.33, 0.83)
    np.testing.assert_allclose(found, (gm, wm), atol=1e-6)


GM = np.where(MASK, 0.6, 0.0).astype(np.float32)
WM = np.where(MASK, 0.3, 0.0).astype(np.float32)


def put(root, gm=GM, wm=WM, folder="sub-01/perf", stem="sub-01", **affine):
    for label, volume in (("GM", gm), ("WM", wm)):
        name = f"{stem}_label-{label}_probseg.nii.gz"
        save_nifti(root / "derivatives" / "seg" / folder / name, volume, **affine)


@pytest.mark.parametrize(
    ("folder", "stem"), [("sub-01/perf", "sub-01"), ("sub-01/anat", "sub-01_acq-mprage_space-asl")]
)
def test_fractions_are_found_among_the_derivatives(tmp_path, folder, stem):
    put(write_dataset(tmp_path), folder=folder, stem=stem)
    data = asl.load(tmp_path)
    assert np.array_equal(data.gm, GM)
    assert np.array_equal(data.wm, WM)


def test_derivatives_on_another_grid_or_in_another_space_are_passed_over(tmp_path):
    write_dataset(tmp_path)
    put(tmp_path, folder="sub-01/anat", affine=np.eye(4))
    put(tmp_path, stem="sub-01_space-MNI152NLin6Asym")
    data, notes = bids.read_run(bids.find_runs(tmp_path)[0], gm="derivatives")
    assert data.gm is None
    (note,) = (message for message in notes.messages if "fractions" in message)
    assert "sub-01_label-GM_probseg" in note
    assert "MNI" not in note


@pytest.mark.parametrize(
    ("gm", "affine", "message"),
    [
        (100.0 * GM, {}, "holds values up to 60, as percent do"),
        (0.0 * GM, {}, "is 0 everywhere"),
        (GM + WM, {}, "the sum of gm and wm"),
        (GM, {"affine": np.eye(4)}, "sub-01_asl.nii.gz"),
    ],
)
def test_images_that_hold_no_fractions(tmp_path, gm, affine, message):
    write_dataset(tmp_path)
    put(tmp_path, gm=gm, **affine)
    folder = tmp_path / "derivatives" / "seg" / "sub-01" / "perf"
    paths = [folder / f"sub-01_label-{label}_probseg.nii.gz" for label in ("GM", "WM")]
    with pytest.raises(InputError, match=message):
        asl.load(tmp_path, gm=paths[0], wm=paths[1])
    with pytest.raises(InputError, match="both grey and white matter, --gm and --wm"):
        asl.load(tmp_path, gm=paths[0])


def test_fractions_by_t1_at_the_field_strength(tmp_path):
    write_dataset(tmp_path, metadata={"MagneticFieldStrength": 7})
    save_nifti(tmp_path / "t1.nii.gz", np.full(SHAPE, 1.94, np.float32))
    data = asl.load(tmp_path, gm="t1", t1_tissue=tmp_path / "t1.nii.gz")
    assert (data.protocol.t1_gm, data.protocol.t1_wm) == (1.94, 1.13)
    np.testing.assert_allclose(data.gm[MASK], 1.0, atol=1e-5)
    with pytest.raises(InputError, match="--gm=t1 needs a map of T1"):
        asl.load(tmp_path, gm="t1")


@pytest.mark.usefixtures("plain_pictures")
def test_maps_of_tissues_from_the_command_line(tmp_path, capsys):
    study, output = tmp_path / "study", tmp_path / "out"
    tissue = np.random.default_rng(0).dirichlet([2.0, 2.0, 0.5], SHAPE).astype(np.float32)
    write_dataset(study)
    put(study, tissue[..., 0], tissue[..., 1])
    command = ["asl-pinn", "quantify", str(study), str(output), "participant", "--method=nlls"]
    command.append("--m0_scale=3")  # so that what is no brain passes for one
    fixed = "--fix=att_gm=1.1,att_wm=1.4"
    assert main([*command, "--model=buxton", "--fix=att=1.2"]) == 0
    assert main([*command, "--model=partial-volume", fixed]) == 0
    perf = output / "sub-01" / "perf"
    maps = sorted(path.name.removeprefix("sub-01_desc-") for path in perf.glob("*.nii.gz"))
    assert maps == [
        "nllsGMSd_cbf.nii.gz",
        "nllsGM_cbf.nii.gz",
        "nllsStatus_dseg.nii.gz",
        "nllsWMSd_cbf.nii.gz",
        "nllsWM_cbf.nii.gz",
    ]
    stated = bids.read_finished(output, "sub-01/perf/sub-01", "nlls", models.get("partial-volume"))
    assert stated["T1WhiteMatter"] == 0.83
    assert any("label-WM_probseg" in source for source in stated["Sources"])
    report = (perf / "sub-01_desc-nlls_report.html").read_text()
    assert "linear regression on the tissue fractions over 5x5x5 voxels" in report
    assert "sub-01" in (output / "group_desc-nlls_report.html").read_text()
    capsys.readouterr()
    assert main([*command, "--model=partial-volume", fixed]) == 0
    assert "already complete" in capsys.readouterr().out
    # Gone again, with the model that they are of
    assert main([*command, "--model=buxton", "--fix=att=1.2"]) == 0
    assert not list(perf.glob("*nllsGM*"))


def test_without_fractions_the_command_says_what_it_needs(tmp_path, capsys):
    write_dataset(tmp_path)
    arguments = [str(tmp_path), str(tmp_path / "out"), "participant", "--model=partial-volume"]
    assert main(["asl-pinn", "quantify", *arguments]) == 2
    assert "give --gm and --wm" in capsys.readouterr().err


def test_gradients_are_finite_where_a_tissue_is_missing():
    def total(cbf_wm, att_wm):
        values = {**TRUTH, "cbf_wm": cbf_wm, "att_wm": att_wm}
        return MODEL.curve(values, **TIMES, gm=1.0, wm=0.0).sum()

    assert all(np.isfinite(slope) for slope in jax.grad(total, (0, 1))(20.0, 1.5))
