"""Programs that XLA has compiled, kept in the user's cache directory for later runs."""

import contextlib
import hashlib
import os
import platform
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
from platformdirs import user_cache_path

HELP = (
    "Folder in which compiled programs are kept for later runs, or 'off'. Default: asl_pinn below "
    "the user's cache directory, or what JAX_COMPILATION_CACHE_DIR says."
)

_LEAST_SECONDS = 0.1


def enable(setting: str | None) -> str:
    """Let JAX keep what it compiles, and take what it kept before.

    What lies in the folder is run: it is made for its owner alone, and refused where others own or
    can write it.

    JAX compiles anew what it cannot read, such as an entry that a kill cut short, and goes on
    where it cannot write, as on a disk that is full.

    Parameters
    ----------
    setting : str or None
        Folder, 'off', or None for the default: what JAX was told by other means, else a folder
        of the user's cache directory.

    Returns
    -------
    str
        Why it is not done as was asked, and programs are compiled anew; '' where it is.
    """
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    if setting == "off":
        jax.config.update("jax_compilation_cache_dir", None)
        return ""
    if setting is None and jax.config.values["jax_compilation_cache_dir"] is not None:
        fault = _fault(Path(jax.config.values["jax_compilation_cache_dir"]))
        if fault:
            jax.config.update("jax_compilation_cache_dir", None)
        return fault
    folder = (Path(setting) if setting else user_cache_path("asl_pinn", False)) / _machine()
    fault = _fault(folder.parent) or _fault(folder)
    if fault:
        jax.config.update("jax_compilation_cache_dir", None)
        return fault
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return ""


def _machine() -> str:
    """Name for the kind of processor: a home directory may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    except OSError:
        about = [platform.processor()]
    digest = hashlib.sha256("\n".join(about).encode()).hexdigest()[:8]
    return f"jax-{jax.__version__}-{platform.machine()}-{digest}"


def _fault(folder: Path) -> str:
    """What speaks against a folder, which is made where it can be; '' where nothing does."""
    try:
        with _private():
            folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.R_OK | os.W_OK | os.X_OK)
        strange = _of_others(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return f"{folder} cannot be written ({reason})"
    if not usable:
        return f"{folder} cannot be written"
    if strange:
        return f"{folder} belongs to others or can be written by them, who could change maps"
    return ""


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """Whatever is made meanwhile is its owner's alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _of_others(folder: Path) -> bool:
    """Whether somebody else but the superuser may change what is in a folder."""
    if not hasattr(os, "geteuid"):
        return False
    about = folder.stat()
    shared = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return about.st_uid not in (0, os.geteuid()) or bool(shared)
