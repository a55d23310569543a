"""Fixed points of maps that crawl towards them, such as expectation and maximisation."""

from collections.abc import Callable

import numpy as np

from asl_pinn.arrays import FloatArray

_LONGEST_STRIDE = 16.0


def fixed_point(
    renew: Callable[[FloatArray], FloatArray], start: FloatArray, *, tolerance: float, most: int
) -> FloatArray:
    """Follow a map until it changes nothing more.

    Each two plain rounds are followed by a leap along them (SQUAREM, scheme S3).

    Parameters
    ----------
    renew : callable
        State, shape (N,), to the next one.
    start : ndarray, shape (N,)
        State to begin with.
    tolerance : float
        Largest change of an entry by a plain round that counts as none.
    most : int
        Evaluations of the map, 2 or more.

    Returns
    -------
    ndarray, shape (N,)

    References
    ----------
    Varadhan and Roland, Scand J Stat 35:335-353 (2008).

    Examples
    --------
    >>> import numpy as np
    >>> def renew(x):
    ...     return 0.9 * x + 0.1
    >>> fixed_point(renew, np.array([0.0, 3.0]), tolerance=1e-9, most=10).round(6).tolist()
    [1.0, 1.0]
    """
    here = start
    for _ in range(most // 2):
        once = renew(here)
        twice = renew(once)
        change, bend = once - here, twice - 2.0 * once + here
        if np.max(np.abs(twice - once)) <= tolerance:
            break
        stride = np.linalg.norm(change) / max(float(np.linalg.norm(bend)), tolerance**2)
        stride = np.clip(stride, 1.0, _LONGEST_STRIDE)
        leap = here + 2.0 * stride * change + stride**2 * bend
        here = leap if np.isfinite(leap).all() else twice
    return twice
