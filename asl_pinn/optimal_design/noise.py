"""Noise of one image from the ways in which people state it."""

import math

import numpy as np

from asl_pinn.acquisition.encoding import encoding_matrix
from asl_pinn.acquisition.protocol import label_durations
from asl_pinn.errors import InputError
from asl_pinn.models import get
from asl_pinn.optimal_design.expectation import points_of, scan_problem
from asl_pinn.optimal_design.population import make_population
from asl_pinn.optimal_design.scan import time_encoded_scan
from asl_pinn.optimal_design.space import Constraints
from asl_pinn.problem import predict

DEFAULT_NOISE = 0.14
"""Standard deviation of one image in per cent of M0: that of a difference of two is then 0.2 %, the
default of oxasl_optpcasl."""

LARGEST_NOISE = 100.0


def from_percent(percent: float) -> float:
    """Noise of an image over M0.

    Parameters
    ----------
    percent : float
        Standard deviation of one image in per cent of M0.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If it is not above 0 and at most 100 %.

    Examples
    --------
    >>> from_percent(0.5)
    0.005
    """
    if not 0.0 < percent <= LARGEST_NOISE:
        raise InputError(
            f"the noise of an image must be above 0 and at most 100 % of M0, not {percent:g}"
        )
    return percent / 100.0


def from_tsnr(tsnr: float, matrix_size: int, limits: Constraints) -> float:
    """Noise of an image over M0, such that a cycle of the T1-adjusted schedule has a tSNR.

    Parameters
    ----------
    tsnr : float
        Mean over grey matter and delays of the noise-free signal of tissue, over the noise of a
        difference: what `asl-pinn simulate --tsnr` means, of one cycle.
    matrix_size : int
        Images of the cycle.
    limits : Constraints
        With the labelling time and the final delay.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If `tsnr` is not positive, or there is no matrix of that size.
    """
    if not 0.0 < tsnr < math.inf:
        raise InputError(f"tSNR must be positive, it is {tsnr:g}")
    model = get("buxton")
    points = points_of(make_population(model, ["gm"]))
    n_delays = encoding_matrix(matrix_size).shape[1]
    durations = label_durations("t1_adjusted", n_delays, limits.label_total)
    scan = time_encoded_scan("T1-adjusted", durations, limits.min_delay, limits.readout)
    problem = scan_problem(scan, model, points.t1_tissue, 1.0, 1)
    signal = np.asarray(predict(problem, tuple(np.asarray(points.values, np.float32))))
    return float(signal.mean(dtype=np.float64)) / tsnr / scan.noise_factor
