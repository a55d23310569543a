"""The command line as users call it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_fixtures import VALIDATOR, validation_errors

from asl_pinn import __version__
from asl_pinn.data import Status
from asl_pinn.io import bids
from asl_pinn.simulation.acquire import simulate
from asl_pinn.workflow.cli import COMMANDS, main

IN_VIVO = Path(__file__).parents[2] / "shared" / "data" / "invivo-te-pcasl"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, phantom, protocol):
    folder = tmp_path_factory.mktemp("dataset")
    bids.write_simulation(folder, phantom, simulate(phantom, protocol, tsnr=5.0, seed=0), seed=0)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """All files but logs, without the wall time and so the checksums of what states it."""
    return {
        path.relative_to(folder).as_posix(): re.sub(
            rb'"WallTime": .*|"sub-.*json": "sha256:.*', b"", path.read_bytes()
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "logs"
    }


def asl_pinn(*arguments) -> int:
    return main(["asl-pinn", *map(str, arguments)])


def fails(capsys, *arguments) -> str:
    """Check that the command ends with status 2 and one line, and return the line."""
    assert asl_pinn(*arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("asl-pinn: error: ")
    return line


def test_quantify_writes_what_the_contract_says(dataset, tmp_path, capsys, phantom):
    assert asl_pinn("quantify", dataset, tmp_path, "participant", "--method=nlls") == 0
    assert "sub-01 nlls: median CBF" in capsys.readouterr().out
    base = tmp_path / "sub-01" / "perf" / "sub-01_desc-nlls"
    for name, unit in (("cbf", "mL/100g/min"), ("att", "s")):
        for path in (Path(f"{base}_{name}"), Path(f"{base}Sd_{name}")):
            image = nib.load(f"{path}.nii.gz")
            assert image.get_data_dtype() == np.float32
            assert np.array_equal(image.affine, phantom.affine)
            assert (np.asarray(image.dataobj)[~phantom.mask] == 0.0).all()
            sidecar = json.loads(Path(f"{path}.json").read_text())
            assert sidecar["Units"] == unit
            assert sidecar["Method"] == "nlls"
            assert sidecar["Options"]["solver"] == "dogleg"
            assert sidecar["Seed"] == 0
            assert "bids:raw:sub-01/perf/sub-01_asl.nii.gz" in sidecar["Sources"]
            assert sidecar["SoftwareVersions"]["asl_pinn"] == __version__
    status = np.asarray(nib.load(f"{base}Status_dseg.nii.gz").dataobj)
    assert set(np.unique(status[phantom.mask])) <= {Status.FITTED, Status.ON_BOUND}
    assert Path(f"{base}_maps.png").read_bytes().startswith(b"\x89PNG")
    assert "sub-01" in Path(f"{base}_report.html").read_text()
    assert (tmp_path / "dataset_description.json").is_file()
    assert "sub-01" in (tmp_path / "group_desc-nlls_report.html").read_text()


@pytest.mark.skipif(not VALIDATOR.is_file(), reason="bids-validator-deno is not installed")
def test_official_validator_finds_no_errors_in_what_commands_write(tmp_path):
    raw, maps = tmp_path / "raw", tmp_path / "raw" / "derivatives" / "asl_pinn"
    assert asl_pinn("simulate", f"--output_dir={raw}", "--resolution=4", "--encoded") == 0
    model = ("--method=nlls", "--model=buxton+t1", "--fix=att=1.2")
    assert asl_pinn("quantify", raw, maps, "participant", *model) == 0
    for folder in (raw, raw / "derivatives" / "truth", maps):
        assert validation_errors(folder) == []
    (sidecar,) = maps.rglob("sub-01_desc-nlls_cbf.json")
    links = json.loads((maps / "dataset_description.json").read_text())["DatasetLinks"]
    for source in json.loads(sidecar.read_text())["Sources"]:
        dataset, path = re.fullmatch(r"bids:(\w+):(.+)", source).groups()
        assert (maps / links[dataset] / path).is_file()


@pytest.mark.usefixtures("plain_pictures")
def test_a_parameter_that_is_held_is_no_map_and_stated(dataset, tmp_path, capsys):
    model = ("--method=nlls", "--fix=att=1.2", "--bounds=cbf=:150")
    assert asl_pinn("quantify", dataset, tmp_path, "participant", *model) == 0
    assert "ATT" not in capsys.readouterr().out
    assert not list(tmp_path.rglob("*_att*"))
    (sidecar,) = tmp_path.rglob("sub-01_desc-nlls_cbf.json")
    stated = json.loads(sidecar.read_text())
    assert stated["Fixed"] == {"att": 1.2}
    assert stated["Bounds"] == {"cbf": [0.0, 150.0], "att": [0.05, 4.0]}


@pytest.mark.usefixtures("plain_pictures")
def test_a_model_of_three_parameters_is_simulated_quantified_and_scored(tmp_path, capsys):
    raw, maps, model = tmp_path / "raw", tmp_path / "maps", "--model=buxton+t1"
    quick = ("--resolution=4", "--tsnr=20")
    assert asl_pinn("simulate", f"--output_dir={raw}", model, *quick) == 0
    chosen = (model, "--method=nlls", "--t1_tissue=map", "--prior=t1_tissue=:0.05")
    assert asl_pinn("quantify", raw, maps, "participant", *chosen) == 0
    assert ", T1 0.99 s; " in capsys.readouterr().out
    (sidecar,) = maps.rglob("sub-01_desc-nlls_T1map.json")
    stated = json.loads(sidecar.read_text())
    assert stated["Model"] == "buxton+t1"
    assert stated["Units"] == "s"
    assert stated["Priors"] == {
        "att": {"Mean": 1.2, "SD": 1.0},
        "t1_tissue": {"Mean": None, "SD": 0.05},
    }
    output = tmp_path / "scores.json"
    assert asl_pinn("evaluate", maps, raw, f"--output={output}") == 0
    rows = json.loads(output.read_text())["Scores"]
    assert [row["map"] for row in rows] == ["T1map", "att", "cbf"]
    assert all(row["scores"]["nrmse"] < 0.3 for row in rows)


@pytest.mark.usefixtures("plain_pictures")
def test_default_method_is_the_most_accurate_one(dataset, tmp_path, capsys):
    quick = ("--samples=8", "--edge_dof=cbf=4")
    assert asl_pinn("quantify", dataset, tmp_path, "participant", *quick) == 0
    assert "sub-01 spatial-map: median CBF" in capsys.readouterr().out
    base = tmp_path / "sub-01" / "perf" / "sub-01_desc-spatialMap"
    for name in ("cbf", "att"):
        assert Path(f"{base}Sd_{name}.nii.gz").is_file()
        sidecar = json.loads(Path(f"{base}_{name}.json").read_text())
        assert sidecar["Method"] == "spatial-map"
        assert sidecar["Options"]["samples"] == 8
        assert sidecar["Options"]["edge_dof"] == {"cbf": 4.0, "att": 3.0}


def test_same_command_gives_the_same_bits(dataset, tmp_path):
    for name in ("first", "again"):
        assert (
            asl_pinn(
                "quantify",
                dataset,
                tmp_path / name,
                "participant",
                "--method=nlls",
                "--model=buxton",
            )
            == 0
        )
    assert files(tmp_path / "first") == files(tmp_path / "again")


@pytest.mark.usefixtures("plain_pictures")
def test_evaluate_scores_what_quantify_wrote(dataset, tmp_path, capsys):
    arguments = ("quantify", dataset, tmp_path, "participant", "--method=nlls", "--model=buxton")
    assert asl_pinn(*arguments, "--t1_tissue=map") == 0
    capsys.readouterr()
    output = tmp_path / "scores.json"
    assert asl_pinn("evaluate", tmp_path, dataset / "derivatives/truth", f"--output={output}") == 0
    printed = capsys.readouterr().out
    rows = json.loads(output.read_text())["Scores"]
    assert [(row["run"], row["method"], row["map"]) for row in rows] == [
        ("sub-01", "nlls", "att"),
        ("sub-01", "nlls", "cbf"),
    ]
    for row in rows:
        assert row["scores"]["nrmse"] < 0.2
        assert f"{row['scores']['nrmse']:.3f}" in printed


@pytest.mark.usefixtures("plain_pictures")
def test_t1_map_matters_and_is_named_in_the_sources(dataset, tmp_path):
    for name, t1 in (("constant", "1.33"), ("map", "map")):
        chosen = ("--method=nlls", "--model=buxton", f"--t1_tissue={t1}")
        assert asl_pinn("quantify", dataset, tmp_path / name, "participant", *chosen) == 0
    path = "sub-01/perf/sub-01_desc-nlls_cbf"
    constant, mapped = (
        np.asarray(nib.load(tmp_path / name / f"{path}.nii.gz").dataobj)
        for name in ("constant", "map")
    )
    assert not np.allclose(constant, mapped, rtol=0.01)
    sources = json.loads((tmp_path / "map" / f"{path}.json").read_text())["Sources"]
    assert "bids:raw:sub-01/anat/sub-01_T1map.nii.gz" in sources


@pytest.mark.usefixtures("plain_pictures")
def test_float64_and_programs_as_users_have_them_give_the_same_maps(dataset, tmp_path):
    """In a process of its own, since 64-bit mode cannot be turned off again.

    There XLA optimises, as it does for users and not in the other tests.
    """
    quick = ("participant", "--method=nlls", "--model=buxton", "--sd=curvature")
    assert asl_pinn("quantify", dataset, tmp_path / "single", *quick) == 0
    command = [sys.executable, "-m", "asl_pinn", "quantify", dataset, tmp_path / "double", *quick]
    environment = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run([*command, "--dtype=float64"], env=environment, check=True, capture_output=True)
    base = "sub-01/perf/sub-01_desc-nlls"
    sidecar = json.loads((tmp_path / "double" / f"{base}_cbf.json").read_text())
    assert sidecar["DataType"] == "float64"
    for name in ("cbf", "att"):
        single, double = (
            np.asarray(nib.load(tmp_path / folder / f"{base}_{name}.nii.gz").dataobj)
            for folder in ("single", "double")
        )
        assert np.mean(np.abs(single - double) <= 1e-3 * np.abs(double)) > 0.99


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize("encoded", [False, True])
def test_simulated_datasets_are_the_same_to_the_bit_and_can_be_quantified(tmp_path, encoded):
    flag = "--encoded" if encoded else "--noencoded"
    settings = (flag, "--resolution=4", "--tsnr=4", "--seed=3", "--matrix_type=walsh")
    for name in ("first", "again"):
        assert asl_pinn("simulate", f"--output_dir={tmp_path / name}", *settings) == 0
    assert files(tmp_path / "first") == files(tmp_path / "again")
    out, chosen = tmp_path / "out", ("--method=nlls", "--model=buxton", "--t1_tissue=map")
    assert asl_pinn("quantify", tmp_path / "first", out, "participant", *chosen) == 0
    assert asl_pinn("evaluate", out, tmp_path / "first") == 0


def test_a_dataset_of_images_is_no_place_for_maps(dataset, capsys):
    before = files(dataset)
    assert asl_pinn("quantify", dataset, dataset, "participant", "--method=nlls") == 2
    assert "describes a raw dataset; choose another output folder" in capsys.readouterr().err
    assert files(dataset) == before


def test_schedules_may_be_listed(tmp_path):
    flags = ("--matrix_size=4", "--schedule=1.8,1.0,0.5", "--resolution=4")
    assert asl_pinn("simulate", f"--output_dir={tmp_path}", *flags) == 0
    sidecar = json.loads((tmp_path / "sub-01/perf/sub-01_asl.json").read_text())
    assert sidecar["LabelingDuration"] == [1.8, 1.0, 0.5]
    assert sidecar["PostLabelingDelay"] == pytest.approx([1.6, 0.6, 0.1])


@pytest.mark.usefixtures("plain_pictures")
def test_checkpoints_end_with_their_own_run_and_leave_those_of_others(dataset, tmp_path):
    others = tmp_path / ".checkpoints" / "sub-02_pinn" / "state"
    others.parent.mkdir(parents=True)
    others.write_text("half-way")
    quick = ("--method=neural-field", "--model=buxton", "--steps=4", "--members=2", "--width=8")
    assert asl_pinn("quantify", dataset, tmp_path, "participant", *quick) == 0
    assert files(tmp_path / ".checkpoints") == {"sub-02_pinn/state": b"half-way"}
    others.unlink()
    others.parent.rmdir()
    assert (
        asl_pinn("quantify", dataset, tmp_path, "participant", "--method=nlls", "--model=buxton")
        == 0
    )
    assert not (tmp_path / ".checkpoints").exists()


def test_demo_leaves_maps_scores_and_a_figure_and_says_where(tmp_path, capsys):
    assert asl_pinn("demo", f"--output_dir={tmp_path}", "--methods=nlls") == 0
    printed = capsys.readouterr().out
    for name in ("demo.png", "scores.json", "quantified", "simulated"):
        assert str(tmp_path / name) in printed
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "scores.json").read_text())["Scores"]
    assert {row["map"] for row in rows} == {"cbf", "att"}
    assert all(0.3 < row["scores"]["ssim_masked"] < 0.8 for row in rows)


@pytest.mark.skipif(not IN_VIVO.is_dir(), reason="the in vivo dataset is not beside the project")
def test_in_vivo_dataset_gives_plausible_maps_and_a_note(tmp_path, capsys):
    assert (
        asl_pinn("quantify", IN_VIVO, tmp_path, "participant", "--method=nlls", "--model=buxton")
        == 0
    )
    assert "sub-01: note: labelling efficiency 0.85" in capsys.readouterr().err
    base = f"{tmp_path}/sub-01/perf/sub-01_desc-nlls"
    cbf, att, status = (
        np.asarray(nib.load(f"{base}{name}.nii.gz").dataobj)
        for name in ("_cbf", "_att", "Status_dseg")
    )
    fitted = status == Status.FITTED
    assert fitted.sum() > 4000
    assert 30.0 < np.median(cbf[fitted]) < 100.0
    assert 0.7 < np.median(att[fitted]) < 1.6


@pytest.mark.parametrize("arguments", [["--help"], ["help"], ["-h"]])
def test_overview_lists_the_commands(arguments, capsys):
    assert asl_pinn(*arguments) == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in printed


def test_overview_does_not_wait_for_jax():
    code = "import sys; from asl_pinn.workflow.cli import main; main(['a', '--help']); "
    code += "assert not {'jax', 'numpy', 'nibabel'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_of_quantify_has_groups_models_and_each_methods_defaults(capsys):
    assert asl_pinn("quantify", "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    for heading in ("common flags:", "reading:", "method:", "options of spatial-map:"):
        assert heading in printed
    assert "cbf [mL/100g/min] 0 to 200; att [s] 0.05 to 4, prior 1.2 +- 1 (weak)." in printed
    assert "t1_tissue [s] 0.3 to 5, prior as stated for the tissue +- 0.1." in printed
    assert "--seed Seed of everything random. Default: 0." in printed
    assert "BIDS_DIR A BIDS dataset" in printed
    assert "anew. Default: true." in printed


def test_a_reader_that_has_enough_ends_the_command_quietly():
    command = f"{sys.executable} -m asl_pinn quantify --help"
    shell = ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_help_of_quantify_does_not_wait_for_what_the_methods_need():
    code = "import sys; from asl_pinn.workflow.cli import main; main(['a', 'quantify', '--help']); "
    code += "heavy = {'flax', 'optax', 'nibabel', 'matplotlib', 'scipy.stats', 'bids'}; "
    code += "assert not heavy & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_flags(command, capsys):
    assert asl_pinn(command, "--help") == 0
    assert f"usage: asl-pinn {command} " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--version"], ["quantify", "--version"]])
def test_version(capsys, arguments):
    assert asl_pinn(*arguments) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["q"], ["quantify"]),
        (["quantify", "--m0_r"], ["--m0_reference=", "--m0_reference_mask=", "--m0_rim="]),
        (["quantify", "s"], []),
    ],
)
def test_a_shell_completes_commands_and_flags(words, completed, capsys, tmp_path):
    assert asl_pinn("completion", "bash") == 0
    script = tmp_path / "complete.sh"
    script.write_text(capsys.readouterr().out)
    line = f"COMP_WORDS=(asl-pinn {' '.join(words)}); COMP_CWORD={len(words)}"
    code = f'source {script}; {line}; _asl_pinn; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed
    assert asl_pinn("completion", "zsh") == 0
    assert "bashcompinit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment"], "unknown command 'segment'"),
        (["quantify"], "0 arguments given, 3 expected"),
        (["quantify", "a", "b", "session"], "analysis level 'session'"),
        (["quantify", "a", "b", "group"], "no maps of method spatial-map"),
        (["quantify", "a", "b", "participant", "--method=magic"], "--method"),
        (["quantify", "a", "b", "participant", "--f_scale=high"], "--f_scale"),
        (["quantify", "a", "b", "participant", "--bounds=cbf=high"], "--bounds: 'cbf=high' is not"),
        (["quantify", "a", "b", "participant", "--bounds=cbf=:"], "of the form att=0.05:4"),
        (["quantify", "a", "b", "participant", "--bounds=cbf=1:2:3"], "of the form att=0.05:4"),
        (["quantify", "a", "b", "participant", "--fix=att"], "of the form att=1.2"),
        (["quantify", "a", "b", "participant", "--fix="], "--fix: '' is not of the form"),
        (["quantify", "a", "b", "participant", "--fix=att=1,att=2"], "--fix: att occurs twice"),
        (["quantify", "a", "b", "participant", "--fix=att=9"], "ATT is held at 9 s, outside"),
        (["quantify", "a", "b", "participant", "--fix=cbf=50"], "CBF is an amplitude"),
        (["quantify", "a", "b", "participant", "--bounds=att=4:1"], "bounds of ATT out of order"),
        (
            ["quantify", "a", "b", "participant", "--bounds=t1_tissue=1:2"],
            "has no 't1_tissue', only cbf, att, abv, abat, dispersion_sd",
        ),
        (["quantify", "a", "b", "participant", "--prior=t1_tissue=1:2"], "--prior: model buxton+"),
        (["quantify", "a", "b", "participant", "--prior=cbf=50:"], "prior of CBF"),
        (["quantify", "a", "b", "participant", "--fix=abv=1"], "--fix: model buxton has no 'abv'"),
        (["quantify", "a", "b", "participant", "--model=magic"], "unknown model 'magic'"),
        (["quantify", "a", "b", "participant", "--model=t1"], "has no signal of its own"),
        (["quantify", "a", "b", "participant", "--model=no_such:Model"], "model 'no_such:Model'"),
        (
            ["quantify", "a", "b", "participant", "--edge_dof=t1_tissue=1"],
            "option edge_dof: the model has no parameter 't1_tissue', only cbf, att, abv",
        ),
        (
            ["quantify", "a", "b", "participant", "--fix=att=1", "--edge_dof=att=1"],
            "option edge_dof: the model has no parameter 'att', only cbf",
        ),
        (
            ["quantify", "a", "b", "participant", "--method=nlls", "--rounds=3"],
            "--rounds is no option of nlls, but of spatial-map",
        ),
        (["quantify", "a", "b", "participant", "--participant_label="], "--participant_label is"),
        (["quantify", "a", "b", "participant", "--participant_label=01,"], "_label is empty"),
        (["quantify", "a", "b", "participant", "01"], "4 arguments given, 3 expected"),
        (["quantify", "a", "b", "participant", "--colour=red"], "colour"),
        (["quantify", "/nonexistent", "b", "participant"], "/nonexistent: no such folder"),
        (["simulate"], "--output_dir is missing"),
        (["simulate", "--output_dir=x", "--resolution=4", "--tsnr=-1"], "tSNR must be positive"),
        (["simulate", "--output_dir=x", "--resolution=4", "--slice=99"], "slice '99'"),
        (["simulate", "--output_dir=x", "--matrix_size=6"], "no Hadamard matrix of size 6"),
        (["simulate", "--output_dir=x", "--schedule=soon"], "--schedule=soon is none of"),
        (["simulate", "--output_dir=x", "--schedule=1,2"], "--matrix_size=8 needs 7"),
        (["simulate", "--output_dir=x", "--schedule=1,a"], "no list of seconds"),
        (["simulate", "--output_dir=x", "--phantom=bats"], "--bats_dir is missing"),
        (["simulate", "--output_dir=x", "--phantom=bats", "--bats_dir=."], "BATS_cbf_1c"),
        (["simulate", "--output_dir=x", "--model=magic"], "unknown model 'magic'"),
        (["simulate", "--output_dir=x", "more"], "1 arguments given, 0 expected"),
        (["evaluate", "/nonexistent", "."], "/nonexistent: no such folder"),
        (["evaluate", "."], "1 arguments given, 2 expected"),
        (["demo", "--methods=magic"], "unknown method 'magic'"),
        (["completion", "fish"], "shell 'fish' is unknown; choose bash or zsh"),
        (["quantify", "a", "b", "participant", "--quiet", "--verbose"], "exclude one another"),
    ],
)
def test_mistakes_end_with_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments)
    assert not any(tmp_path.iterdir())


def test_no_command_shows_the_overview_as_a_mistake(capsys):
    assert asl_pinn() == 2
    assert "usage: asl-pinn" in capsys.readouterr().out


def test_output_folder_that_is_a_file_is_refused_before_the_fit(dataset, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    line = fails(capsys, "quantify", dataset, tmp_path / "file" / "out", "participant")
    assert "is a file" in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("plain_pictures")
def test_failure_leaves_earlier_output_as_it_was(dataset, tmp_path, capsys):
    assert (
        asl_pinn("quantify", dataset, tmp_path, "participant", "--method=nlls", "--model=buxton")
        == 0
    )
    before = files(tmp_path)
    capsys.readouterr()
    fails(capsys, "quantify", dataset, tmp_path, "participant", "--mask=/nonexistent.nii.gz")
    fails(capsys, "quantify", dataset, tmp_path, "participant", "--bounds=att=5:4")
    assert files(tmp_path) == before


@pytest.mark.usefixtures("plain_pictures")
def test_evaluate_names_the_map_whose_truth_is_missing(dataset, tmp_path, capsys):
    assert (
        asl_pinn("quantify", dataset, tmp_path, "participant", "--method=nlls", "--model=buxton")
        == 0
    )
    capsys.readouterr()
    line = fails(capsys, "evaluate", tmp_path, dataset / "sub-01")
    assert "sub-01_desc-truth_att.nii.gz" in line
    line = fails(capsys, "evaluate", dataset / "sub-01", dataset)
    assert "no *_desc-<method>_<suffix>.nii.gz in it, with a suffix of " in line
