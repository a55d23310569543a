"""Files that are written whole or not at all: on full disks, on read-only ones, under kills."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bids_fixtures import MASK, write_dataset
from test_compilation_cache import run_program

from asl_pinn.errors import DiskError
from asl_pinn.io import atomic as files
from asl_pinn.io import checkpoints
from asl_pinn.io.checkpoints import Checkpoints
from asl_pinn.workflow.cli import main

KILLS = Path(__file__).parents[1] / "experiments" / "kills.py"


@pytest.fixture
def mounted(tmp_path):
    """Function that mounts something at a new folder until the test ends."""
    folders = []

    def mount(*arguments) -> Path:
        folder = tmp_path / f"mounted-{len(folders)}"
        folder.mkdir()
        result = subprocess.run(
            ["mount", *map(str, arguments), folder], capture_output=True, text=True, check=False
        )
        if result.returncode:
            pytest.skip(f"mounting is not allowed here: {result.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", folder], check=True)


def fails(capsys, *arguments) -> str:
    assert main(["asl-pinn", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.usefixtures("plain_pictures")
def test_a_full_disk_is_one_line_and_leaves_no_debris(tmp_path, mounted, capsys):
    write_dataset(tmp_path / "bids")
    folder = mounted("-t", "tmpfs", "-o", "size=32k", "tmpfs")
    quantify = ("quantify", tmp_path / "bids", folder, "participant", "--method=nlls")
    line = fails(capsys, *quantify)
    assert "cannot be written (No space left on device); free some space" in line
    assert [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"] == []


def test_an_already_full_disk_is_one_line(tmp_path, mounted, capsys):
    write_dataset(tmp_path / "bids")
    folder = mounted("-t", "tmpfs", "-o", "size=4k", "tmpfs")
    (folder / "full").write_bytes(bytes(4096))
    line = fails(capsys, "quantify", tmp_path / "bids", folder, "participant", "--method=nlls")
    assert "(No space left on device); free some space" in line


@pytest.mark.parametrize("inside", ["", "maps"])
def test_a_read_only_disk_is_one_line_before_any_work(tmp_path, mounted, capsys, inside):
    """Which stops root, too."""
    write_dataset(tmp_path / "bids")
    (tmp_path / "source").mkdir()
    folder = mounted("--bind", "-o", "ro", tmp_path / "source")
    line = fails(capsys, "quantify", tmp_path / "bids", folder / inside, "participant")
    assert line == (
        f"asl-pinn: error: {folder}: cannot be written; choose a folder that you may write to"
    )
    with pytest.raises(DiskError, match="Read-only file system"):
        files.write_bytes(folder / "file", b"content")


def test_a_full_or_read_only_disk_stops_a_training_with_one_line(tmp_path, mounted):
    full = mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    with (
        pytest.raises(DiskError, match=r"written \(No space left on device\); free some space"),
        checkpoints.opened(Checkpoints(full / "run", every=1)) as manager,
    ):
        checkpoints.save(manager, 1, {"weights": np.random.default_rng(0).random(2**19)})
    (tmp_path / "source").mkdir()
    folder = mounted("--bind", "-o", "ro", tmp_path / "source")
    with (
        pytest.raises(DiskError, match=r"written \(Read-only file system\); choose a folder"),
        checkpoints.opened(Checkpoints(folder / "run", every=1)),
    ):
        pass


def test_a_full_disk_with_the_compilation_cache_stops_nothing(mounted):
    folder = mounted("-t", "tmpfs", "-o", "size=4k", "tmpfs")
    full = run_program(folder)
    assert full.stdout.strip()
    assert full.stderr == ""


def test_what_a_killed_process_left_is_removed(tmp_path):
    mine, other = tmp_path / ".a[1].json.0f0f.part", tmp_path / ".b.json.0f0f.part"
    mine.write_text("half")
    other.write_text("of another file, maybe being written")
    files.write_bytes(tmp_path / "a[1].json", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "a[1].json"]


def test_what_another_process_is_writing_is_left(tmp_path, monkeypatch):
    """Two calls write the same page of a group: both end, whoever is first to rename."""
    path = tmp_path / "page.html"
    replace = os.replace

    def meanwhile(source, target):
        monkeypatch.setattr(files.os, "replace", replace)
        code = (
            "from asl_pinn.io import atomic; "
            f"atomic.write_bytes(atomic.Path({str(path)!r}), b'other')"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        assert path.read_bytes() == b"other"
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", meanwhile)
    files.write_bytes(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_names_are_put_on_disk_after_the_content(tmp_path, monkeypatch):
    calls = []

    def traced(name):
        function = getattr(os, name)

        def call(*arguments):
            target = arguments[0]
            path = os.readlink(f"/proc/self/fd/{target}") if name == "fsync" else arguments[1]
            calls.append((name, Path(path).name))
            return function(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(files.os, name, traced(name))
    files.write_files({tmp_path / "new" / "a": b"1", tmp_path / "new" / "b": b"2"})
    plain = [(name, re.sub(r"^\.(.)\..*\.part$", r"\1", path)) for name, path in calls]
    assert plain == [
        ("fsync", tmp_path.name),
        ("fsync", "a"),
        ("fsync", "b"),
        ("replace", "a"),
        ("replace", "b"),
        ("fsync", "new"),
    ]


def test_kills_at_random_moments_leave_whole_files_and_the_next_run_the_same_bits(tmp_path):
    two_voxels = MASK & (MASK.cumsum().reshape(MASK.shape) <= 2)
    for subject in ("01", "02"):
        names = {"stem": f"sub-{subject}", "folder": f"sub-{subject}/perf"}
        write_dataset(tmp_path, **names, mask=two_voxels)
    result = subprocess.run(
        [sys.executable, KILLS, tmp_path, "--kills=12"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("12 of ")
