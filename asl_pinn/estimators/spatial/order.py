"""The order of a map's smoothness, where the data choose it.

Transit times bend little in one brain and step from territory to territory in another, and no
order of the roughness suits both. So both are tried, on some slices, and the one whose maps are
expected to predict new data better is kept.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from asl_pinn.estimators.options import ByParameter
from asl_pinn.estimators.spatial.options import CHOSEN, SpatialOptions
from asl_pinn.problem import Geometry, Problem, take

TRIED = (2, 1)
"""Orders, the smoother one first: it is kept where there are too few voxels to ask."""

_FEWEST = 1000
_SAMPLE = 2048


def candidates(options: SpatialOptions, problem: Problem) -> tuple[SpatialOptions, ...]:
    """Options without an order that is open, one for each order that is to be tried.

    Parameters
    ----------
    options : SpatialOptions
        Of the method.
    problem : Problem
        V voxels of a model of P parameters.

    Returns
    -------
    tuple of SpatialOptions
        One where nothing is open, or too few voxels would choose. All open orders are alike, as
        the kinked parameters of a model are times of one transport.
    """
    names = problem.model.names
    is_open = [name for name in names if options.order[name] == CHOSEN]
    n_tried = len(TRIED) if is_open and problem.n_voxels >= _FEWEST else 1
    return tuple(_with_order(options, names, order) for order in TRIED[:n_tried])


def _with_order(options: SpatialOptions, names: tuple[str, ...], order: int) -> SpatialOptions:
    orders = {name: options.order[name] or order for name in names}
    return dataclasses.replace(options, order=ByParameter.of(order, **orders))


def some_slices(problem: Problem) -> Problem:
    """Neighbouring slices about the fullest one, of about as many voxels as it takes to choose.

    Parameters
    ----------
    problem : Problem
        V voxels with their geometry.

    Returns
    -------
    Problem
        The same where it has few voxels.
    """
    assert problem.geometry is not None  # or there would be no fields
    where, affine = problem.geometry
    counts = where.sum(axis=(0, 1))
    first = last = int(np.argmax(counts))
    while counts[first : last + 1].sum() < _SAMPLE and (first > 0 or last < len(counts) - 1):
        before = counts[first - 1] if first > 0 else -1
        after = counts[last + 1] if last < len(counts) - 1 else -1
        first, last = (first - 1, last) if before > after else (first, last + 1)
    kept = np.zeros_like(where)
    kept[:, :, first : last + 1] = where[:, :, first : last + 1]
    if kept.sum() == problem.n_voxels:
        return problem
    chosen = take(problem, np.flatnonzero(kept[where]))
    return dataclasses.replace(chosen, geometry=Geometry(kept, affine))


def best_of(
    tried: tuple[SpatialOptions, ...], expected_error: Callable[[SpatialOptions], float]
) -> SpatialOptions:
    """The options whose fit is expected to predict new data best.

    Parameters
    ----------
    tried : tuple of SpatialOptions
        At least one.
    expected_error : callable
        Options to the expected error of prediction, in squares of noise SDs; not asked of one.

    Returns
    -------
    SpatialOptions
    """
    return tried[0] if len(tried) == 1 else min(tried, key=expected_error)


def prediction_error(cost: jax.Array, effective_dof: tuple[jax.Array, ...]) -> float:
    """Expected squares of the misfits to new data of the same voxels, in noise SDs.

    Mallows' Cp: new data are missed by as much more than those of the fit as these were followed,
    by twice the effective degrees of freedom. Fields that the noise of neighbours has in common
    passes for are counted too low; of two orders, it is the difference that matters.

    Parameters
    ----------
    cost : Array, shape ()
        Half the squares of the misfits of the fit, soft-L1.
    effective_dof : tuple of P Array, each of shape ()
        Of the fields.

    Returns
    -------
    float
        Less a constant that is the same for all priors.

    References
    ----------
    Mallows, Technometrics 15:661-675 (1973); Hastie and Tibshirani, Generalized Additive Models
    (1990), section 3.5, for linear smoothers.
    """
    return 2.0 * float(cost) + 2.0 * float(sum(effective_dof))
