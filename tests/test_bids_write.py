"""What is written: names, values, sidecars, validity, and nothing by halves."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_fixtures import (
    AFFINE,
    DELTA_M,
    MASK,
    PROTOCOL,
    SHAPE,
    VALIDATOR,
    asl_data,
    phantom,
    validation_errors,
    write_dataset,
)

import asl_pinn
from asl_pinn import files
from asl_pinn.bids import (
    AslRun,
    desc_label,
    find_runs,
    maps_sidecar,
    read_finished,
    read_run,
    write_maps,
    write_simulation,
)
from asl_pinn.data import PerfusionMaps, Status
from asl_pinn.encoding import encode, encoding_matrix
from asl_pinn.errors import InputError

MAPS = PerfusionMaps(
    cbf=np.where(MASK, 60.0, 0.0),
    att=np.where(MASK, 1.2, 0.0),
    status=np.where(MASK, Status.FITTED, Status.OUTSIDE).astype(np.int8),
)
MAPS_WITH_SD = dataclasses.replace(MAPS, cbf_sd=0.1 * MAPS.cbf, att_sd=0.1 * MAPS.att)


def encoded(order: str = "walsh") -> dict:
    images = encode(DELTA_M, 400.0 * np.ones(SHAPE), encoding_matrix(4, order))
    keys = {"TimeEncodedMatrixSize": 4, "TimeEncodedMatrixType": order}
    return {"images": np.concatenate([images, images], -1), "encoding": keys}


def example_run(bids_dir: Path) -> AslRun:
    entities = {"sub": "01", "ses": "1", "run": "2"}
    path = bids_dir / "sub-01" / "ses-1" / "perf" / "sub-01_ses-1_run-2_asl.nii.gz"
    return AslRun(path, entities, bids_dir)


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ("nlls", "nlls"),
        ("nlls-smoothed", "nllsSmoothed"),
        ("nlls_scipy", "nllsScipy"),
        ("PINN 2-net", "PINN2Net"),
    ],
)
def test_desc_label(method, label):
    assert desc_label(method) == label


@pytest.mark.parametrize(
    ("maps", "kinds"),
    [
        (MAPS, ["nlls_cbf", "nlls_att", "nllsStatus_dseg"]),
        (
            MAPS_WITH_SD,
            ["nlls_cbf", "nlls_att", "nllsSd_cbf", "nllsSd_att", "nllsStatus_dseg"],
        ),
    ],
)
def test_names_of_maps(tmp_path, maps, kinds):
    written = write_maps(tmp_path, example_run(tmp_path), maps, AFFINE, "nlls", {})
    base = "sub-01/ses-1/perf/sub-01_ses-1_run-2_desc-"
    names = [f"{base}{kind}{end}" for kind in kinds for end in (".nii.gz", ".json")]
    names += ["dataset_description.json", ".bidsignore"]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == sorted(names)
    assert written[-1] == maps_sidecar(tmp_path, example_run(tmp_path), "nlls")
    assert sorted(digests(tmp_path)) == sorted(names)


def test_values_of_maps(tmp_path):
    run = example_run(tmp_path / "bids")
    provenance = {"Seed": 3, "Options": {"penalty": np.float32(0.5)}, "Sources": ["a.nii.gz"]}
    extra = {"_desc-nllsSmoothed_cbf.png": b"picture"}
    write_maps(tmp_path, run, MAPS_WITH_SD, AFFINE, "nlls-smoothed", provenance, extra)
    base = f"{tmp_path}/sub-01/ses-1/perf/sub-01_ses-1_run-2_desc-nllsSmoothed"
    for suffix, unit, values, description in [
        ("_cbf", "mL/100g/min", MAPS.cbf, "Cerebral blood flow"),
        ("_att", "s", MAPS.att, "Arterial transit time"),
        ("Sd_cbf", "mL/100g/min", MAPS_WITH_SD.cbf_sd, "Standard deviation of cerebral blood flow"),
        ("Sd_att", "s", MAPS_WITH_SD.att_sd, "Standard deviation of arterial transit time"),
    ]:
        image = nib.load(f"{base}{suffix}.nii.gz")
        assert image.get_data_dtype() == np.float32
        np.testing.assert_array_equal(image.get_fdata(), values.astype(np.float32))
        np.testing.assert_allclose(image.affine, AFFINE)
        np.testing.assert_allclose(image.get_qform(), AFFINE, atol=1e-5)
        assert image.header.get_xyzt_units() == ("mm", "sec")
        sidecar = json.loads(Path(f"{base}{suffix}.json").read_text())
        assert sidecar["Units"] == unit
        assert sidecar["Description"] == description
        assert sidecar["Method"] == "nlls-smoothed"
        assert (sidecar["Seed"], sidecar["Options"], sidecar["Sources"]) == (
            3,
            {"penalty": 0.5},
            ["a.nii.gz"],
        )
    status = nib.load(f"{base}Status_dseg.nii.gz")
    np.testing.assert_array_equal(np.asarray(status.dataobj), MAPS.status)
    assert status.get_data_dtype() == np.uint8
    codes = json.loads(Path(f"{base}Status_dseg.json").read_text())["LabelMap"]
    assert set(codes) == {str(int(code)) for code in Status}
    assert Path(f"{base}_cbf.png").read_bytes() == b"picture"
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"] == [{"Name": "asl_pinn", "Version": asl_pinn.__version__}]


def test_description_of_other_derivatives_is_kept(tmp_path):
    path = tmp_path / "dataset_description.json"
    path.write_text('{"Name": "lab", "DatasetType": "derivative"}')
    write_maps(tmp_path, example_run(tmp_path), MAPS, AFFINE, "nlls", {})
    assert path.read_text() == '{"Name": "lab", "DatasetType": "derivative"}'
    assert not (tmp_path / ".bidsignore").exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"Name": "lab", "DatasetType": "raw"}', "describes a raw dataset"),
        ('{"Name": "lab"}', "describes a raw dataset"),
        ("{", "cannot be read as JSON"),
        ("[]", "JSON object"),
    ],
)
def test_maps_go_into_no_raw_dataset(tmp_path, content, fault):
    path = tmp_path / "dataset_description.json"
    path.write_text(content)
    with pytest.raises(InputError, match=fault) as caught:
        write_maps(tmp_path, example_run(tmp_path), MAPS, AFFINE, "nlls", {})
    assert str(path) in str(caught.value)
    assert list(digests(tmp_path)) == ["dataset_description.json"]


@pytest.mark.parametrize("fault_in", ["provenance", "maps"])
def test_nothing_is_written_where_preparing_fails(tmp_path, fault_in):
    maps = dataclasses.replace(MAPS, att_sd="no array") if fault_in == "maps" else MAPS
    provenance = {"Options": {"value": float("nan")}} if fault_in == "provenance" else {}
    with pytest.raises(ValueError, match=r"no array|JSON compliant"):
        write_maps(tmp_path / "out", example_run(tmp_path), maps, AFFINE, "nlls", provenance)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_old_files_and_no_partial_ones(tmp_path, monkeypatch, call):
    run = example_run(tmp_path)
    write_maps(tmp_path, run, MAPS, AFFINE, "nlls", {})
    before = digests(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(InputError, match="No space left on device"):
        write_maps(tmp_path, run, MAPS_WITH_SD, 2 * AFFINE, "nlls", {})
    assert digests(tmp_path) == before


def test_files_of_two_runs_never_pass_for_those_of_one(tmp_path, monkeypatch):
    """A run that is stopped between two names, over the maps of another."""
    run, replace = example_run(tmp_path), os.replace
    n_files = len(write_maps(tmp_path, run, MAPS, AFFINE, "nlls", {"Seed": 0})) - 2
    assert read_finished(tmp_path, run, "nlls")["Seed"] == 0
    for n_replaced in range(n_files):
        left = iter(range(n_replaced))

        def stopped(*paths, left=left):
            if next(left, None) is None:
                raise OSError(5, "Input/output error")
            replace(*paths)

        monkeypatch.setattr(files.os, "replace", stopped)
        with pytest.raises(InputError, match="Input/output"):
            write_maps(tmp_path, run, MAPS_WITH_SD, 2 * AFFINE, "nlls", {"Seed": 1})
        monkeypatch.setattr(files.os, "replace", replace)
        found = read_finished(tmp_path, run, "nlls")
        assert found is None if n_replaced else found["Seed"] == 0
        write_maps(tmp_path, run, MAPS, AFFINE, "nlls", {"Seed": 0})
    write_maps(tmp_path, run, MAPS_WITH_SD, 2 * AFFINE, "nlls", {"Seed": 1})
    assert read_finished(tmp_path, run, "nlls")["Seed"] == 1


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"out.*cannot be written"):
        write_maps(tmp_path / "out", example_run(tmp_path), MAPS, AFFINE, "nlls", {})
    assert (tmp_path / "out").read_text() == "a file"


def test_a_folder_in_the_way_of_a_file(tmp_path):
    run = example_run(tmp_path)
    blocked = tmp_path / run.folder / f"{run.stem}_desc-nlls_att.nii.gz"
    blocked.mkdir(parents=True)
    with pytest.raises(InputError, match=r"att\.nii\.gz: cannot be written"):
        write_maps(tmp_path, run, MAPS, AFFINE, "nlls", {})
    assert digests(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"out.*cannot be written"):
        write_maps(tmp_path / "out", example_run(tmp_path), MAPS, AFFINE, "nlls", {})


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32, np.float64])
def test_nifti_keeps_its_dtype(tmp_path, dtype):
    volume = MASK.astype(dtype)
    files.write_nifti(tmp_path / "a" / "v.nii.gz", volume, AFFINE)
    image = nib.load(tmp_path / "a" / "v.nii.gz")
    assert image.get_data_dtype() == (np.uint8 if dtype is bool else dtype)
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume)


def test_json_holds_arrays_and_paths(tmp_path):
    content = {"a": np.arange(3), "b": np.float32(0.5), "c": Path("x") / "y", "d": "δ"}
    files.write_json(tmp_path / "c.json", content)
    expected = {"a": [0, 1, 2], "b": 0.5, "c": "x/y", "d": "δ"}
    assert json.loads((tmp_path / "c.json").read_text()) == expected
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "d.json", {"a": object()})


@pytest.mark.parametrize("options", [{}, encoded("walsh"), encoded("hadamard")])
def test_simulation_is_read_back(tmp_path, options):
    write_simulation(tmp_path / "sim", phantom(), asl_data(), seed=3, **options)
    (run,) = find_runs(tmp_path / "sim")
    data, notes = read_run(run, t1_tissue="map")
    np.testing.assert_allclose(data.delta_m, DELTA_M, atol=1e-3)
    np.testing.assert_array_equal(data.mask, MASK)
    np.testing.assert_array_equal(data.t1_tissue, np.float32(1.3))
    np.testing.assert_array_equal(data.n_averages, 2.0 if options else 1.0)
    np.testing.assert_allclose(data.protocol.label_duration, PROTOCOL.label_duration)
    np.testing.assert_allclose(data.protocol.pld, PROTOCOL.pld)
    assert data.protocol.labeling_efficiency == PROTOCOL.labeling_efficiency
    np.testing.assert_allclose(data.affine, AFFINE)
    assert notes.messages == ()


def test_simulation_keeps_slice_times(tmp_path):
    delays = np.broadcast_to(np.array([0.0, 0.05, 0.1], np.float32), SHAPE)
    data = dataclasses.replace(asl_data(), readout_delay=delays)
    write_simulation(tmp_path / "sim", phantom(), data, seed=3)
    np.testing.assert_allclose(read_run(find_runs(tmp_path / "sim")[0])[0].readout_delay, delays)


def test_simulation_holds_truth_and_settings(tmp_path):
    write_simulation(tmp_path, phantom(), asl_data(), seed=3, description={"tSNR": 1.5})
    perf = tmp_path / "derivatives" / "truth" / "sub-01" / "perf"
    for name, values in [
        ("desc-truth_cbf", phantom().cbf),
        ("desc-truth_att", phantom().att),
        ("desc-brain_mask", MASK),
        ("desc-greymatter_mask", phantom().grey_matter),
    ]:
        volume = np.asarray(nib.load(perf / f"sub-01_{name}.nii.gz").dataobj)
        np.testing.assert_array_equal(volume, values.astype(volume.dtype))
        assert (perf / f"sub-01_{name}.json").is_file()
    sidecar = json.loads((tmp_path / "sub-01" / "perf" / "sub-01_asl.json").read_text())
    assert sidecar["Simulation"] == {"Seed": 3, "tSNR": 1.5}


@pytest.mark.parametrize("options", [{}, encoded()])
def test_simulation_is_the_same_to_the_bit(tmp_path, options):
    for name in ("a", "b", "a"):
        write_simulation(tmp_path / name, phantom(), asl_data(), seed=3, **options)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not [name for name in digests(tmp_path) if name.endswith(".part")]


def test_simulation_replaces_nothing_else(tmp_path):
    write_dataset(tmp_path / "lab")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    before = digests(tmp_path)
    for folder in (tmp_path / "lab", tmp_path / "notes"):
        with pytest.raises(InputError, match=f"{folder.name}: holds something else"):
            write_simulation(folder, phantom(), asl_data(), seed=3)
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("keys", "n_volumes", "fault"),
    [
        ({"TimeEncodedMatrixSize": 4, "TimeEncodedMatrixType": "walsh"}, 5, "5 images"),
        ({"TimeEncodedMatrixSize": 8, "TimeEncodedMatrixType": "walsh"}, 8, "7 sub-boluses"),
        ({}, 4, "'TimeEncodedMatrixType' is missing"),
    ],
)
def test_simulation_with_other_encoding(tmp_path, keys, n_volumes, fault):
    images = np.ones((*SHAPE, n_volumes))
    with pytest.raises(InputError, match=fault):
        write_simulation(
            tmp_path / "sim", phantom(), asl_data(), seed=3, images=images, encoding=keys
        )
    assert not (tmp_path / "sim").exists()


@pytest.mark.skipif(not VALIDATOR.is_file(), reason="bids-validator-deno is not installed")
@pytest.mark.parametrize("options", [{}, encoded()])
def test_official_validator_finds_no_errors(tmp_path, options):
    root = tmp_path / "sim"
    write_simulation(root, phantom(), asl_data(), seed=3, **options)
    (run,) = find_runs(root)
    extra = {"_desc-nllsSmoothed_cbf.png": b"picture", "_desc-nllsSmoothed_report.html": b"report"}
    for output in (root / "derivatives" / "asl_pinn", tmp_path / "maps"):
        write_maps(output, run, MAPS_WITH_SD, AFFINE, "nlls-smoothed", {"Seed": 1}, extra)
        files.write_bytes(output / "logs" / "quantify_20260101T000000Z_1.log", b"end")
        assert validation_errors(output) == []
    assert validation_errors(root / "derivatives" / "truth") == []
    assert validation_errors(root) == []
    (root / "sub-01" / "perf" / "sub-01_asl.json").unlink()
    assert validation_errors(root) != []
