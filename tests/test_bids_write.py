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
from asl_pinn import models
from asl_pinn.acquisition.encoding import encode, encoding_matrix
from asl_pinn.data import Maps, Status
from asl_pinn.errors import InputError
from asl_pinn.io import atomic as files
from asl_pinn.io.bids import (
    desc_label,
    find_runs,
    maps_sidecar,
    read_finished,
    read_run,
    write_maps,
    write_simulation,
)

STEM = "sub-01/ses-1/perf/sub-01_ses-1_run-2"
BUXTON, WITH_T1 = models.get("buxton"), models.get("buxton+t1")
VALUES = {
    "cbf": np.where(MASK, 60.0, 0.0),
    "att": np.where(MASK, 1.2, 0.0),
    "t1_tissue": np.where(MASK, 1.4, 0.0),
}


def example_maps(
    model: models.KineticModel = BUXTON, *, sd: bool = False, method: str = "nlls", **changes
) -> Maps:
    values = {name: VALUES[name] for name in model.names}
    return dataclasses.replace(
        Maps(
            model=model,
            values=values,
            status=np.where(MASK, Status.FITTED, Status.OUTSIDE).astype(np.int8),
            sd={name: 0.1 * values[name] for name in model.names if sd},
            affine=AFFINE,
            method=method,
            stem=STEM,
        ),
        **changes,
    )


MAPS, MAPS_WITH_SD = example_maps(), example_maps(sd=True)


def encoded(order: str = "walsh") -> dict:
    images = encode(DELTA_M, 400.0 * np.ones(SHAPE), encoding_matrix(4, order))
    keys = {"TimeEncodedMatrixSize": 4, "TimeEncodedMatrixType": order}
    return {"images": np.concatenate([images, images], -1), "encoding": keys}


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
        (
            example_maps(WITH_T1, sd=True),
            [
                *("nlls_cbf", "nlls_att", "nlls_T1map"),
                *("nllsSd_cbf", "nllsSd_att", "nllsSd_T1map", "nllsStatus_dseg"),
            ],
        ),
        (example_maps(models.fix(BUXTON, att=1.2)), ["nlls_cbf", "nllsStatus_dseg"]),
        (
            example_maps(models.fix(WITH_T1, att=1.2)),
            ["nlls_cbf", "nlls_T1map", "nllsStatus_dseg"],
        ),
    ],
)
def test_names_of_maps(tmp_path, maps, kinds):
    """Those of the parameters that are not held; the first one's sidecar comes last."""
    written = write_maps(tmp_path, maps)
    names = [f"{STEM}_desc-{kind}{end}" for kind in kinds for end in (".nii.gz", ".json")]
    names += ["dataset_description.json", ".bidsignore"]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == sorted(names)
    assert written[-1] == maps_sidecar(tmp_path, STEM, "nlls", maps.model)
    assert written[-1] == tmp_path / f"{STEM}_desc-{kinds[0]}.json"
    assert sorted(digests(tmp_path)) == sorted(names)
    assert read_finished(tmp_path, STEM, "nlls", maps.model) is not None


def test_values_of_maps(tmp_path):
    provenance = {"Seed": 3, "Options": {"penalty": np.float32(0.5)}, "Sources": ["a.nii.gz"]}
    extra = {"_desc-nllsSmoothed_cbf.png": b"picture"}
    maps = example_maps(WITH_T1, sd=True, method="nlls-smoothed")
    write_maps(tmp_path, maps, provenance, extra)
    base = f"{tmp_path / STEM}_desc-nllsSmoothed"
    relaxation = "longitudinal relaxation time of tissue"
    for suffix, unit, values, description in [
        ("_cbf", "mL/100g/min", maps.cbf, "Cerebral blood flow"),
        ("_att", "s", maps.att, "Arterial transit time"),
        ("_T1map", "s", maps.t1_tissue, relaxation.replace("l", "L", 1)),
        ("Sd_cbf", "mL/100g/min", maps.sd["cbf"], "Standard deviation of cerebral blood flow"),
        ("Sd_att", "s", maps.sd["att"], "Standard deviation of arterial transit time"),
        ("Sd_T1map", "s", maps.sd["t1_tissue"], f"Standard deviation of {relaxation}"),
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
        assert (sidecar["Method"], sidecar["Model"]) == ("nlls-smoothed", "buxton+t1")
        assert (sidecar["Seed"], sidecar["Options"], sidecar["Sources"]) == (
            3,
            {"penalty": 0.5},
            ["a.nii.gz"],
        )
    status = nib.load(f"{base}Status_dseg.nii.gz")
    np.testing.assert_array_equal(np.asarray(status.dataobj), maps.status)
    assert status.get_data_dtype() == np.uint8
    codes = json.loads(Path(f"{base}Status_dseg.json").read_text())["LabelMap"]
    assert set(codes) == {str(int(code)) for code in Status}
    assert Path(f"{base}_cbf.png").read_bytes() == b"picture"
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"] == [{"Name": "asl_pinn", "Version": asl_pinn.__version__}]


def test_maps_are_saved_from_python(tmp_path):
    """Without a run, and with what the maps know of themselves alone."""
    model = models.fix(BUXTON, att=1.2)
    maps = example_maps(model, noise_sd=2.5, samples={"cbf": VALUES["cbf"][None]})
    written = maps.save(str(tmp_path / "out"))
    assert [path.name for path in written if path.name.endswith(".nii.gz")] == [
        "sub-01_ses-1_run-2_desc-nlls_cbf.nii.gz",
        "sub-01_ses-1_run-2_desc-nllsStatus_dseg.nii.gz",
    ]
    sidecar = json.loads(written[-1].read_text())
    assert (sidecar["Method"], sidecar["Model"], sidecar["NoiseSD"]) == ("nlls", "buxton", 2.5)
    assert "ATT held at 1.2 s" in sidecar["ModelDescription"]


def test_maps_without_a_method_have_no_name(tmp_path):
    with pytest.raises(InputError, match="gives no name to files"):
        write_maps(tmp_path / "out", example_maps(method=""))
    assert not (tmp_path / "out").exists()


def test_maps_of_another_model_leave_nothing_of_the_earlier(tmp_path):
    """A map of ATT that was not fitted any more would pass for one of the new fit."""
    write_maps(tmp_path, example_maps(WITH_T1, sd=True), extra_files={"_desc-nlls_a.png": b"a"})
    others = write_maps(tmp_path, example_maps(method="nlls-smoothed"))
    own, changed = (
        Path(f"{tmp_path / STEM}_desc-{name}") for name in ("nlls_own.json", "nllsSd_cbf.nii.gz")
    )
    for path in (own, changed):
        path.write_text("{}")
    held = example_maps(models.fix(BUXTON, att=1.2))
    written = write_maps(tmp_path, held)
    left = {path for path in tmp_path.rglob("*_desc-*") if path.is_file()}
    assert left == {*written, *others, own, changed}
    assert read_finished(tmp_path, STEM, "nlls", held.model) is not None
    assert read_finished(tmp_path, STEM, "nlls-smoothed", BUXTON) is not None


def test_description_of_other_derivatives_is_kept(tmp_path):
    path = tmp_path / "dataset_description.json"
    path.write_text('{"Name": "lab", "DatasetType": "derivative"}')
    write_maps(tmp_path, MAPS)
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
        write_maps(tmp_path, MAPS)
    assert str(path) in str(caught.value)
    assert list(digests(tmp_path)) == ["dataset_description.json"]


@pytest.mark.parametrize("fault_in", ["provenance", "maps"])
def test_nothing_is_written_where_preparing_fails(tmp_path, fault_in):
    maps = dataclasses.replace(MAPS, sd={"att": "no array"}) if fault_in == "maps" else MAPS
    provenance = {"Options": {"value": float("nan")}} if fault_in == "provenance" else {}
    with pytest.raises(ValueError, match=r"no array|JSON compliant"):
        write_maps(tmp_path / "out", maps, provenance)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_old_files_and_no_partial_ones(tmp_path, monkeypatch, call):
    write_maps(tmp_path, MAPS)
    moved = dataclasses.replace(MAPS_WITH_SD, affine=2 * AFFINE)
    before = digests(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(InputError, match="No space left on device"):
        write_maps(tmp_path, moved)
    assert digests(tmp_path) == before


def test_files_of_two_runs_never_pass_for_those_of_one(tmp_path, monkeypatch):
    """A run that is stopped between two names, over the maps of another."""
    replace, moved = os.replace, dataclasses.replace(MAPS_WITH_SD, affine=2 * AFFINE)
    n_files = len(write_maps(tmp_path, MAPS, {"Seed": 0})) - 2
    assert read_finished(tmp_path, STEM, "nlls", BUXTON)["Seed"] == 0
    for n_replaced in range(n_files):
        left = iter(range(n_replaced))

        def stopped(*paths, left=left):
            if next(left, None) is None:
                raise OSError(5, "Input/output error")
            replace(*paths)

        monkeypatch.setattr(files.os, "replace", stopped)
        with pytest.raises(InputError, match="Input/output"):
            write_maps(tmp_path, moved, {"Seed": 1})
        monkeypatch.setattr(files.os, "replace", replace)
        found = read_finished(tmp_path, STEM, "nlls", BUXTON)
        assert found is None if n_replaced else found["Seed"] == 0
        write_maps(tmp_path, MAPS, {"Seed": 0})
    write_maps(tmp_path, moved, {"Seed": 1})
    assert read_finished(tmp_path, STEM, "nlls", BUXTON)["Seed"] == 1


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"out.*cannot be written"):
        write_maps(tmp_path / "out", MAPS)
    assert (tmp_path / "out").read_text() == "a file"


def test_a_folder_in_the_way_of_a_file(tmp_path):
    blocked = Path(f"{tmp_path / STEM}_desc-nlls_att.nii.gz")
    blocked.mkdir(parents=True)
    with pytest.raises(InputError, match=r"att\.nii\.gz: cannot be written"):
        write_maps(tmp_path, MAPS)
    assert digests(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"out.*cannot be written"):
        write_maps(tmp_path / "out", MAPS)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32, np.float64])
def test_nifti_keeps_its_dtype(tmp_path, dtype):
    volume = MASK.astype(dtype)
    files.write_bytes(tmp_path / "a" / "v.nii.gz", files.nifti_bytes(volume, AFFINE))
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
    assert len(list(perf.glob("*_desc-truth_*.nii.gz"))) == 2


def test_simulation_holds_the_truth_of_its_model(tmp_path):
    write_simulation(tmp_path / "sim", phantom(), asl_data(), seed=3, model=WITH_T1)
    perf = tmp_path / "sim" / "derivatives" / "truth" / "sub-01" / "perf"
    for p in WITH_T1.parameters:
        image = nib.load(perf / f"sub-01_desc-truth_{p.file_suffix}.nii.gz")
        truth = phantom().truth(WITH_T1)[p.name].astype(np.float32)
        np.testing.assert_array_equal(image.get_fdata(), truth)
        sidecar = json.loads((perf / f"sub-01_desc-truth_{p.file_suffix}.json").read_text())
        assert sidecar == {"Units": p.unit, "Description": f"True {p.label}"}


def test_simulation_of_what_the_phantom_does_not_know(tmp_path):
    unknown = dataclasses.replace(phantom(), values={"cbf": VALUES["cbf"]})
    with pytest.raises(InputError, match="has no map of att"):
        write_simulation(tmp_path / "sim", unknown, asl_data(), seed=3)
    assert not (tmp_path / "sim").exists()


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
    write_simulation(root, phantom(), asl_data(), seed=3, model=WITH_T1, **options)
    (run,) = find_runs(root)
    extra = {"_desc-nllsSmoothed_cbf.png": b"picture", "_desc-nllsSmoothed_report.html": b"report"}
    for output in (root / "derivatives" / "asl_pinn", tmp_path / "maps"):
        maps = example_maps(WITH_T1, sd=True, method="nlls-smoothed", stem=run.maps_stem)
        write_maps(output, maps, {"Seed": 1}, extra)
        files.write_bytes(output / "logs" / "quantify_20260101T000000Z_1.log", b"end")
        assert validation_errors(output) == []
    assert validation_errors(root / "derivatives" / "truth") == []
    assert validation_errors(root) == []
    (root / "sub-01" / "perf" / "sub-01_asl.json").unlink()
    assert validation_errors(root) != []


def test_a_dataset_of_maps_links_to_the_one_that_they_were_made_from(tmp_path):
    for folder, link in ((tmp_path / "a b" / "derivatives" / "x", "../.."), (tmp_path / "x", None)):
        provenance = {"InputDataset": tmp_path / "a b"}
        write_maps(folder, example_maps(), provenance)
        description = json.loads((folder / "dataset_description.json").read_text())
        expected = link or f"{tmp_path.as_uri()}/a%20b"
        assert description["DatasetLinks"] == {"raw": expected}
        assert description["SourceDatasets"] == [{"URL": expected}]
