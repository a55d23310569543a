"""Where a result comes from, as sidecar keys."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import jax

from asl_pinn import __version__
from asl_pinn.execution import Execution
from asl_pinn.options import resolve


def describe(options: Any, execution: Execution, sources: Sequence[str]) -> dict[str, Any]:
    """Describe a run so that it can be repeated.

    Parameters
    ----------
    options : dataclass
        Options of the estimator; those left to a preset are stated with its values.
    execution : Execution
        Seed and floating-point type.
    sources : sequence of str
        Files the data came from.

    Returns
    -------
    dict
        Keys of a BIDS sidecar.
    """
    packages = ("jax", "jaxlib", "numpy", "scipy", "nibabel")
    return {
        "Options": dataclasses.asdict(resolve(options)),
        "Seed": execution.seed,
        "DataType": str(execution.dtype),
        "Device": jax.devices()[0].device_kind,
        "SoftwareVersions": {
            "asl_pinn": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "Sources": [f"bids::{source}" for source in sources],
    }
