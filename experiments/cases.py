"""What the experiments share: simulated cases, methods, timing, machine and tables."""

import dataclasses
import datetime
import functools
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from asl_pinn import __version__, models
from asl_pinn.acquisition import encoding
from asl_pinn.acquisition.protocol import Protocol, label_durations, time_encoded_protocol
from asl_pinn.data import AslData, Maps, Phantom
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.options import ByParameter
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.models.base import KineticModel
from asl_pinn.numerics.smoothing import blur_inside, blur_widths
from asl_pinn.simulation.acquire import STATIC_SIGNAL, noise_free, noise_sd, simulate
from asl_pinn.simulation.artefacts import (
    rician,
    with_noisy_delay,
    with_outliers,
    with_wrong_efficiency,
    with_wrong_t1,
)
from asl_pinn.simulation.phantoms import add_lesions, mni_phantom, select_slices

RESULTS = Path(__file__).parent / "results"
PROTOCOL = time_encoded_protocol(label_durations("t1_adjusted", 7, 4.0), 0.1)
_BUXTON = models.Buxton()


@dataclasses.dataclass(frozen=True)
class Method:
    """An estimator, what is set beside its defaults, and the parameters that are held."""

    estimator: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    held: dict[str, float] = dataclasses.field(default_factory=dict)


_NO_COVARIATES = {"covariates": "none"}

METHODS = {
    "nlls": Method("nlls"),
    "nlls --fix=att=1.2": Method("nlls", held={"att": 1.2}),
    "nlls-smoothed": Method("nlls-smoothed"),
    "spatial-map-plain": Method(
        "spatial-map",
        {
            "amplitude_scale": "log",
            "order": ByParameter.of(1),
            "edge_dof": ByParameter.of(0),
            **_NO_COVARIATES,
        },
    ),
    "spatial-map-edges": Method(
        "spatial-map",
        {
            "amplitude_scale": "log",
            "order": ByParameter.of(1),
            "edge_dof": ByParameter.of(1),
            **_NO_COVARIATES,
        },
    ),
    "spatial-map-no-covariates": Method("spatial-map", _NO_COVARIATES),
    "spatial-map": Method("spatial-map"),
    "neural-field-no-covariates": Method(
        "neural-field", {"omega": ByParameter.of(8, cbf=32), **_NO_COVARIATES}
    ),
    "neural-field": Method("neural-field"),
    "pinn": Method("pinn"),
    "pinn --preset=paper": Method("pinn", {"preset": "paper"}),
}
"""Methods by their names in the tables."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One simulated acquisition, its truth, and where the lesions are."""

    phantom: Phantom
    data: AslData
    healthy: Phantom
    lesions: dict[str, NDArray[np.bool_]] = dataclasses.field(default_factory=dict)


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
    return _case(select_slices(_brain(3), which_slice), PROTOCOL, tsnr, seed)


def _case(phantom: Phantom, protocol: Protocol, tsnr: float, seed: int) -> Case:
    return Case(phantom, simulate(phantom, protocol, tsnr=tsnr, seed=seed), phantom)


@functools.cache
def _brain(resolution: int) -> Phantom:
    return mni_phantom(resolution=resolution)


def _resolution(resolution: int, tsnr: float, seed: int) -> Case:
    return _case(select_slices(_brain(resolution), "central"), PROTOCOL, tsnr, seed)


def _timing(schedule: str, n_delays: int, tsnr: float, seed: int) -> Case:
    protocol = time_encoded_protocol(label_durations(schedule, n_delays, 4.0), 0.1)
    return _case(select_slices(_brain(3), "central"), protocol, tsnr, seed)


def _blurred(fwhm: float, tsnr: float, seed: int) -> Case:
    """A brain whose maps are as smooth as a point-spread function would leave them."""
    brain = select_slices(_brain(3), "central")
    widths = blur_widths(fwhm, brain.affine, brain.mask.shape)

    def blurred(volume: NDArray[np.floating]) -> NDArray[np.floating]:
        return blur_inside(volume, brain.mask, widths)

    smooth = dataclasses.replace(
        brain,
        values={name: blurred(volume) for name, volume in brain.values.items()},
        m0=blurred(brain.m0),
        t1_tissue=blurred(brain.t1_tissue),
    )
    return _case(smooth, PROTOCOL, tsnr, seed)


def _with_lesions(tsnr: float, seed: int) -> Case:
    brain = _brain(3)
    central = brain.mask.shape[2] // 2
    ill, where = add_lesions(brain, central)
    slices = {name: voxels[:, :, central : central + 1] for name, voxels in where.items()}
    case = _case(select_slices(ill, "central"), PROTOCOL, tsnr, seed)
    return dataclasses.replace(case, healthy=select_slices(brain, "central"), lesions=slices)


def _degraded(how: Callable[[AslData, float, int], AslData], tsnr: float, seed: int) -> Case:
    case = make_case("central", tsnr, seed)
    sd = noise_sd(noise_free(case.phantom, PROTOCOL), case.phantom, tsnr)
    return dataclasses.replace(case, data=how(case.data, sd, seed))


def _rician(tsnr: float, seed: int) -> Case:
    """Magnitude images, decoded."""
    case = make_case("central", tsnr, seed)
    clean = noise_free(case.phantom, PROTOCOL)
    matrix = encoding.encoding_matrix(8, "hadamard")
    images = encoding.encode(clean.delta_m, STATIC_SIGNAL * clean.m0, matrix)
    before_decoding = noise_sd(clean, case.phantom, tsnr) * np.sqrt(len(matrix)) / 2.0
    decoded = encoding.decode(rician(images, before_decoding, seed), matrix)
    data = dataclasses.replace(clean, delta_m=np.asarray(decoded, np.float32))
    return dataclasses.replace(case, data=data)


CASES: dict[str, Callable[[float, int], Case]] = {
    "central": functools.partial(make_case, "central"),
    "slice 20": functools.partial(make_case, "20"),
    "slice 40": functools.partial(make_case, "40"),
    "2 mm": functools.partial(_resolution, 2),
    "4 mm": functools.partial(_resolution, 4),
    "Hadamard-4": functools.partial(_timing, "t1_adjusted", 3),
    "Hadamard-12": functools.partial(_timing, "t1_adjusted", 11),
    "equal": functools.partial(_timing, "equal", 7),
    "free lunch": functools.partial(_timing, "free_lunch", 7),
    "PSF 6 mm": functools.partial(_blurred, 6.0),
    "lesions": _with_lesions,
    "T1 10 % high": functools.partial(_degraded, lambda d, sd, seed: with_wrong_t1(d, 1.1)),
    "efficiency 10 % high": functools.partial(
        _degraded, lambda d, sd, seed: with_wrong_efficiency(d, 1.1)
    ),
    "Rician": _rician,
    "3 % outliers": functools.partial(
        _degraded, lambda d, sd, seed: with_outliers(d, 0.03, sd, 1000 + seed)
    ),
    "motion": functools.partial(
        _degraded, lambda d, sd, seed: with_noisy_delay(d, 2, sd, 1000 + seed)
    ),
}
"""Simulated acquisitions by name: (tSNR, seed) -> case."""


def run_method(
    name: str, data: AslData, model: KineticModel = _BUXTON, **options: Any
) -> tuple[Maps, float]:
    """Fit a model to data with a method of the table, seed 0.

    Parameters
    ----------
    name : str
        Key of `METHODS`.
    data : AslData
        To be fitted.
    model : KineticModel
        Buxton's unless given.
    **options
        What to set beside the method's own options.

    Returns
    -------
    maps : Maps
    seconds : float
        Wall time, compilation included if there was any.

    Raises
    ------
    InputError
        If there is no such method, or it refuses the data.
    """
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; choose {', '.join(METHODS)}")
    method = METHODS[name]
    fitted = models.fix(model, **method.held)
    estimator = get_estimator(method.estimator)
    chosen = estimator.options(**method.options, **options)
    begin = time.perf_counter()
    maps = estimate_maps(
        data, method.estimator, estimator, fitted, chosen, RunContext(progress=True)
    )
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


def mean_sd(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± SD for a table; empty where there are no values."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}" if len(values) else ""
