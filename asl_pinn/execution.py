"""How to run an estimator, as opposed to what it computes."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from asl_pinn.errors import InputError


@dataclasses.dataclass(frozen=True)
class Execution:
    """Circumstances of a run that every estimator takes.

    Attributes
    ----------
    seed : int
        Of everything random in the estimator.
    dtype : numpy dtype
        float32, or float64 with JAX's 64-bit mode on.
    progress : bool
        Whether to draw progress bars on standard error.
    checkpoint_dir : Path or None
        Where a long training keeps its state, to resume after a kill; None for nowhere.

    Raises
    ------
    InputError
        If float64 is asked for while JAX's 64-bit mode is off.
    """

    seed: int = 0
    dtype: np.dtype = dataclasses.field(default_factory=lambda: np.dtype(np.float32))
    progress: bool = False
    checkpoint_dir: Path | None = None

    def __post_init__(self) -> None:
        if jax.dtypes.canonicalize_dtype(self.dtype) != self.dtype:
            raise InputError(f"{self.dtype} needs JAX's 64-bit mode (jax_enable_x64)")
