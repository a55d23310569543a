"""Types of arrays, for annotations; the docstrings have the shapes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
"""An array of real numbers in any precision."""

IntArray = NDArray[np.integer[Any]]
"""An array of whole numbers."""
