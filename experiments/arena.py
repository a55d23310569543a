"""What the experiments share: the cases, the methods, timing and the description of the machine."""

import dataclasses
import datetime
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from asl_pinn import __version__
from asl_pinn.data import AslData, PerfusionMaps, Phantom
from asl_pinn.errors import InputError
from asl_pinn.estimators import get_estimator
from asl_pinn.execution import Execution
from asl_pinn.phantoms import mni_phantom, select_slices
from asl_pinn.protocol import label_durations, time_encoded_protocol
from asl_pinn.simulate import simulate

RESULTS = Path(__file__).parent / "results"
PROTOCOL = time_encoded_protocol(label_durations("t1_adjusted", 7, 4.0), 0.1)

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "nlls": ("nlls", {}),
    "pinn": ("pinn", {}),
    "pinn-paper": ("pinn", {"preset": "paper"}),
}
"""Name in the tables: estimator and what it sets beside its defaults."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One simulated acquisition and its truth."""

    phantom: Phantom
    data: AslData


def make_case(which_slice: str, tsnr: float, seed: int) -> Case:
    """Simulate the embedded phantom at 3 mm, or a slice of it.

    Parameters
    ----------
    which_slice : str
        'central', an index, or 'all'.
    tsnr : float
        Temporal signal-to-noise ratio.
    seed : int
        Of the noise.

    Returns
    -------
    Case
    """
    phantom = select_slices(mni_phantom(), which_slice)
    return Case(phantom, simulate(phantom, PROTOCOL, tsnr=tsnr, seed=seed))


def run_method(name: str, data: AslData, **options: Any) -> tuple[PerfusionMaps, float]:
    """Fit data with a method of the table, seed 0.

    Parameters
    ----------
    name : str
        Key of `METHODS`.
    data : AslData
        To be fitted.
    **options
        What to set beside the method's own settings.

    Returns
    -------
    maps : PerfusionMaps
    seconds : float
        Wall time, compilation included if there was any.

    Raises
    ------
    InputError
        If there is no such method.
    """
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; choose {', '.join(METHODS)}")
    method, settings = METHODS[name]
    estimator = get_estimator(method)
    begin = time.perf_counter()
    maps = estimator.fit(data, estimator.options(**settings, **options), Execution(progress=True))
    return maps, time.perf_counter() - begin


def provenance() -> dict[str, Any]:
    """Date, command and machine, for the foot of a result."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python", *sys.argv]),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "device": jax.devices()[0].device_kind,
        "dtype": "float32",
        "asl_pinn": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def foot(about: dict[str, Any]) -> str:
    """The same as one paragraph of Markdown."""
    return (
        f"{about['date']}; `{about['command']}`; {about['cpus']} CPU cores, device "
        f"{about['device']}, {about['dtype']}, load average at the end "
        f"{about['load_average']}; asl_pinn {about['asl_pinn']}, jax {about['jax']}, "
        f"Python {about['python']}."
    )


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        f"| {' | '.join(map(str, cells))} |" for cells in (header, ["---"] * len(header), *rows)
    ]
