"""Data that once gave wrong maps and status 0: refused, or told to be unusable or doubtful."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_fixtures import M0, MASK, SHAPE, save_json, write_dataset

from asl_pinn import models
from asl_pinn.data import AslData, normalised
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.evaluation.verdict import judge
from asl_pinn.io.bids import find_runs, read_run
from asl_pinn.models import Blood, Buxton, Timing, Tissue
from asl_pinn.workflow.cli import main

pytestmark = pytest.mark.usefixtures("plain_pictures")

PERF = "sub-01/perf/sub-01"
PLDS = np.array([0.5, 1.0, 1.5, 2.0, 2.5])
DURATION = 1.8


def perfusion(cbf: float = 50.0, noise: float = 0.2) -> np.ndarray:
    """Differences of a little brain with some noise, shape (X, Y, Z, D)."""
    rng = np.random.default_rng(0)
    values = np.broadcast_to(cbf, SHAPE), 0.8 + 0.4 * rng.random(SHAPE)
    curves = [
        Buxton().signal(values, Timing(DURATION + pld, DURATION, 0.0), tissue(), Blood(1.65, 0.8))
        for pld in PLDS
    ]
    noisy = np.stack(curves, -1) + noise * rng.normal(size=(*SHAPE, len(PLDS)))
    return np.where(MASK[..., None], noisy, 0.0).astype(np.float32)


def tissue() -> Tissue:
    return Tissue(np.float64(1000.0), np.float64(1.33), 0.9)


KEYS = {
    "LabelingDuration": DURATION,
    "PostLabelingDelay": PLDS.tolist(),
    "RepetitionTimePreparation": 5.0,
    "BackgroundSuppression": True,
}
TYPES = ("deltam",) * len(PLDS)


def brain(root: Path, **changes) -> Path:
    """A little brain that is sound unless something is changed."""
    metadata = {**KEYS, **changes.pop("metadata", {})}
    given = {"volumes": perfusion(), "types": TYPES, "metadata": metadata, **changes}
    return write_dataset(root, **given)


def pairs(root: Path, order: np.ndarray, stated: np.ndarray, **changes) -> Path:
    """Control and label whose level depends on the delay, as background suppression makes it."""
    rng = np.random.default_rng(3)
    level = dict(zip(PLDS, [100.0, 130.0, 170.0, 210.0, 260.0], strict=True))
    deltas = dict(zip(PLDS, np.moveaxis(perfusion(), -1, 0), strict=True))
    volumes = []
    for pld in order:
        control = np.full(SHAPE, level[pld] * (1.0 + rng.normal(0.0, 0.003)), np.float32)
        volumes += [control, control - deltas[pld]]
    metadata = {"PostLabelingDelay": np.repeat(stated, 2).tolist(), **changes.pop("metadata", {})}
    return brain(
        root,
        volumes=np.stack(volumes, -1).astype(np.float32),
        types=("control", "label") * len(order),
        metadata=metadata,
        **changes,
    )


def quantify(root: Path, *options: str) -> int:
    where = [str(root), str(root / "out"), "participant"]
    return main(["asl-pinn", "quantify", *where, "--method=nlls", "--model=buxton", *options])


def sidecar(root: Path) -> dict:
    return json.loads((root / "out" / f"{PERF}_desc-nlls_cbf.json").read_text())


def reasons(root: Path) -> tuple[str, ...]:
    """Why the data alone, before a fit, cannot be trusted."""
    return judge(read_run(find_runs(root)[0])[1].facts).reasons


def test_a_sound_run_is_usable_in_the_line_the_log_the_sidecar_and_the_report(tmp_path, capsys):
    root = brain(tmp_path)
    assert quantify(root) == 0
    line, _ = capsys.readouterr().out.splitlines()
    assert line.endswith("skipped; usable")
    assert line in next((root / "out" / "logs").iterdir()).read_text()
    assert sidecar(root)["Verdict"] == "usable"
    assert sidecar(root)["VerdictReasons"] == []
    page = (root / "out" / f"{PERF}_desc-nlls_report.html").read_text()
    assert page.index("Verdict: usable") < page.index("Perfusion")


@pytest.mark.parametrize("factor", [0.1, 10.0, 66_000.0, 1.0 / 66_000.0])
def test_an_m0_of_another_scale_is_unusable(tmp_path, capsys, factor):
    root = brain(tmp_path, m0=(factor * M0).astype(np.float32))
    assert quantify(root) == 1
    assert "  sub-01: unusable: " in capsys.readouterr().err
    assert sidecar(root)["Verdict"] == "unusable"
    page = (root / "out" / f"{PERF}_desc-nlls_report.html").read_text()
    assert "Verdict: unusable" in page


def test_unusable_maps_are_no_better_when_complete_and_can_be_kept(tmp_path, capsys):
    root = brain(tmp_path, m0=10.0 * M0)
    assert quantify(root) == 1
    assert quantify(root) == 1
    assert quantify(root, "--keep_going") == 0
    assert "1 of 1 runs are unusable:" in capsys.readouterr().err


CYCLES, BLOCKS = np.tile(PLDS, 3), np.repeat(PLDS, 3)


@pytest.mark.parametrize(
    ("order", "stated", "name"),
    [
        (CYCLES, BLOCKS, "the delays in turn"),
        (BLOCKS, CYCLES, "each delay in a block"),
        (np.repeat(PLDS, [1, 2, 3, 4, 5]), np.repeat(PLDS[::-1], [5, 4, 3, 2, 1]), "reverse order"),
    ],
)
def test_delays_in_another_order_than_the_volumes(tmp_path, order, stated, name):
    (reason,) = reasons(pairs(tmp_path, order, stated))
    assert name in reason
    assert "the order of PostLabelingDelay is not that of the volumes" in reason


@pytest.mark.parametrize("order", [CYCLES, BLOCKS])
def test_delays_in_the_order_of_the_volumes(tmp_path, order):
    assert reasons(pairs(tmp_path, order, order)) == ()


def test_medians_are_over_the_mask_and_the_share_on_bounds_is_beside_them(tmp_path, capsys):
    volumes = np.where(np.indices(SHAPE)[0][..., None] == 1, perfusion(6.0), 500.0)
    volumes = np.where(MASK[..., None], volumes, 0.0).astype(np.float32)
    assert quantify(brain(tmp_path, volumes=volumes), "--keep_going") == 0
    captured = capsys.readouterr()
    assert "the median CBF is on its bound of 200 mL/100g/min" in captured.err
    facts = sidecar(tmp_path)["VerdictFacts"]
    assert facts["OnBound"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"PostLabelingDelay": [0.5, 1, 1.5, 2, 20], "RepetitionTimePreparation": 2.5}, "21.8 s"),
        ({"RepetitionTimePreparation": [5, 5, 5, 5, 2.5]}, "the repetition time of 2.5 s"),
        ({"RepetitionTimePreparation": None, "RepetitionTime": 2.5}, "longer than"),
    ],
)
def test_delays_longer_than_the_repetition_time(tmp_path, metadata, said):
    (reason,) = reasons(brain(tmp_path, metadata=metadata))
    assert said in reason


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"LabelingEfficiency": 1e-30}, "LabelingEfficiency must be 0.1 to 1"),
        (
            {"LabelingEfficiency": None, "BackgroundSuppressionNumberPulses": 1_000_000},
            "must be a count of at most 20",
        ),
        ({"RepetitionTimePreparation": 4000}, "is it 4?"),
        (
            {"LabelingDuration": 0.7, "BolusDuration": 0.7, "TagDuration": 1.4},
            "LabelingDuration is 0.7, but TagDuration is 1.4",
        ),
        ({"ImageType": ["DERIVED", "PRIMARY", "ASL", "RCBF"]}, "a map that the scanner computed"),
    ],
)
def test_values_that_cannot_be(tmp_path, metadata, said):
    with pytest.raises(InputError, match=said):
        read_run(find_runs(brain(tmp_path, metadata=metadata))[0])


@pytest.mark.parametrize("word", ["SUBTRACTION", "PERFUSION"])
def test_differences_of_the_scanner_are_no_pairs_and_doubtful_as_differences(tmp_path, word):
    derived = {"ImageType": ["DERIVED", "PRIMARY", word]}
    with pytest.raises(InputError, match="lists control and label"):
        read_run(find_runs(pairs(tmp_path / "pairs", CYCLES, CYCLES, metadata=derived))[0])
    (reason,) = reasons(brain(tmp_path / "deltam", metadata=derived))
    assert "differences that the scanner computed" in reason


@pytest.mark.parametrize("method", ["nlls", "spatial-map"])
def test_a_held_transit_time_after_the_last_readout(method):
    data = AslData.from_arrays(perfusion(), M0, label_duration=DURATION, pld=PLDS, mask=MASK)
    held = models.fix(models.with_bounds(Buxton(), att=(None, 9.0)), att=5.0)
    estimator = get_estimator(method)
    with pytest.raises(InputError, match="nothing would have arrived"):
        estimate_maps(data, method, estimator, held, estimator.options(), RunContext())


def test_differences_of_zero_are_refused(tmp_path, capsys):
    assert quantify(brain(tmp_path, volumes=np.zeros((*SHAPE, 5), np.float32))) == 2
    assert "the differences are zero in all voxels of the mask" in capsys.readouterr().err
    data = AslData.from_arrays(0.0 * perfusion(), M0, label_duration=DURATION, pld=PLDS)
    estimator = get_estimator("nlls")
    with pytest.raises(InputError, match="zero in all voxels"):
        estimate_maps(data, "nlls", estimator, Buxton(), estimator.options(), RunContext())


def test_results_do_not_depend_on_the_unit_of_the_signal(tmp_path):
    made = {}
    for exponent in (0, -100, 100):  # 1e-30 to 1e30; powers of two lose no bit
        root, unit = tmp_path / str(exponent), np.float32(2.0**exponent)
        assert quantify(brain(root, volumes=unit * perfusion(), m0=unit * M0)) == 0
        cbf = (root / "out" / f"{PERF}_desc-nlls_cbf.nii.gz").read_bytes()
        made[exponent] = cbf, sidecar(root)["NoiseSD"] / unit
    assert made[-100][0] == made[100][0] == made[0][0]
    for exponent in (-100, 100):
        assert made[exponent][1] == pytest.approx(made[0][1], rel=1e-5)


def test_a_unit_is_a_power_of_two():
    data = AslData.from_arrays(perfusion(), 3e7 * M0, label_duration=DURATION, pld=PLDS, mask=MASK)
    scaled, unit = normalised(data)
    assert 512.0 <= np.median(scaled.m0[MASK]) < 1024.0
    np.testing.assert_array_equal(scaled.m0 * np.float32(unit), data.m0)
    again, one = normalised(scaled)
    assert one == 1.0
    assert again is scaled


@pytest.mark.parametrize("offset", [0.0, 348.0])
def test_header_bytes_are_not_read_as_voxels(tmp_path, offset):
    path = brain(tmp_path) / f"{PERF}_asl.nii.gz"
    set_header(path, "vox_offset", offset)
    with pytest.raises(InputError, match="voxels begin at byte") as refused:
        read_run(find_runs(tmp_path)[0])
    assert "352" in str(refused.value)


@pytest.mark.parametrize("field", ["scl_slope", "scl_inter"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scales_that_are_no_numbers(tmp_path, field, value):
    path = brain(tmp_path) / f"{PERF}_asl.nii.gz"
    set_header(path, field, value)
    with pytest.raises(InputError, match="repair the header"):
        read_run(find_runs(tmp_path)[0])


def set_header(path: Path, field: str, value: float) -> None:
    content = gzip.decompress(path.read_bytes())
    header = np.frombuffer(content[:348], nib.nifti1.header_dtype)[0].copy()
    header[field] = value
    path.write_bytes(gzip.compress(header.tobytes() + content[348:], 1))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"RepetitionTime": 10.0, "BackgroundSuppression": True}, "with background suppression"),
        ({"RepetitionTime": 10.0, "EchoTime": 0.03}, "EchoTime of M0 is 0.03 s and that of the"),
        ({"RepetitionTime": 10.0, "FlipAngle": 20}, "FlipAngle of M0 is 20 degrees"),
    ],
)
def test_an_m0_that_was_acquired_otherwise(tmp_path, keys, said):
    root = brain(tmp_path)
    save_json(root / f"{PERF}_m0scan.json", keys)
    (reason,) = reasons(root)
    assert said in reason


@pytest.mark.parametrize("applied", [0, 1])
def test_scale_slopes_of_philips_that_differ(tmp_path, applied):
    keys = {"PhilipsScaleSlope": 0.005, "UsePhilipsFloatNotDisplayScaling": applied}
    root = brain(tmp_path, metadata=keys)
    of_m0 = {**keys, "RepetitionTime": 10.0, "PhilipsScaleSlope": 0.05}
    save_json(root / f"{PERF}_m0scan.json", of_m0)
    said = [reason for reason in reasons(root) if "PhilipsScaleSlope of M0 is 0.05" in reason]
    assert len(said) == 1 - applied


def test_an_m0_in_the_series_that_was_acquired_otherwise(tmp_path):
    volumes = np.concatenate([M0[..., None], perfusion()], -1)
    metadata = {
        "M0Type": "Included",
        "PostLabelingDelay": [0.0, *PLDS],
        "RepetitionTimePreparation": [2.0, *[5.0] * 5],
        "EchoTime": [0.03, *[0.012] * 5],
    }
    root = brain(tmp_path, volumes=volumes, types=("m0scan", *TYPES), metadata=metadata)
    (echo,) = reasons(root)
    assert "EchoTime of M0 is 0.03 s" in echo


@pytest.mark.parametrize("stated", [None, False])
def test_suppression_that_is_seen_and_not_stated(tmp_path, stated):
    keys = {"BackgroundSuppression": stated}
    (reason,) = reasons(pairs(tmp_path, CYCLES, CYCLES, metadata=keys))
    assert "as with background suppression" in reason


def test_negative_differences_are_described_and_can_be_kept(tmp_path, capsys):
    faint = np.where(MASK[..., None], -0.18, 0.0) + 0.01 * perfusion(1.0)
    root = brain(tmp_path, volumes=faint.astype(np.float32))
    assert quantify(root) == 2
    said = capsys.readouterr().err
    assert "% of M0, " in said
    assert "standard errors below zero), as if label and control were interchanged" in said
    assert "--keep_sign" in said
    assert quantify(root, "--keep_sign") == 1
    assert "label and control may be interchanged" in capsys.readouterr().err
    assert sidecar(root)["Reading"]["keep_sign"] is True


def test_fit_of_a_wrong_timing_misses_what_repeats_show(tmp_path):
    """Delays that are wrong within each cycle leave the controls as they are."""
    rng = np.random.default_rng(1)
    scatter = rng.normal(0.0, 0.05, (*SHAPE, 15)).astype(np.float32)
    volumes = np.tile(perfusion(noise=0.0), 3) + scatter
    times = np.tile(PLDS, 3)
    shuffled = np.tile(PLDS[[2, 4, 0, 3, 1]], 3)
    for stated, verdict in ((times, "usable"), (shuffled, "doubtful")):
        root = tmp_path / verdict
        keys = {"PostLabelingDelay": stated.tolist()}
        brain(root, volumes=volumes, types=("deltam",) * 15, metadata=keys)
        assert quantify(root) == 0
        assert sidecar(root)["Verdict"] == verdict
    assert any("misses the data" in said for said in sidecar(root)["VerdictReasons"])


@pytest.mark.parametrize("where", ["series", "M0"])
def test_a_voxel_beyond_all_sense_is_skipped_and_spoils_no_other(where):
    delta_m, m0 = perfusion(), M0.astype(np.float32)
    (delta_m if where == "series" else m0)[2, 2, 1] = 6.9e36
    known = {"label_duration": DURATION, "pld": PLDS, "labeling_efficiency": 0.8}
    data = AslData.from_arrays(delta_m, m0, mask=MASK, **known)
    assert data.valid.sum() == MASK.sum() - 1
    estimator = get_estimator("nlls")
    maps = estimate_maps(data, "nlls", estimator, Buxton(), estimator.options(), RunContext())
    assert np.isfinite(maps.cbf).all()
    np.testing.assert_allclose(np.median(maps.cbf[data.valid]), 50.0, rtol=0.02)
