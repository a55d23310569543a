"""The brains that a protocol is designed for: distributions of the parameters by tissue."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc, truncnorm

from asl_pinn.acquisition.constants import T1_TISSUE, T1_WHITE_MATTER
from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.errors import InputError
from asl_pinn.models import Blood, KineticModel, Parameter, Tissue

Normal = tuple[float, float]
"""Mean and standard deviation of a parameter, in its unit."""


@dataclasses.dataclass(frozen=True)
class TissueRecord:
    """What is expected of one tissue.

    Attributes
    ----------
    label : str
        'grey matter'.
    t1_tissue : float
        Longitudinal relaxation time [s].
    cbf, att, abv : tuple of float
        Mean and standard deviation [mL/100g/min, s, 1]; aBV of voxels that hold an artery.
    """

    label: str
    t1_tissue: float
    cbf: Normal
    att: Normal
    abv: Normal


TISSUES = {
    "gm": TissueRecord("grey matter", T1_TISSUE, (60.0, 15.0), (1.3, 0.35), (0.01, 0.004)),
    "wm": TissueRecord("white matter", T1_WHITE_MATTER, (20.0, 6.0), (1.6, 0.35), (0.004, 0.002)),
}
"""Tissues of healthy adults. Round numbers: CBF as Parkes et al. (Magn Reson Med 2004;51:736-743)
and Alisch et al. (Aging 2021;13:4911-4925), ATT with the spread over regions and ages of Dai et al.
(J Magn Reson Imaging 2017;45:472-481), aBV of the size in Chappell et al. (Magn Reson Med
2010;63:1357-1365)."""

_ARRIVAL = (0.65, 0.1)
"""Mean and SD of aBAT over ATT: blood is in the arteries of a voxel before it is in its tissue."""

_WITHOUT_PRIOR = 0.25  # SD over the typical value of a parameter of which nothing else is stated


@dataclasses.dataclass(frozen=True)
class Population:
    """Points that stand for the distribution of the parameters.

    Attributes
    ----------
    tissues : tuple of str
        Names of the T tissues: 'gm', 'wm'.
    tissue : ndarray of int, shape (K,)
        To which of them each point belongs.
    values : ndarray, shape (P, K)
        Parameters of the model, in their units.
    weights : ndarray, shape (K,)
        Of the points; they add up to 1.
    mean : ndarray, shape (P, T)
        Means by tissue.
    sd : ndarray, shape (P, T)
        Standard deviations by tissue: what is known of each parameter before the scan.
    t1_tissue : ndarray, shape (T,)
        Longitudinal relaxation times [s].
    """

    tissues: tuple[str, ...]
    tissue: IntArray
    values: FloatArray
    weights: FloatArray
    mean: FloatArray
    sd: FloatArray
    t1_tissue: FloatArray

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the tissues for people, as far as they are known here."""
        return tuple(TISSUES[name].label if name in TISSUES else name for name in self.tissues)

    @property
    def n_points(self) -> int:
        """Number of points K."""
        return int(self.values.shape[1])

    def of(self, tissue: int) -> NDArray[np.bool_]:
        """Which points belong to a tissue, shape (K,)."""
        return self.tissue == tissue


def make_population(
    model: KineticModel,
    tissues: Sequence[str] = ("gm", "wm"),
    *,
    priors: Mapping[str, tuple[float | None, float | None]] | None = None,
    n_points: int = 256,
) -> Population:
    """Spread points evenly over the distributions of the parameters.

    CBF, ATT and aBV are normal as `TISSUES` has them, cut off at the bounds of the model. Blood
    arrives in arteries at a normally distributed fraction of ATT. Other parameters follow their
    prior where it is knowledge, or spread by a quarter of their typical value.

    Parameters
    ----------
    model : KineticModel
        Whose parameters are needed.
    tissues : sequence of str
        Keys of `TISSUES`.
    priors : mapping of str to (float or None, float or None), optional
        Mean and standard deviation by parameter, in place of those of every tissue; None keeps it.
    n_points : int
        For each tissue.

    Returns
    -------
    Population
        Tissues weigh the same.

    Raises
    ------
    InputError
        If a tissue or parameter is unknown, or a mean or SD is out of range.

    Examples
    --------
    >>> from asl_pinn import models
    >>> grey = make_population(models.get("buxton"), ["gm"])
    >>> grey.mean.ravel().tolist(), grey.values.mean(axis=1).round().tolist()
    ([60.0, 1.3], [60.0, 1.0])
    """
    wanted = list(dict.fromkeys(tissues))
    for name in wanted:
        if name not in TISSUES:
            raise InputError(f"unknown tissue {name!r}; choose {' and '.join(TISSUES)}")
    if not wanted:
        raise InputError(f"no tissue is given; choose {' or '.join(TISSUES)}")
    for name in priors or {}:
        if name not in model.names or name == "abat":
            known = ", ".join(other for other in model.names if other != "abat")
            raise InputError(f"prior of {name!r}: model {model.name} has {known}")
    # ATT goes first, in the direction in which Halton's points lie most evenly: bounds vary most
    # along it.
    order = sorted(model.parameters, key=lambda p: (p.name != "att", p.name != "cbf"))
    parts = qmc.Halton(len(order), scramble=False).random(n_points + 1)[1:].T
    found, means, sds = [], [], []
    for name in wanted:
        tissue, values, normals = TISSUES[name], {}, {}
        for p, part in zip(order, parts, strict=True):
            normals[p.name] = _normal(p, tissue, model, (priors or {}).get(p.name))
            values[p.name] = _spread(p, *normals[p.name], part)
        if "abat" in values:
            values["abat"] = values["abat"] * values["att"]
            fraction, sd = _ARRIVAL
            mean, att_sd = normals["att"]
            normals["abat"] = (fraction * mean, float(np.hypot(fraction * att_sd, sd * mean)))
        found.append(np.stack([values[name] for name in model.names]))
        means.append([normals[name][0] for name in model.names])
        sds.append([normals[name][1] for name in model.names])
    n_all = n_points * len(wanted)
    return Population(
        tissues=tuple(wanted),
        tissue=np.repeat(np.arange(len(wanted)), n_points),
        values=np.concatenate(found, axis=1),
        weights=np.full(n_all, 1.0 / n_all),
        mean=np.array(means).T,
        sd=np.array(sds).T,
        t1_tissue=np.array([TISSUES[name].t1_tissue for name in wanted]),
    )


def _normal(
    p: Parameter,
    tissue: TissueRecord,
    model: KineticModel,
    given: tuple[float | None, float | None] | None,
) -> Normal:
    """Mean and SD of a parameter before it is cut off; of aBAT, those of its ratio to ATT."""
    own: Normal
    if p.name == "abat":
        return _ARRIVAL
    if p.name in ("cbf", "att", "abv"):
        own = getattr(tissue, p.name)
    elif p.knowledge is not None:
        centres = model.centres(Tissue(t1_tissue=tissue.t1_tissue), Blood())
        own = (float(np.asarray(centres[model.names.index(p.name)])), p.knowledge.sd)
    else:
        own = (p.typical, _WITHOUT_PRIOR * abs(p.typical))
    mean, sd = (old if new is None else new for new, old in zip(given or own, own, strict=True))
    if not p.lower <= mean <= p.upper or not 0.0 < sd < float("inf"):
        raise InputError(
            f"prior of {p.symbol}: a mean within {p.lower:g} to {p.upper:g} {p.unit} and a "
            f"positive SD are needed, not {mean:g} and {sd:g}"
        )
    return mean, sd


def _spread(p: Parameter, mean: float, sd: float, part: FloatArray) -> FloatArray:
    lower, upper = (0.2, 0.95) if p.name == "abat" else (p.lower, p.upper)
    cut = ((lower - mean) / sd, (upper - mean) / sd)
    spread: FloatArray = truncnorm.ppf(part, *cut, loc=mean, scale=sd)
    return spread
