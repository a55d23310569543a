"""A methods paragraph and its references, ready to paste."""

from collections.abc import Sequence

import numpy as np

from asl_pinn import __version__
from asl_pinn.data import AslData, PerfusionMaps, Status

_BUXTON = (
    "Buxton RB, Frank LR, Wong EC, Siewert B, Warach S, Edelman RR. A general kinetic model for "
    "quantitative perfusion imaging with arterial spin labeling. Magn Reson Med 1998;40:383-396."
)
_MOST_LISTED = 12


def software_citation() -> str:
    """How to cite the package."""
    return (
        "asl_pinn contributors. asl_pinn: CBF and ATT maps from time-encoded pCASL MRI, version "
        f"{__version__} [computer software]."
    )


def methods_text(
    data: AslData,
    maps: PerfusionMaps,
    method: str,
    description: str,
    references: Sequence[str],
) -> tuple[str, list[str]]:
    """Describe how a result was made.

    Parameters
    ----------
    data : AslData
        What was quantified.
    maps : PerfusionMaps
        The result.
    method : str
        Name of the estimator.
    description : str
        Sentences about the estimator.
    references : sequence of str
        Works that `description` cites as [2], [3], ...

    Returns
    -------
    paragraph : str
    references : list of str
        In the order of their numbers, which begin with 1.
    """
    protocol = data.protocol
    delays = "delay" if protocol.n_delays == 1 else "delays"
    repeats = data.n_averages
    averaged = f", each the mean of {_range(repeats)} repeats" if repeats.max() > 1 else ""
    counts = {status: int((maps.status == status).sum()) for status in Status}
    n_mask = sum(counts.values()) - counts[Status.OUTSIDE]
    sentences = [
        "Maps of cerebral blood flow (CBF) and arterial transit time (ATT) were made with "
        f"asl_pinn {__version__}, method {method}, from control-label difference images at "
        f"{protocol.n_delays} {delays} (label duration {_listed(protocol.label_duration)} s, "
        f"post-labelling delay {_listed(protocol.pld)} s{averaged}).",
        _slices(data),
        "The signal was modelled by Buxton's single-compartment kinetic model [1] with a T1 of "
        f"arterial blood of {protocol.t1_blood:.4g} s, {_t1_of_tissue(data)}, a labelling "
        f"efficiency of {protocol.labeling_efficiency:.3g}, a blood-tissue partition coefficient "
        f"of {protocol.partition_coefficient:.3g} mL/g and the M0 of each voxel.",
        description,
        f"Of the {n_mask} voxels of the mask, {counts[Status.FITTED]} were fitted within the "
        f"bounds, {counts[Status.ON_BOUND]} ended on a bound, {counts[Status.NOT_CONVERGED]} did "
        f"not converge and {counts[Status.SKIPPED]} could not be quantified.",
        "asl_pinn made no correction for motion or partial volumes.",
    ]
    return " ".join(filter(None, sentences)), [_BUXTON, *references]


def _slices(data: AslData) -> str:
    latest = float(data.readout_delay[data.mask].max(initial=0.0))
    if latest == 0.0:
        return ""
    return (
        f"The time until the readout of each slice, up to {latest:.4g} s, was added to the delays."
    )


def _listed(values: np.ndarray) -> str:
    if len(values) > _MOST_LISTED:
        return _range(values)
    return ", ".join(f"{value:.4g}" for value in values)


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _t1_of_tissue(data: AslData) -> str:
    t1 = data.t1_tissue[data.valid]
    if not t1.size:
        return "a T1 of tissue"
    if np.ptp(t1) == 0.0:
        return f"a T1 of tissue of {t1[0]:.4g} s"
    return f"a map of the T1 of tissue (median {np.median(t1):.3g} s)"
