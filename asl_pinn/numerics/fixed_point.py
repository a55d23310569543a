"""Fixed points of maps that crawl towards them, such as expectation and maximisation."""

from collections.abc import Callable

import numpy as np

from asl_pinn.arrays import FloatArray

_LONGEST_STRIDE = 16.0


def fixed_point(
    renew: Callable[[FloatArray], tuple[FloatArray, float]],
    start: FloatArray,
    *,
    tolerance: float,
    most: int,
) -> FloatArray:
    """Follow a map that raises an objective until it changes nothing more.

    Each two plain rounds are followed by a leap along them (SQUAREM, scheme S3), which is taken
    back if the objective falls.

    Parameters
    ----------
    renew : callable
        State, shape (N,), to the next one and to the objective at the former.
    start : ndarray, shape (N,)
        State to begin with.
    tolerance : float
        Largest change of an entry by a plain round that counts as none.
    most : int
        Evaluations of the map.

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
    ...     return 0.9 * x + 0.1, -float((x**2 - 2.0 * x).sum())
    >>> fixed_point(renew, np.array([0.0, 3.0]), tolerance=1e-9, most=10).round(6).tolist()
    [1.0, 1.0]
    """
    here, plain, least = start, start, -np.inf
    for _ in range(max(1, most // 2)):
        once, value = renew(here)
        if not value >= least:
            here = plain
            once, value = renew(here)
        change = once - here
        twice, least = renew(once)
        bend = twice - once - change
        if np.max(np.abs(twice - once)) <= tolerance:
            return twice
        stride = np.linalg.norm(change) / max(float(np.linalg.norm(bend)), tolerance**2)
        stride = np.clip(stride, 1.0, _LONGEST_STRIDE)
        here, plain = here + 2.0 * stride * change + stride**2 * bend, twice
    return plain
