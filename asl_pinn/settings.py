"""What determines a result besides the images: the user's choices."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asl_pinn.execution import Execution


@dataclasses.dataclass(frozen=True)
class Settings:
    """Choices of the user; the same settings and inputs give the same bits on one machine.

    Attributes
    ----------
    method : str
        Name of the estimator.
    options : dataclass
        Its options.
    seed : int
        Of everything random in it.
    dtype : str
        'float32' or 'float64'.
    reading : mapping of str to Any
        Keyword arguments of `bids.read_run`: numbers, text, paths or None.
    """

    method: str
    options: Any
    seed: int = 0
    dtype: str = "float32"
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def execution(self, *, progress: bool, checkpoint_dir: Path | None = None) -> Execution:
        """Circumstances of a run with these settings; JAX must be in the mode that dtype needs."""
        return Execution(self.seed, np.dtype(self.dtype), progress, checkpoint_dir)
