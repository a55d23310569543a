"""Minimum of a smooth function inside a box, from where and how one like it was found."""

from collections.abc import Callable

import numpy as np

from asl_pinn.arrays import FloatArray

_SUFFICIENT = 1e-4
_HALVINGS = 6


def descend(
    function: Callable[[FloatArray], tuple[float, FloatArray]],
    start: FloatArray,
    inverse: FloatArray | None,
    box: FloatArray,
    *,
    tolerance: float,
    most: int,
) -> tuple[float, FloatArray, FloatArray]:
    """Quasi-Newton steps (BFGS) whose curvature is known from a function like this one.

    Of a family of functions, few evaluations each are enough where their curvature changes little;
    methods that begin without any learn it anew from each.

    Parameters
    ----------
    function : callable
        Argument, shape (N,), to value and slope.
    start : ndarray, shape (N,)
        Inside of the box.
    inverse : ndarray, shape (N, N), or None
        Of the Hessian, about; None where nothing is known of it.
    box : ndarray, shape (2, N)
        Lower and upper bounds.
    tolerance : float
        Reduction of the value that counts as none.
    most : int
        Steps.

    Returns
    -------
    value : float
        The least.
    x : ndarray, shape (N,)
        Where.
    inverse : ndarray, shape (N, N)
        Of the Hessian, as renewed on the way.

    References
    ----------
    Nocedal and Wright, Numerical Optimization (2006), chapter 6.

    Examples
    --------
    >>> import numpy as np
    >>> def function(x):
    ...     return float(((x - 1.0) ** 2).sum()), 2.0 * (x - 1.0)
    >>> box = np.array([[-2.0, -2.0], [0.5, 2.0]])
    >>> descend(function, np.zeros(2), None, box, tolerance=1e-9, most=20)[1].round(6).tolist()
    [0.5, 1.0]
    """
    x, (value, slope) = start, function(start)
    low, high = box
    learned = inverse is not None
    if inverse is None:
        inverse = np.eye(len(x)) / max(1.0, float(np.linalg.norm(slope)))
    for _ in range(most):
        free = ~(((x <= low) & (slope > 0.0)) | ((x >= high) & (slope < 0.0)))
        step = np.zeros_like(x)
        step[free] = -inverse[np.ix_(free, free)] @ slope[free]
        if -0.5 * float(slope @ step) <= tolerance:
            break
        for _ in range(_HALVINGS):
            there = np.clip(x + step, low, high)
            new_value, new_slope = function(there)
            moved = there - x
            if new_value <= value + _SUFFICIENT * float(slope @ moved):
                break
            step *= 0.5
        else:
            break
        bend = new_slope - slope
        along = float(moved @ bend)
        if along > 0.0:
            if not learned:
                inverse, learned = np.eye(len(x)) * along / float(bend @ bend), True
            turn = np.eye(len(x)) - np.outer(moved, bend) / along
            inverse = turn @ inverse @ turn.T + np.outer(moved, moved) / along
        x, value, slope = there, new_value, new_slope
    return value, x, inverse
