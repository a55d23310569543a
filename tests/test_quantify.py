"""Many runs: resumed, repeated, failing, interrupted; and what is logged of them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from bids_fixtures import MASK, write_dataset

from asl_pinn.io import bids
from asl_pinn.models import get
from asl_pinn.workflow import batch
from asl_pinn.workflow.cli import main
from asl_pinn.workflow.config import Job

pytestmark = pytest.mark.usefixtures("plain_pictures")

SUBJECTS = ("01", "02")
STEM = "sub-01/perf/sub-01"


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "data set"
    for subject in SUBJECTS:
        add(root, subject)
    return root


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def add(root: Path, subject: str, **changes) -> None:
    write_dataset(root, stem=f"sub-{subject}", folder=f"sub-{subject}/perf", **changes)


def quantify(*arguments) -> int:
    return main(["asl-pinn", "quantify", *map(str, arguments)])


def quantify_all(dataset: Path, output: Path, *options: str) -> int:
    return quantify(dataset, output, "participant", "--method=nlls", *options)


def sidecar(output: Path, subject: str = "01") -> Path:
    return output / f"sub-{subject}" / "perf" / f"sub-{subject}_desc-nlls_cbf.json"


def test_the_group_level_makes_the_page_of_what_is_there(dataset, output, capsys):
    assert quantify_all(dataset, output) == 0
    page = output / "group_desc-nlls_report.html"
    content, before = page.read_bytes(), when_written(output)
    page.unlink()
    capsys.readouterr()
    assert quantify(dataset, output, "group", "--method=nlls") == 0
    table = output / "group_desc-nlls_qc.tsv"
    assert capsys.readouterr().out.split("\n")[:2] == [str(page), str(table)]
    assert page.read_bytes() == content
    assert when_written(output) == before


def runs_in(printed: str) -> list[str]:
    """Lines about runs, without that which says where the reports are."""
    return [line for line in printed.splitlines() if not line.startswith("report")]


def images(output: Path) -> dict[str, bytes]:
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in output.rglob("*_desc-*")
        if path.suffix != ".json"
    }


def when_written(output: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in output.rglob("sub-*_desc-*")}


def logs(output: Path) -> list[str]:
    return [path.read_text() for path in sorted((output / "logs").iterdir())]


def change(path: Path, **keys) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_what_is_complete_is_left_alone_and_said_so(dataset, output, capsys):
    assert quantify_all(dataset, output) == 0
    before = when_written(output)
    capsys.readouterr()
    assert quantify_all(dataset, output) == 0
    assert when_written(output) == before
    expected = [f"sub-{subject} nlls: already complete" for subject in SUBJECTS]
    assert [line.split(";")[0] for line in runs_in(capsys.readouterr().out)] == expected
    assert quantify_all(dataset, output, "--noresume") == 0
    assert "median CBF" in capsys.readouterr().out
    assert not set(when_written(output).values()) & set(before.values())


@pytest.mark.parametrize(
    ("options", "differing"),
    [
        (["--seed=1"], "Seed"),
        (["--bounds=cbf=:150"], "Bounds"),
        (["--prior=att=1.3:"], "Priors"),
        (["--f_scale=2"], "Options"),
        (["--model=buxton+t1"], "Model, Bounds, Priors"),
        (["--t1_blood=1.6"], "Reading, T1Blood"),
    ],
)
def test_other_settings_make_maps_anew(dataset, output, capsys, options, differing):
    one = "--participant_label=01"
    assert quantify_all(dataset, output, one) == 0
    assert quantify_all(dataset, output, one, *options) == 0
    captured = capsys.readouterr()
    assert "already complete" not in captured.out
    assert f"earlier maps are replaced, made with other {differing}" in captured.err


def test_only_what_is_whole_and_of_the_same_origin_counts_as_complete(dataset, output, capsys):
    assert quantify_all(dataset, output) == 0
    base = str(sidecar(output)).removesuffix("_cbf.json")
    metadata = dataset / "sub-01" / "perf" / "sub-01_asl.json"
    for harm in (
        lambda: damage(Path(f"{base}_att.nii.gz")),
        lambda: damage(Path(f"{base}_report.html")),
        lambda: Path(f"{base}_maps.png").unlink(),
        lambda: change(Path(f"{base}_att.json"), Seed=5),
        lambda: change(sidecar(output), SoftwareVersions={"asl_pinn": "0.0.1"}),
        lambda: change(sidecar(output), Outputs=[]),
        lambda: change(metadata, LabelingEfficiency=0.7),
    ):
        harm()
        capsys.readouterr()
        assert quantify_all(dataset, output) == 0
        first, *others = runs_in(capsys.readouterr().out)
        assert "sub-01 nlls: median CBF" in first
        assert all("already complete" in line for line in others)
        assert bids.read_finished(output, STEM, "nlls", get("buxton")) is not None


def test_metadata_inherited_from_the_root_count_as_input(dataset, output, capsys):
    for subject in SUBJECTS:
        path = dataset / f"sub-{subject}" / "perf" / f"sub-{subject}_asl.json"
        keys = json.loads(path.read_text())
        del keys["LabelingEfficiency"]
        path.write_text(json.dumps(keys))
    inherited = dataset / "asl.json"
    inherited.write_text('{"LabelingEfficiency": 0.8}')
    assert quantify_all(dataset, output) == 0
    inherited.write_text('{"LabelingEfficiency": 0.7}')
    capsys.readouterr()
    assert quantify(f"--from={sidecar(output)}") == 2
    assert "its metadata, or what it inherits" in capsys.readouterr().err
    assert quantify_all(dataset, output) == 0
    assert "already complete" not in capsys.readouterr().out


def test_failed_participants_stop_no_other_and_are_listed(dataset, output, capsys):
    add(dataset, "02", metadata={"LabelingDuration": None})
    add(dataset, "03", m0=-np.ones(MASK.shape))
    add(dataset, "04")
    assert quantify_all(dataset, output) == 1
    captured = capsys.readouterr()
    assert [line[:6] for line in runs_in(captured.out)] == ["sub-01", "sub-04"]
    heading, second, third = captured.err.splitlines()
    assert heading == "asl-pinn: 2 of 4 runs failed:"
    assert second.startswith("  sub-02: ")
    assert "'LabelingDuration' is missing" in second
    assert third.startswith("  sub-03: ")
    assert "M0 is nowhere positive" in third
    (log,) = logs(output)
    assert "ERROR sub-02: " in log
    assert "2 finished, 2 refused" in log
    add(dataset, "02")
    add(dataset, "03")
    assert quantify_all(dataset, output) == 0
    assert capsys.readouterr().out.count("already complete") == 2


def test_a_damaged_file_fails_the_runs_that_it_applies_to(dataset, output, capsys):
    damaged = {
        "02": ("sub-02/perf/sub-02_asl.json", b"{ not JSON"),
        "03": ("sub-03/perf/sub-03_m0scan.json", b"[]"),
        "04": ("sub-04/sub-04_asl.json", b"\xff\xfe"),
        "05": ("sub-05/perf/sub-05_asl.nii.gz", b""),
        "06": ("sub-06/perf/sub-06_aslcontext.tsv", b"\xff\xfe"),
        "07": ("sub-07/perf/sub-07_m0scan.nii.gz", b"\x1f\x8b"),
        "08": ("derivatives/masks/sub-08/perf/sub-08_desc-brain_mask.nii.gz", b"mask"),
    }
    for subject, (name, content) in damaged.items():
        add(dataset, subject)
        (dataset / name).write_bytes(content)
    (dataset / "sub-01" / "perf" / "sub-01_acq-other_asl.json").write_text("{ not JSON")
    assert quantify_all(dataset, output) == 1
    captured = capsys.readouterr()
    assert [line[:6] for line in runs_in(captured.out)] == ["sub-01"]
    heading, *lines = captured.err.splitlines()
    assert heading == "asl-pinn: 7 of 8 runs failed:"
    for line, (subject, (name, _)) in zip(lines, damaged.items(), strict=True):
        assert line.startswith(f"  sub-{subject}: {dataset / name}: ")
    assert quantify_all(dataset, output, "--participant_label=02") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"asl-pinn: error: {dataset}/sub-02/perf/sub-02_asl.json: cannot be")
    (dataset / "asl.json").write_text("{ not JSON")
    assert quantify_all(dataset, output, "--participant_label=01,02") == 2
    assert f"error: {dataset}/asl.json: cannot be read as JSON" in capsys.readouterr().err


def test_one_reason_for_all_is_one_line_and_status_2(dataset, output, capsys):
    assert quantify_all(dataset, output, "--mask=/nonexistent.nii.gz") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("asl-pinn: error: /nonexistent.nii.gz: ")


def test_a_fault_of_the_program_is_in_the_log_with_its_traceback(
    dataset, output, capsys, monkeypatch
):
    write_maps = bids.write_maps

    def faulty(output_dir, maps, *others):
        if maps.stem.endswith("sub-02"):
            raise ZeroDivisionError("by nought")
        return write_maps(output_dir, maps, *others)

    monkeypatch.setattr(bids, "write_maps", faulty)
    assert quantify_all(dataset, output) == 1
    assert "  sub-02: ZeroDivisionError: by nought" in capsys.readouterr().err
    (log,) = logs(output)
    assert "Traceback (most recent call last)" in log
    assert "INFO 1 finished, 1 failed" in log


def test_a_full_disk_ends_the_command_with_one_line(dataset, output, capsys, monkeypatch):
    """As the file system says it; `test_files` fills a real one."""
    replace, calls = os.replace, []

    def until_full(*paths):
        calls.append(paths)
        if len(calls) > 20:
            raise OSError(28, "No space left on device")
        replace(*paths)

    monkeypatch.setattr("asl_pinn.io.atomic.os.replace", until_full)
    assert quantify_all(dataset, output) == 2
    captured = capsys.readouterr()
    assert [line[:6] for line in runs_in(captured.out)] == ["sub-01"]
    (line,) = captured.err.splitlines()
    assert "sub-02" in line
    assert "(No space left on device); free some space and run the same command again" in line
    assert not list(output.rglob("*.part"))
    monkeypatch.setattr("asl_pinn.io.atomic.os.replace", replace)
    assert quantify_all(dataset, output) == 0
    assert capsys.readouterr().out.count("already complete") == 1


def test_an_interrupt_leaves_what_is_finished(dataset, output, capsys, monkeypatch):
    real = batch.quantify_one

    def interrupted(job):
        if job.run.stem == "sub-02":
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(batch, "quantify_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantify_all(dataset, output)
    expected = "interrupted; 1 of 2 runs are done; run the same command again"
    assert capsys.readouterr().err == f"asl-pinn: {expected}\n"
    assert expected in logs(output)[0]
    assert logs(output)[0].endswith("ERROR stopped: KeyboardInterrupt\n")
    monkeypatch.setattr(batch, "quantify_one", real)
    assert quantify_all(dataset, output) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.split(";")[0] == "sub-01 nlls: already complete"


def test_maps_are_made_again_from_their_sidecar(dataset, output, tmp_path, capsys):
    options = (
        "--model=buxton+t1",
        "--bounds=cbf=:150,att=0.1:",
        "--prior=t1_tissue=:0.05",
        "--prior=att=1.3:0.8",
        "--f_scale=2.5",
        "--seed=4",
        "--t1_tissue=1.2",
    )
    one = "--participant_label=02"
    assert quantify_all(dataset, output, *options, one) == 0
    origin = sidecar(output, "02")
    assert quantify(f"--from={origin}", tmp_path / "again") == 0
    assert images(tmp_path / "again") == images(output)
    repeated = json.loads(sidecar(tmp_path / "again", "02").read_text())
    recorded = json.loads(origin.read_text())
    assert isinstance(recorded["WallTime"], float)
    for varying in ("WallTime", "Outputs"):
        del repeated[varying], recorded[varying]
    assert repeated == recorded
    before = when_written(output)
    assert quantify(f"--from={origin}") == 0
    assert not set(when_written(output).values()) & set(before.values())
    assert "median CBF" in capsys.readouterr().out


def test_held_parameters_are_repeated_within_the_bounds_of_the_user(dataset, output, tmp_path):
    """The model's own bounds would not let the value in."""
    chosen = ("--participant_label=01", "--bounds=att=0.01:", "--fix=att=0.02", "--sd=curvature")
    assert quantify_all(dataset, output, *chosen) == 0
    assert json.loads(sidecar(output).read_text())["Fixed"] == {"att": 0.02}
    assert quantify(f"--from={sidecar(output)}", tmp_path / "again") == 0
    assert images(tmp_path / "again") == images(output)


def test_participants_are_named_as_bids_apps_have_it(dataset, output, capsys):
    add(dataset, "03")
    for labels in (
        ("--participant_label", "01", "03"),
        ("--participant_label", "sub-01", "sub-03", "01"),
        ("--participant_label=01,sub-03",),
        ("--participant_label=01", "--participant_label=03"),
    ):
        capsys.readouterr()
        assert quantify_all(dataset, output, *labels) == 0
        said = [line[:6] for line in runs_in(capsys.readouterr().out)]
        assert said == ["sub-01", "sub-03"]


@pytest.mark.parametrize(
    ("m0", "fault"),
    [
        (0.01, "the median CBF is on its bound of 200 mL/100g/min"),
        (1e9, "the median CBF is on its bound of 0 mL/100g/min"),
    ],
)
def test_maps_that_cannot_be_right_are_written_and_said_so(dataset, output, capsys, m0, fault):
    add(dataset, "01", m0=np.where(MASK, m0, 0.01 * m0).astype(np.float32))
    for _ in range(2):  # what is complete is no better for it
        assert quantify_all(dataset, output, "--participant_label=01") == 1
        heading, line = capsys.readouterr().err.splitlines()[-2:]
        assert heading == "asl-pinn: 1 of 1 runs failed:"
        assert line.startswith("  sub-01: unusable: ")
        assert f"; {fault}; " in line
    stated = json.loads(sidecar(output).read_text())
    assert stated["Verdict"] == "unusable"
    assert fault in stated["VerdictReasons"]
    assert "1 unusable" in logs(output)[0]


def test_maps_are_not_made_again_from_other_inputs(dataset, output, capsys):
    assert quantify_all(dataset, output) == 0
    add(dataset, "01", m0=np.full(MASK.shape, 900.0, np.float32))
    capsys.readouterr()
    assert quantify(f"--from={sidecar(output)}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{dataset}/sub-01/perf/sub-01_m0scan.nii.gz: is not the file" in line
    (dataset / "sub-01/perf/sub-01_m0scan.nii.gz").unlink()
    assert quantify(f"--from={sidecar(output)}") == 2
    assert "sub-01_m0scan.nii.gz: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "options", "message"),
    [
        ({}, ["a", "b"], "OUTPUT_DIR is the one argument"),
        ({}, ["--seed=3"], "--seed: --from takes it from the sidecar"),
        ({}, ["--participant_label=01"], "--participant_label: --from takes it"),
        ({}, ["--f_scale=3"], "--f_scale: --from takes it from the sidecar"),
        ({}, ["--model=buxton+t1"], "--model: --from takes it from the sidecar"),
        ({"InputFingerprint": None}, [], "does not state InputFingerprint"),
        ({"Model": None}, [], "does not state Model"),
        ({"Model": "os:abort"}, [], "its model os:abort is code that would be run; if you trust"),
        ({"Model": "magic"}, [], "unknown model 'magic'"),
        ({"Method": "magic"}, [], "unknown method 'magic'"),
        ({"Options": {"colour": "red"}}, [], "nlls has no option 'colour', only"),
        ({"Options": {"grid": "many"}}, [], "nlls: option grid is a whole number, not 'many'"),
        ({"Bounds": {"att": [4, 1]}}, [], "bounds of ATT out of order"),
        ({"Bounds": {"att": "wide"}}, [], "states what quantify does not write"),
        ({"Priors": {"att": {"Mean": 1.2}}}, [], "states what quantify does not write: 'SD'"),
        ({"Fixed": {"abv": 1.0}}, [], "model buxton has no parameter 'abv'"),
        ({"Reading": {"scheduler": "tcp://here"}}, [], "states what quantify does not write"),
        ({"Reading": {"t1_tissue": [1]}}, [], "states what quantify does not write"),
        ({"DataType": "float16"}, [], "states the unknown DataType 'float16'"),
        ({"SourceChecksums": {}}, [], "names 0 ASL series"),
        ({"InputDataset": "/nonexistent"}, [], "/nonexistent/sub-01"),
    ],
)
def test_a_sidecar_that_cannot_be_repeated(dataset, output, capsys, keys, options, message):
    assert quantify_all(dataset, output, "--participant_label=01") == 0
    change(sidecar(output), **keys)
    capsys.readouterr()
    assert quantify(f"--from={sidecar(output)}", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_other_versions_are_told_when_maps_are_made_again(dataset, output, capsys):
    assert quantify_all(dataset, output, "--participant_label=01") == 0
    change(sidecar(output), Device="abacus")
    assert quantify(f"--from={sidecar(output)}") == 0
    assert "sub-01: note: made with other Device; bits may differ" in capsys.readouterr().err


def test_processes_make_the_same_bits(dataset, output, tmp_path, capsys):
    assert quantify_all(dataset, output) == 0
    assert quantify_all(dataset, tmp_path / "two", "--n_jobs=2") == 0
    maps, again = (
        {name: content for name, content in images(folder).items() if name.endswith(".nii.gz")}
        for folder in (output, tmp_path / "two")
    )
    assert len(maps) == 5 * len(SUBJECTS)
    assert again == maps


def test_processes_and_a_cluster_exclude_one_another(dataset, output, capsys):
    assert quantify_all(dataset, output, "--n_jobs=2", "--scheduler=tcp://localhost:1") == 2
    assert "--n_jobs and --scheduler exclude one another" in capsys.readouterr().err


def test_outcomes_of_lost_processes_are_failures(dataset, output, capsys, monkeypatch):
    def lost(*_, **__):
        for job in jobs:
            yield job, ChildProcessError("its process was killed")

    jobs = [Job(run, None, output) for run in bids.find_runs(dataset)[:1]]
    monkeypatch.setattr(batch.cohort, "each", lost)
    assert quantify_all(dataset, output) == 1
    assert "  sub-01: its process was killed" in capsys.readouterr().err


def test_the_way_to_the_reports_is_printed_at_the_end(dataset, output, capsys):
    assert quantify_all(dataset, output, "--participant_label=01") == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == f"report: {output / 'sub-01' / 'perf' / 'sub-01_desc-nlls_report.html'}"
    assert quantify_all(dataset, output) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == f"reports: {output / 'group_desc-nlls_report.html'}"


def test_quiet_verbose_and_json_say_as_much_as_is_wanted(dataset, output, capsys):
    add(dataset, "02", metadata={"MagneticFieldStrength": None})
    assert quantify_all(dataset, output, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert quantify_all(dataset, output, "--verbose") == 0
    printed = capsys.readouterr()
    assert "sub-01 nlls: already complete" in printed.err
    assert "already complete" in printed.out
    add(dataset, "03", metadata={"LabelingDuration": None})
    assert quantify_all(dataset, output, "--json", "--noresume", "--model=buxton") == 1
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert "sub-03: " in printed.err
    assert (summary["exit_status"], summary["method"]) == (1, "nlls")
    first, second, third = summary["runs"]
    assert (first["name"], first["state"], third["state"]) == ("sub-01", "finished", "refused")
    assert set(first["medians"]) == {"cbf", "att"}
    assert Path(first["report"]).is_file()
    assert any("MagneticFieldStrength" in note for note in second["notes"])
    assert third["report"] is None
    assert Path(summary["group"][0]).name == "group_desc-nlls_report.html"


def test_commands_as_bids_apps_have_them(dataset, output, capsys):
    add(dataset, "03")
    options = ("--participant-label", "01", "02", "--n-jobs=1", "--dtype", "float32")
    command = ("asl-pinn", dataset, output, "participant", "--method=nlls", *options)
    assert main([*map(str, command)]) == 0
    assert [line[:6] for line in runs_in(capsys.readouterr().out)] == ["sub-01", "sub-02"]
    command = ("asl-pinn", "--participant-label", "03", "01", dataset, output, "participant")
    assert main([*map(str, command), "--method=nlls", "--no-resume"]) == 0
    printed = runs_in(capsys.readouterr().out)
    assert [line[:6] for line in printed] == ["sub-01", "sub-03"]
    assert "already complete" not in printed[0]
    assert main(["asl-pinn", str(dataset), str(output), "group", "--method=nlls"]) == 0
