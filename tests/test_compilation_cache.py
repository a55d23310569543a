"""The cache of compiled programs: by default, off, elsewhere, unusable and damaged."""

import dataclasses
import os
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from bids_fixtures import write_dataset

from asl_pinn.workflow import batch, compilation_cache
from asl_pinn.workflow.cli import main
from asl_pinn.workflow.config import Job
from asl_pinn.workflow.run import Outcome, quantify_one

PROGRAM = """
import jax, jax.numpy as jnp
from asl_pinn.workflow import compilation_cache
compilation_cache.enable(None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((3, 3))).sum())
"""


@pytest.fixture(autouse=True)
def _restore():
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run_program(cache_home) -> subprocess.CompletedProcess:
    known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment = {**known, "XDG_CACHE_HOME": str(cache_home), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_by_default_programs_go_to_the_users_cache_and_damage_there_does_no_harm(tmp_path):
    first = run_program(tmp_path)
    entries = list((tmp_path / "asl_pinn").glob("jax-*/*-cache"))
    assert entries
    for cut in (0, 100):
        for entry in entries:
            entry.write_bytes(entry.read_bytes()[:cut])
        again = run_program(tmp_path)
        assert again.stdout == first.stdout
        assert again.stderr == first.stderr


def test_what_jax_was_told_otherwise_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "told"))
    compilation_cache.enable(None)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "told")
    compilation_cache.enable(str(tmp_path / "flag"))
    assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "flag"))
    compilation_cache.enable("off")
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_used_is_passed_over_and_a_named_one_told(
    tmp_path, monkeypatch, capsys
):
    file = tmp_path / "file"
    file.write_text("")
    file.chmod(stat.S_IRUSR)
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    jax.config.update("jax_compilation_cache_dir", None)
    assert "cannot be written (Not a directory)" in compilation_cache.enable(None)
    assert jax.config.jax_compilation_cache_dir is None
    assert main(["asl-pinn", "evaluate", "a", "b", f"--compilation_cache={file}"]) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert note == (
        f"asl-pinn: note: compilation cache: {file} cannot be written (File exists); programs are "
        "compiled anew"
    )
    assert error == "asl-pinn: error: a: no such folder"


def test_a_folder_that_is_made_is_the_user_s_alone(tmp_path):
    assert compilation_cache.enable(str(tmp_path / "a" / "programs")) == ""
    for folder in (tmp_path / "a", Path(jax.config.jax_compilation_cache_dir)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_refused(tmp_path, capsys, depth, mode):
    programs = tmp_path / "programs"
    assert compilation_cache.enable(str(programs)) == ""
    open_folder = (programs, Path(jax.config.jax_compilation_cache_dir))[depth]
    open_folder.chmod(mode)
    assert main(["asl-pinn", "evaluate", "a", "b", f"--compilation_cache={programs}"]) == 2
    note, _ = capsys.readouterr().err.splitlines()
    assert f"{open_folder} belongs to others or can be written by them" in note
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    assert compilation_cache.enable(str(programs)) == ""
    if os.geteuid() == 0:
        os.chown(programs, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert "belongs to others" in compilation_cache.enable(str(programs))


def test_a_folder_that_jax_was_told_of_is_looked_at_too(tmp_path):
    tmp_path.chmod(0o777)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert "belongs to others" in compilation_cache.enable(None)
    assert jax.config.jax_compilation_cache_dir is None


def tell_configuration(job: Job) -> Outcome:
    """What JAX is told where a run is done; the run itself is refused at once."""
    outcome = quantify_one(job)
    folder, double = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_x64
    return dataclasses.replace(outcome, message=f"cache {folder}, float64 {double}")


def test_processes_are_configured_as_the_first(tmp_path, monkeypatch, capsys):
    for subject in ("01", "02"):
        stem = f"sub-{subject}"
        write_dataset(
            tmp_path / "bids", stem=stem, folder=f"{stem}/perf", metadata={"M0Type": None}
        )
    monkeypatch.setattr(batch, "quantify_one", tell_configuration)
    where = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--dtype=float64"]
    options = ["--n_jobs=2", f"--compilation_cache={tmp_path / 'programs'}"]
    assert main(["asl-pinn", "quantify", *where, *options]) == 2
    expected = jax.config.jax_compilation_cache_dir
    assert expected.startswith(str(tmp_path / "programs"))
    said = capsys.readouterr().err
    assert said == f"asl-pinn: error: cache {expected}, float64 True\n"
