"""What strangers wrote is data: a dataset, a sidecar, files in an output folder."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bids_fixtures import MASK, save_nifti, write_dataset
from pictures import draw_nothing

from asl_pinn.io.atomic import sha256, write_files
from asl_pinn.io.bids import find_runs
from asl_pinn.workflow.cli import main
from asl_pinn.workflow.config import Job

pytestmark = pytest.mark.usefixtures("plain_pictures")

CBF = "sub-01/perf/sub-01_desc-nlls_cbf.json"
MASKFILE = "derivatives/masks/sub-01/perf/sub-01_desc-brain_mask.nii.gz"


def quantify(*arguments) -> int:
    return main(["asl-pinn", "quantify", *map(str, arguments)])


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A little dataset in `in`, its maps in `out`."""
    folder = tmp_path_factory.mktemp("first")
    where = (write_dataset(folder / "in"), folder / "out", "participant")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        assert quantify(*where, "--method=nlls", "--model=buxton") == 0
    return folder


@pytest.fixture
def made(first, tmp_path) -> Path:
    """The maps, copied with their dataset into the test's own folder."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    change(tmp_path / "out" / CBF, InputDataset=str(tmp_path / "in"))
    return tmp_path / "out"


def change(sidecar: Path, **keys) -> None:
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **keys}))


def again(output: Path, capsys, *options: str) -> str:
    """The one line of a repetition that is refused."""
    capsys.readouterr()
    assert quantify(f"--from={output / CBF}", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("Options", "compilation_cache", "/tmp/programs"),
        ("Options", "checkpoint_dir", "/tmp/states"),
        ("Options", "scheduler", "tcp://somewhere:8786"),
        ("Options", "n_jobs", 1000),
        ("Reading", "compilation_cache", "/tmp/programs"),
        ("Reading", "checkpoint_dir", "/tmp/states"),
        ("Reading", "scheduler", "tcp://somewhere:8786"),
        ("Reading", "keep_sign", "yes"),
    ],
)
def test_a_sidecar_chooses_the_method_s_options_and_the_reading_alone(
    made, capsys, group, key, value
):
    stated = json.loads((made / CBF).read_text())[group]
    change(made / CBF, **{group: {**stated, key: value}})
    assert str(made / CBF) in again(made, capsys)


@pytest.mark.parametrize(
    "key", ["compilation_cache", "checkpoint_dir", "scheduler", "n_jobs", "resume"]
)
def test_a_key_of_a_sidecar_that_is_a_flag_is_nothing(made, monkeypatch, key):
    jobs: list[Job] = []
    monkeypatch.setattr(
        "asl_pinn.workflow.batch.quantify_all", lambda given, **how: jobs.extend([*given, how]) or 0
    )
    change(made / CBF, **{key: "/tmp/elsewhere"})
    assert quantify(f"--from={made / CBF}") == 0
    job, how = jobs
    assert (job.cache, job.checkpoint_dir) == (None, None)
    assert (how["n_jobs"], how["scheduler"]) == (1, None)


@pytest.mark.parametrize(
    "name",
    [
        "file:///etc/passwd",
        "bids:raw:../../../etc/passwd",
        "bids:raw:/etc/passwd",
        "bids::/etc/passwd",
        "/etc/passwd",
        "http://[",
        "bids:raw:a\0b",
        "bids:raw:\ud800",
        "file:///%ff",
        "",
    ],
)
def test_sources_outside_the_dataset_and_no_addresses_are_refused(made, capsys, name):
    checksums = json.loads((made / CBF).read_text())["SourceChecksums"]
    change(made / CBF, SourceChecksums={name: "sha256:0", **checksums})
    line = again(made, capsys)
    assert "lies outside the dataset" in line or "is no address of a file" in line


@pytest.mark.parametrize("folder", ["in", "a\0b", "\ud800", ""])
def test_a_dataset_that_is_no_absolute_path(made, capsys, folder):
    change(made / CBF, InputDataset=folder)
    assert "InputDataset is no absolute path" in again(made, capsys)


@pytest.mark.parametrize("flag", ["mask", "m0", "rois"])
def test_images_outside_the_dataset_are_read_where_the_user_names_them_too(
    made, tmp_path, capsys, flag
):
    outside = tmp_path / "image.nii.gz"
    save_nifti(outside, MASK.astype(np.int16) * (1000 if flag == "m0" else 1))
    where = (tmp_path / "in", made, "participant", "--method=nlls", "--model=buxton")
    assert quantify(*where, f"--{flag}={outside}") == 0
    refused = f"its {flag} {outside} lies outside the dataset; if you trust it, add --{flag}="
    assert refused in again(made, capsys)
    taken = f"--{flag}: --from takes it from the sidecar"
    assert taken in again(made, capsys, f"--{flag}=/other.nii")
    assert quantify(f"--from={made / CBF}", f"--{flag}={outside}") == 0


def test_a_pipe_among_sources_or_outputs_is_not_waited_for(made, tmp_path, capsys):
    pipe = made / CBF.replace("cbf.json", "att.nii.gz")
    pipe.unlink()
    os.mkfifo(pipe)
    where = (tmp_path / "in", made, "participant", "--method=nlls", "--model=buxton")
    assert quantify(*where) == 0  # not complete, and so made anew
    assert pipe.is_file()
    mask = tmp_path / "in" / MASKFILE
    mask.unlink()
    os.mkfifo(mask)
    assert "it is no regular file" in again(made, capsys)


def test_pipes_are_no_leftovers_and_have_no_checksum(tmp_path):
    os.mkfifo(tmp_path / ".maps.json.0123.part")
    write_files({tmp_path / "maps.json": b"{}"})
    assert (tmp_path / "maps.json").read_bytes() == b"{}"
    with pytest.raises(OSError, match="no regular file"):
        sha256(tmp_path / ".maps.json.0123.part")


def test_an_output_that_is_a_pipe_is_replaced(tmp_path, made):
    (made / "group_desc-nlls_report.html").unlink()
    os.mkfifo(made / "group_desc-nlls_report.html")
    assert quantify(tmp_path / "in", made, "group", "--method=nlls") == 0
    assert (made / "group_desc-nlls_report.html").is_file()


@pytest.mark.parametrize(
    "content",
    [
        '{"name": "bids", "entities": [{"name": "x", "pattern": "(a+)+$"}]}',
        "{ not JSON",
        '{"validate": true, "root": "/etc"}',
    ],
)
def test_a_layout_configuration_in_the_dataset_is_nothing(tmp_path, content):
    root = write_dataset(tmp_path)
    (root / "layout_config.json").write_text(content)
    assert [run.stem for run in find_runs(root)] == ["sub-01"]


def test_pipes_in_a_dataset_are_not_opened(tmp_path):
    root = write_dataset(tmp_path)
    for name in ("layout_config.json", "participants.tsv", ".bidsignore", "sub-01/perf/odd.json"):
        os.mkfifo(root / name)
    (run,) = find_runs(root)
    assert run.stem == "sub-01"


def test_links_in_circles_end(tmp_path):
    root = write_dataset(tmp_path)
    (root / "sub-02").symlink_to(root)
    (root / "sub-01" / "ses-1").symlink_to(root / "sub-01")
    assert {run.path for run in find_runs(root)} >= {root / "sub-01/perf/sub-01_asl.nii.gz"}
