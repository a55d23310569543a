"""Programs that XLA has compiled, kept in the user's cache directory for later runs."""

import hashlib
import os
import platform
import warnings
from pathlib import Path

import jax
from platformdirs import user_cache_path

HELP = (
    "Folder in which compiled programs are kept for later runs, or 'off'. Default: asl_pinn below "
    "the user's cache directory, or what JAX_COMPILATION_CACHE_DIR says."
)

_LEAST_SECONDS = 0.1


def enable(setting: str | None) -> bool:
    """Let JAX keep what it compiles, and take what it kept before.

    JAX compiles anew what it cannot read, such as an entry that a kill cut short, and goes on
    where it cannot write, as on a disk that is full.

    Parameters
    ----------
    setting : str or None
        Folder, 'off', or None for the default: what JAX was told by other means, else a folder
        of the user's cache directory.

    Returns
    -------
    bool
        Whether it is done as was asked; False where the folder cannot be written, and programs
        are kept as they were before.
    """
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    if setting == "off":
        jax.config.update("jax_compilation_cache_dir", None)
        return True
    if setting is None and jax.config.values["jax_compilation_cache_dir"] is not None:
        return True
    folder = (Path(setting) if setting else user_cache_path("asl_pinn", False)) / _machine()
    if not _usable(folder):
        return False
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return True


def _machine() -> str:
    """Name for the kind of processor: a home directory may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    except OSError:
        about = [platform.processor()]
    digest = hashlib.sha256("\n".join(about).encode()).hexdigest()[:8]
    return f"jax-{jax.__version__}-{platform.machine()}-{digest}"


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK)
