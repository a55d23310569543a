"""Ends of a command in odd circumstances: full output, interrupts, little memory, odd names."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_fixtures import write_dataset
from test_training import WATCHED, bits
from test_training import run as train

from asl_pinn import models
from asl_pinn.data import Maps
from asl_pinn.errors import InputError, one_line
from asl_pinn.io.atomic import require_writable
from asl_pinn.io.bids import find_runs
from asl_pinn.io.bids.images import load_image
from asl_pinn.io.checkpoints import Checkpoints
from asl_pinn.viz import plots
from asl_pinn.workflow import cli, interrupts, jobs, runlog
from asl_pinn.workflow.cli import main

ODD = "sub-01_\udcff"


def shell(line: str) -> subprocess.CompletedProcess:
    line = line.replace("asl-pinn", f"{sys.executable} -m asl_pinn")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_standard_output_ends_with_one_line():
    done = shell("asl-pinn --help > /dev/full")
    assert done.returncode == 2
    said = "asl-pinn: error: standard output cannot be written (No space left on device)\n"
    assert done.stderr == said


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_fault(redirection):
    done = shell(f"asl-pinn --version {redirection}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_small_address_space_is_refused():
    done = shell("ulimit -v 2000000; asl-pinn evaluate a b")
    assert done.returncode == 2
    assert done.stderr.startswith("asl-pinn: error: the address space is limited to 2 GB")
    assert len(done.stderr.splitlines()) == 1


def test_a_want_of_memory_is_one_line(monkeypatch, capsys):
    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr(cli, "_dispatch", greedy)
    assert main(["asl-pinn", "evaluate", "a", "b"]) == 2
    assert capsys.readouterr().err.startswith("asl-pinn: error: there is not enough memory")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "an argument is empty"),
        ("x" * 300, "File name too long"),
        ("/".join(["x" * 200] * 30), "File name too long"),
        (ODD, r"argument sub-01_\udcff has characters that cannot be printed"),
        ("a\nb", r"argument a\nb has characters"),
        ("out/group_file/x", "is a file"),
        ("/proc/1/here", "cannot be"),
    ],
)
def test_odd_output_folders_end_with_one_line(tmp_path, monkeypatch, capsys, output, said):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "group_file").write_text("")
    arguments = ["quantify", "in", output, "participant", "--method=nlls", "--model=buxton"]
    assert main(["asl-pinn", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_a_folder_without_access_is_refused(tmp_path, monkeypatch):
    def denied(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(InputError, match=r"cannot be used \(Permission denied\)"):
        require_writable(tmp_path / "deep" / "er")


def test_an_interrupt_that_is_swallowed_is_repeated():
    began = time.monotonic()
    with interrupts.insistent():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(5.0)
    assert time.monotonic() - began < 4.0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_interrupt_that_was_seen_is_not_repeated(monkeypatch):
    monkeypatch.setattr(interrupts, "_PATIENCE", 0.05)
    with interrupts.insistent():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        interrupts.seen()
        time.sleep(0.2)


CALLBACK = """
import os, signal, sys, time
from asl_pinn.workflow import cli

class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

def work(argv):
    Swallowing()
    time.sleep(20)

cli.main = work
cli.entry_point()
"""


def test_an_interrupt_in_a_callback_ends_the_command_quietly():
    done = subprocess.run(
        [sys.executable, "-c", CALLBACK], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_damaged_checkpoints_are_left_out_with_a_note(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path / "run", every=50)
    undisturbed = train(WATCHED, steps=200)
    train(WATCHED, steps=120, checkpoints=checkpoints)
    steps = [path for path in (tmp_path / "run").iterdir() if path.name.isdigit()]
    assert steps
    for damaged in steps:
        for path in damaged.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    anew = train(WATCHED, steps=200, checkpoints=checkpoints)
    assert bits(anew) == bits(undisturbed)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == len(steps)
    assert all("a damaged checkpoint, which is left out" in note for note in notes)


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize("name", ["sub-02_desc-nlls_cbf.json", "sub-02_desc-nlls_cbf.nii.gz"])
def test_damaged_outputs_of_a_neighbour_are_a_remark_on_the_page(tmp_path, capsys, name):
    for subject in ("01", "02"):
        stem = f"sub-{subject}"
        write_dataset(tmp_path / "in", stem=stem, folder=f"{stem}/perf")
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "participant", "--method=nlls"]
    arguments = ["asl-pinn", "quantify", *arguments, "--model=buxton"]
    assert main(arguments) == 0
    perf = tmp_path / "out" / "sub-02" / "perf"
    keys = json.loads((perf / "sub-02_desc-nlls_cbf.json").read_text())
    damaged = {"Outputs": list(keys["Outputs"]), "Model": 5}
    (perf / name).write_text(json.dumps(damaged) if name.endswith("json") else "no image")
    assert main([*arguments, "--participant_label=01", "--noresume"]) == 0
    page = (tmp_path / "out" / "group_desc-nlls_report.html").read_text()
    assert "its outputs are damaged" in page
    assert "sub-01" in page


@pytest.mark.parametrize("title", [r"$\foo{$", "$", "a_$^{b"])
def test_names_are_no_mathematics(title):
    values = {"cbf": np.ones((3, 3, 2)), "att": np.ones((3, 3, 2))}
    maps = Maps(models.get("buxton"), values, np.ones((3, 3, 2), np.int8), method="nlls")
    figure = plots.map_figure(maps, np.ones((3, 3, 2), bool), title=title)
    assert plots.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--bounds=att=:inf", "bounds of ATT out of order"),
        ("--bounds=att=:1e12", "no acquisition tells values above 30 s"),
        ("--bounds=cbf=:1e9", "no acquisition tells values above 20000"),
        ("--grid=1000000000000", "option grid must be a number of at most 4096"),
        ("--chunk_size=100000000000", "option chunk_size must be"),
        ("--f_scale=inf", "option f_scale must be a number of at most 1e+06, it is inf"),
        ("--xtol=nan", "option xtol must be a number of at most 1e+06, it is nan"),
        ("--seed=99999999999999999999", "--seed"),
        ("--n_jobs=100000", "--n_jobs"),
        ("--mask=", "--mask"),
    ],
)
def test_numbers_beyond_all_sense_are_refused_before_anything_is_read(
    tmp_path, capsys, option, said
):
    where = [str(tmp_path / "none"), str(tmp_path / "out"), "participant", "--method=nlls"]
    assert main(["asl-pinn", "quantify", *where, "--model=buxton", option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_what_answers_need_not_be_dask(monkeypatch):
    distributed = pytest.importorskip("distributed")

    def stranger(*_, **__):
        raise np.exceptions.AxisError("3.07 EiB")

    monkeypatch.setattr(distributed, "Client", stranger)
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        next(jobs.each(print, [1], scheduler="tcp://localhost:80"))


def test_a_line_is_a_line():
    assert one_line("a\nb\udcff\x1b[31mc\u2028") == r"a\nb\udcff\x1b[31mc\u2028"
    assert one_line("5 µm, λ") == "5 µm, λ"
    assert str(InputError("a\nb")) == r"a\nb"


def test_the_log_takes_what_is_no_unicode(tmp_path):
    with runlog.opened(tmp_path, "quantify", [ODD]) as log:
        log.info("%s", ODD)
    (log_file,) = tmp_path.iterdir()
    assert log_file.read_text().count(r"sub-01_\udcff") == 2


def test_nibabel_does_not_print(tmp_path, capfd):
    path = write_dataset(tmp_path) / "sub-01/perf/sub-01_asl.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = np.frombuffer(bytes(content[:348]), nib.nifti1.header_dtype)[0].copy()
    header["pixdim"][0] = 7.0
    path.write_bytes(gzip.compress(header.tobytes() + bytes(content[348:])))
    load_image(path, (4,))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.usefixtures("plain_pictures")
def test_a_name_with_a_line_break_in_a_dataset_is_told_in_one_line(tmp_path, capsys):
    root = write_dataset(tmp_path / "in")
    perf = root / "sub-01" / "perf"
    (perf / "sub-01_acq-a\nb_asl.nii.gz").write_bytes(b"")
    arguments = [str(root), str(tmp_path / "out"), "participant", "--method=nlls"]
    assert main(["asl-pinn", "quantify", *arguments, "--model=buxton"]) in (1, 2)
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith(("asl-pinn: ", "  sub-01", "sub-01"))
    assert len(find_runs(root)) == 2
