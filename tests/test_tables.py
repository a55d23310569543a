"""Tables of numbers: of one run, of its regions, and of all runs."""

import json

import numpy as np
import pytest
from bids_fixtures import AFFINE, MASK, SHAPE, asl_data, save_nifti, write_dataset

from asl_pinn import models
from asl_pinn.data import Maps, Status
from asl_pinn.errors import InputError
from asl_pinn.evaluation.quality import quality_columns, quality_index, quality_numbers
from asl_pinn.evaluation.region_statistics import region_columns, region_rows
from asl_pinn.io.bids import find_runs, read_anatomy, read_run
from asl_pinn.io.bids.tables import read_table, table_files
from asl_pinn.workflow.cli import main
from asl_pinn.workflow.tables import group_tables

LABELS = np.where(MASK, 1, 0).astype(np.int16)
LABELS[3:] *= 2


@pytest.fixture
def dataset(tmp_path):
    root = write_dataset(tmp_path / "data")
    place = root / "derivatives" / "atlases" / "sub-01" / "perf"
    save_nifti(place / "sub-01_atlas-Halves_dseg.nii.gz", LABELS)
    (place / "sub-01_atlas-Halves_dseg.tsv").write_text("index\tname\n1\tleft\n2\tright\n")
    for tissue, fraction in (("GM", LABELS == 1), ("WM", LABELS == 2)):
        save_nifti(place / f"sub-01_label-{tissue}_probseg.nii.gz", fraction.astype(np.float32))
    (place / "sub-01_desc-confounds_timeseries.tsv").write_text(
        "framewise_displacement\tx\nn/a\t0\n0.1\t0\n0.3\t0\n"
    )
    return root


def made(**changes) -> Maps:
    """CBF of 60 in one half and 20 in the other, with the SD and the draws of each."""
    cbf = np.where(LABELS == 1, 60.0, 20.0) * MASK
    att = np.where(MASK, 1.2, 0.0)
    draws = np.stack([cbf - 1.0, cbf, cbf + 1.0])
    return Maps(
        **{
            "model": models.get("buxton"),
            "values": {"cbf": cbf, "att": att},
            "status": np.where(MASK, Status.FITTED, Status.OUTSIDE).astype(np.int8),
            "sd": {"cbf": np.where(MASK, 2.0, 0.0), "att": np.where(MASK, 0.1, 0.0)},
            "samples": {"cbf": draws, "att": np.stack([att] * 3)},
            "noise_sd": 2.0,
            "affine": AFFINE,
            "method": "nlls",
            **changes,
        }
    )


TISSUES = {
    "GM": (LABELS == 1).astype(float),
    "WM": (LABELS == 2).astype(float),
    "CSF": np.zeros(SHAPE),
}


def test_quality_is_that_of_maps_and_data():
    data, maps = asl_data(), made()
    displacement = np.array([np.nan, 0.1, 0.3])
    row = quality_numbers(data, maps, data.delta_m + 1.0, None, TISSUES, displacement)
    assert row["n_voxels"] == row["n_fitted"] == MASK.sum()
    assert (row["mean_gm_cbf"], row["sd_gm_cbf"], row["spatial_cov_gm_cbf"]) == (60.0, 0.0, 0.0)
    assert (row["mean_cbf"], row["sd_cbf"], row["spatial_cov_cbf"]) == (40.0, 20.0, 0.5)
    assert row["ratio_gm_wm_cbf"] == 3.0
    assert row["median_wm_att"] == pytest.approx(1.2)
    grey = data.delta_m[LABELS == 1].mean(axis=0) / 2.0
    assert row["tsnr_delay2"] == pytest.approx(grey[1], rel=1e-5)
    assert row["tsnr"] == pytest.approx(grey.mean(), rel=1e-5)
    assert row["mean_fd"] == pytest.approx(0.2)
    assert row["max_fd"] == 0.3
    assert row["reduced_chi_square"] is None
    variance = data.delta_m[MASK].var(axis=0).sum()
    assert row["explained_variance"] == pytest.approx(1.0 - 3.0 / variance, rel=1e-4)
    assert set(row) <= set(quality_columns(maps, 3))


def test_negative_flow_is_what_is_negative_or_on_a_bound_of_zero():
    data, cbf = asl_data(), made()["cbf"].copy()
    grey = np.argwhere(LABELS == 1)
    cbf[tuple(grey[0])] = 0.0
    maps = made(values={"cbf": cbf, "att": made()["att"]})
    row = quality_numbers(data, maps, data.delta_m, None, TISSUES)
    assert row["percentage_negative_cbf"] == pytest.approx(100.0 / len(grey))
    above = models.with_bounds(maps.model, cbf=(10.0, 200.0))
    row = quality_numbers(data, made(model=above), data.delta_m, None, TISSUES)
    assert row["percentage_negative_cbf"] == 0.0


def test_quality_index_falls_with_noise_and_negative_values():
    rng, shape = np.random.default_rng(0), (20, 20, 6)
    zone = np.arange(20)[:, None, None] * np.ones(shape)
    tissues = {"GM": zone < 8, "WM": (zone >= 8) & (zone < 16), "CSF": zone >= 16}
    truth = 60.0 * tissues["GM"] + 24.0 * tissues["WM"]
    maps = made(status=np.ones(shape, np.int8), affine=np.diag([3.0, 3.0, 3.0, 1.0]))
    found = [
        quality_index(truth + sd * rng.normal(size=shape) - shift, maps, tissues)
        for sd, shift in ((0.0, 0.0), (60.0, 0.0), (60.0, 60.0))
    ]
    assert 0.85 < found[0] < 1.0
    assert found[0] > found[1] > found[2] >= 0.0
    assert quality_index(truth, maps, {"GM": tissues["GM"]}) is None


def test_regions_have_means_their_sd_and_coverage():
    status = made().status.copy()
    x, y, z = np.argwhere(LABELS == 1)[0]
    status[x, y, z] = Status.ON_BOUND
    maps = made(status=status)
    rows = region_rows(maps, LABELS, {1: "left", 2: "right"}, TISSUES)
    assert [(row["name"], row["tissue"]) for row in rows] == [
        (name, tissue) for name in ("left", "right") for tissue in ("all", "GM", "WM")
    ]
    left, right = rows[0], rows[3]
    n = int((LABELS == 1).sum())
    assert (left["n_voxels"], left["coverage"]) == (n - 1, (n - 1) / n)
    assert (left["mean_cbf"], right["median_cbf"]) == (60.0, 20.0)
    assert left["sd_of_mean_cbf"] == pytest.approx(1.0)
    assert (rows[2]["n_voxels"], rows[2]["coverage"], rows[2]["mean_cbf"]) == (0, None, None)
    assert set(left) == set(region_columns(maps))


def test_a_weighted_mean_trusts_voxels_of_small_sd():
    cbf, sd = made()["cbf"].copy(), made().sd["cbf"].copy()
    x, y, z = np.argwhere(LABELS == 1)[0]
    cbf[x, y, z], sd[x, y, z] = 1000.0, 2e3
    maps = made(values={"cbf": cbf, "att": made()["att"]}, sd={"cbf": sd})
    row, *_ = region_rows(maps, LABELS, {1: "left"})
    assert row["weighted_mean_cbf"] == pytest.approx(60.0, abs=0.01)
    assert row["mean_cbf"] > 90.0
    assert row["weighted_mean_att"] is None


def test_amplitudes_of_sparse_components_count_as_zero_where_they_are_absent():
    model = models.get("buxton+arterial")
    here = np.zeros(SHAPE, bool)
    here[tuple(np.argwhere(LABELS == 1)[0])] = True
    values = {**made().values, "abv": 0.02 * here, "abat": 0.8 * here}
    maps = made(model=model, values=values, sd={}, samples={})
    row, *_ = region_rows(maps, LABELS, {1: "left"})
    assert row["mean_abv"] == pytest.approx(0.02 / (LABELS == 1).sum())
    assert row["mean_abat"] == pytest.approx(0.8)
    assert row["sd_of_mean_abv"] is None


def test_anatomy_is_found_among_the_derivatives(dataset):
    (run,) = find_runs(dataset)
    notes: list[str] = []
    anatomy = read_anatomy(run, read_run(run)[0], (), notes)
    assert notes == []
    assert anatomy.tissue_source == "derivatives"
    assert set(anatomy.tissues) == {"GM", "WM", "CSF"}
    (atlas,) = anatomy.atlases
    assert (atlas.name, dict(atlas.regions)) == ("Halves", {1: "left", 2: "right"})
    assert np.array_equal(atlas.labels, LABELS)
    np.testing.assert_array_equal(anatomy.displacement, [np.nan, 0.1, 0.3])
    assert {path.name.split("_")[-1] for path in anatomy.sources} == {
        "probseg.nii.gz",
        "dseg.nii.gz",
        "dseg.tsv",
        "timeseries.tsv",
    }


@pytest.mark.parametrize(
    ("labels", "table", "fault"),
    [
        (LABELS[1:], None, "resample it to the ASL grid"),
        (LABELS + 0.5, None, "no labels of regions"),
        (0 * LABELS, None, "has no region"),
        (LABELS, "label\tregion\n1\tleft\n", "needs the columns 'index', whole numbers, and"),
        (LABELS, "index\tname\n1\n", "line 2 has another number of cells than the first"),
    ],
)
def test_an_atlas_at_fault_is_refused_before_the_fit(dataset, capsys, labels, table, fault):
    path = dataset.parent / "mine.nii.gz"
    save_nifti(path, labels.astype(np.float32))
    rois = str(path)
    if table is not None:
        (dataset.parent / "names.tsv").write_text(table)
        rois = f"{path}:{dataset.parent / 'names.tsv'}"
    arguments = ["asl-pinn", "quantify", str(dataset), str(dataset.parent / "out"), "participant"]
    assert main([*arguments, "--method=nlls", f"--rois={rois}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert fault in line


def test_an_atlas_of_the_derivatives_on_another_grid_is_noted(dataset):
    place = dataset / "derivatives" / "atlases" / "sub-01"
    save_nifti(place / "perf" / "sub-01_atlas-Other_dseg.nii.gz", LABELS[1:])
    save_nifti(place / "anat" / "sub-01_atlas-Fine_dseg.nii.gz", LABELS[1:])
    save_nifti(place / "perf" / "sub-01_space-MNI_atlas-Far_dseg.nii.gz", LABELS)
    (run,) = find_runs(dataset)
    notes: list[str] = []
    anatomy = read_anatomy(run, read_run(run)[0], (), notes)
    assert [atlas.name for atlas in anatomy.atlases] == ["Halves"]
    (note,) = notes
    assert note.startswith("no regions from sub-01_atlas-Other_dseg.nii.gz: ")


def test_two_atlases_of_one_name_are_refused(dataset):
    save_nifti(dataset.parent / "seg-Halves_dseg.nii.gz", LABELS)
    (run,) = find_runs(dataset)
    with pytest.raises(InputError, match="have one name, Halves"):
        read_anatomy(run, read_run(run)[0], [str(dataset.parent / "seg-Halves_dseg.nii.gz")], [])


@pytest.mark.usefixtures("plain_pictures")
def test_tables_are_written_gathered_and_joined_with_the_participants(dataset, capsys):
    write_dataset(dataset, stem="sub-02_ses-1", folder="sub-02/ses-1/perf")
    (dataset / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\nsub-03\t50\n")
    (dataset / "participants.json").write_text('{"age": {"Description": "Age", "Units": "a"}}')
    out = dataset.parent / "out"
    save_nifti(dataset.parent / "lobes.nii.gz", LABELS)
    command = ["asl-pinn", "quantify", str(dataset), str(out), "participant", "--method=nlls"]
    assert main([*command, "--model=buxton", f"--rois={dataset.parent / 'lobes.nii.gz'}"]) == 0
    first = out / "sub-01" / "perf" / "sub-01_desc-nlls_qc.tsv"
    (row,) = read_table(first)
    assert (row["participant_id"], row["method"], row["verdict"]) == ("sub-01", "nlls", "doubtful")
    assert (row["tissue_source"], row["mean_fd"]) == ("derivatives", "0.2")
    described = json.loads(first.with_suffix(".json").read_text())
    assert set(row) == set(described)
    assert described["mean_gm_cbf"]["Units"] == "mL/100g/min"
    regions = read_table(out / "sub-01" / "perf" / "sub-01_atlas-Halves_desc-nlls_regions.tsv")
    assert [r["name"] for r in regions if r["tissue"] == "all"] == ["left", "right"]
    gathered = read_table(out / "group_desc-nlls_qc.tsv")
    assert [(r["participant_id"], r["session_id"], r["age"]) for r in gathered] == [
        ("sub-01", "n/a", "30"),
        ("sub-02", "ses-1", "n/a"),
    ]
    columns = json.loads((out / "group_desc-nlls_qc.json").read_text())
    assert columns["age"] == {"Description": "Age", "Units": "a"}
    assert set(gathered[0]) == set(columns)
    lobes = read_table(out / "group_atlas-lobes_desc-nlls_regions.tsv")
    assert len([r for r in lobes if r["participant_id"] == "sub-02"]) == 2
    stated = json.loads((first.parent / "sub-01_desc-nlls_cbf.json").read_text())
    assert first.name in stated["Outputs"]
    assert (
        "bids:raw:derivatives/atlases/sub-01/perf/sub-01_atlas-Halves_dseg.tsv" in stated["Sources"]
    )
    assert stated["Rois"] == [str(dataset.parent / "lobes.nii.gz")]
    capsys.readouterr()
    assert main([*command, "--model=buxton", "--participant_label=01"]) == 0
    assert "made with other Rois, Sources, SourceChecksums" in capsys.readouterr().err


def test_a_verdict_of_the_sidecars_stands_in_the_tables(tmp_path):
    perf = tmp_path / "sub-01" / "perf"
    perf.mkdir(parents=True)
    files = table_files("sub-01_desc-nlls_qc", [{"participant_id": "sub-01", "verdict": "ok"}], {})
    for name, content in files.items():
        (perf / name).write_bytes(content)
    (rows,) = group_tables(tmp_path, "nlls", {"sub-01": {"sex": "F"}}).values()
    assert rows == [{"participant_id": "sub-01", "sex": "F", "verdict": "ok"}]


def test_numbers_are_written_briefly_and_what_is_missing_as_such():
    files = table_files("x", [{"a": 1.23456789, "b": None}, {"c": "t", "a": float("nan")}], {})
    assert files["x.tsv"].decode().splitlines() == ["a\tb\tc", "1.23457\tn/a\tn/a", "n/a\tn/a\tt"]
