"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest

from asl_pinn.acquisition.protocol import Protocol, label_durations, time_encoded_protocol
from asl_pinn.data import Phantom

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")


QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def pytest_configure() -> None:
    """Compile quickly, as small programs run in no time; share it with workers and subprocesses.

    Flags that the user gives come last, and so hold.
    """
    folder = str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
    os.environ["XLA_FLAGS"] = f"{QUICK_TO_COMPILE} {os.environ.get('XLA_FLAGS', '')}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.03"
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.03)


@pytest.fixture
def float64() -> Iterator[None]:
    """JAX's 64-bit mode, for this test alone."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, where they do not matter."""
    from pictures import draw_nothing  # matplotlib takes a second to import

    draw_nothing(monkeypatch)


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    """Hadamard-8, T1-adjusted, 4 s of labelling, last delay 0.1 s."""
    return time_encoded_protocol(label_durations("t1_adjusted", 7))


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A small brain of two slices with smooth CBF and ATT, apart from one another."""
    x, y, z = np.meshgrid(np.linspace(-1, 1, 14), np.linspace(-1, 1, 13), [0.0, 1.0], indexing="ij")
    mask = x**2 + y**2 < 0.9
    cbf = 45.0 + 20.0 * np.sin(2.0 * x + z)
    att = 1.2 + 0.4 * np.cos(2.5 * y) * np.cos(x)
    return Phantom(
        {"cbf": np.where(mask, cbf, 0.0), "att": np.where(mask, att, 0.0)},
        m0=np.where(mask, 900.0 + 100.0 * y, 0.0),
        t1_tissue=1.2 + 0.2 * x,
        mask=mask,
        grey_matter=mask & (cbf > 45.0),
        affine=np.diag([3.0, 3.0, 3.0, 1.0]),
    )
