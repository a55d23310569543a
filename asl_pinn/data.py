"""What flows through the package: difference images in, maps out."""

import dataclasses
import enum
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from asl_pinn.acquisition.constants import (
    LABELING_EFFICIENCY,
    PARTITION_COEFFICIENT,
    PASL_LABELING_EFFICIENCY,
    T1_BLOOD,
    T1_TISSUE,
)
from asl_pinn.acquisition.protocol import Labeling, Protocol, check_timing
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.models.base import KineticModel
from asl_pinn.models.choice import ModelChoice
from asl_pinn.models.compose import components

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEM = "sub-01/perf/sub-01"
"""With what the names of the files of unnamed data begin."""


class Status(enum.IntEnum):
    """What became of a voxel."""

    OUTSIDE = 0
    FITTED = 1
    ON_BOUND = 2
    NOT_CONVERGED = 3
    SKIPPED = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class AslData:
    """Decoded difference images with all that is needed to quantify them.

    Attributes
    ----------
    delta_m : ndarray, shape (X, Y, Z, D)
        Control - label differences [a.u.].
    m0 : ndarray, shape (X, Y, Z)
        Equilibrium magnetisation of tissue, in the unit of `delta_m`.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to quantify.
    t1_tissue : ndarray, shape (X, Y, Z)
        Longitudinal relaxation time of tissue [s].
    readout_delay : ndarray, shape (X, Y, Z)
        What a slice's readout adds to every post-labelling delay [s]; 0 for 3D readouts.
    n_averages : ndarray, shape (D,)
        How many differences were averaged for each delay: the weight of its squares.
    protocol : Protocol
        Timing and constants.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    stem : str
        With what the names of the maps' files begin, relative to their folder.
    gm, wm : ndarray, shape (X, Y, Z), or None
        Fractions of grey and white matter in each voxel; None where they are not known.
    """

    delta_m: FloatArray
    m0: FloatArray
    mask: NDArray[np.bool_]
    t1_tissue: FloatArray
    readout_delay: FloatArray
    n_averages: FloatArray
    protocol: Protocol
    affine: FloatArray
    stem: str = dataclasses.field(default=STEM, metadata={"static": True})
    gm: FloatArray | None = None
    wm: FloatArray | None = None

    @classmethod
    def from_arrays(
        cls,
        delta_m: ArrayLike,
        m0: ArrayLike,
        *,
        label_duration: ArrayLike,
        pld: ArrayLike,
        mask: ArrayLike | None = None,
        t1_tissue: ArrayLike = T1_TISSUE,
        t1_blood: float = T1_BLOOD,
        labeling: Labeling = "continuous",
        labeling_efficiency: float | None = None,
        vascular_crushing: bool | None = None,
        partition_coefficient: float = PARTITION_COEFFICIENT,
        readout_delay: ArrayLike = 0.0,
        n_averages: ArrayLike = 1.0,
        affine: ArrayLike | None = None,
        stem: str = STEM,
        gm: ArrayLike | None = None,
        wm: ArrayLike | None = None,
    ) -> "AslData":
        """Make data from arrays.

        Parameters
        ----------
        delta_m : array_like, shape (X, Y, Z, D)
            Control - label differences [a.u.].
        m0 : array_like, shape (X, Y, Z) or ()
            Equilibrium magnetisation of tissue, in the unit of `delta_m`.
        label_duration, pld : array_like, shape (D,) or ()
            Duration of each (sub-)bolus and delay from its end to readout [s]. Of pulsed
            labelling these are TI1 and TI - TI1, which may be negative.
        mask : array_like of bool, shape (X, Y, Z), optional
            Voxels to quantify; those with a positive M0 unless given.
        t1_tissue : array_like, shape (X, Y, Z) or ()
            Longitudinal relaxation time of tissue [s].
        t1_blood : float
            Longitudinal relaxation time of arterial blood [s].
        labeling : {'continuous', 'pulsed'}
            CASL and pCASL, or PASL, which wants the model 'pulsed'.
        labeling_efficiency : float, optional
            Fraction of the arterial magnetisation that is inverted; 0.85 of continuous and 0.98
            of pulsed labelling unless given.
        vascular_crushing : bool, optional
            Whether gradients suppress the signal of large arteries; not known unless given.
        partition_coefficient : float
            Blood-tissue partition coefficient of water [mL/g].
        readout_delay : array_like, shape (X, Y, Z) or ()
            What a slice's readout adds to every delay [s].
        n_averages : array_like, shape (D,) or ()
            Differences behind each delay.
        affine : array_like, shape (4, 4), optional
            Voxel indices to scanner coordinates [mm]; voxels of 1 mm unless given.
        stem : str
            With what the names of the maps' files begin.
        gm, wm : array_like, shape (X, Y, Z) or (), optional
            Fractions of grey and white matter, for models that tell them apart; what they leave
            is fluid.

        Returns
        -------
        AslData

        Raises
        ------
        InputError
            If shapes do not fit one another, times cannot be those of an acquisition, or one of
            two fractions is missing, or they are out of range.
        """
        images = np.asarray(delta_m)
        if images.ndim != 4:
            raise InputError(f"delta_m must have the shape (X, Y, Z, D), not {images.shape}")
        *grid, n_delays = images.shape

        def volume(values: ArrayLike, name: str) -> NDArray[Any]:
            return _broadcast(values, tuple(grid), name).astype(images.dtype)

        def by_delay(values: ArrayLike, name: str) -> NDArray[np.float64]:
            return _broadcast(values, (n_delays,), name).astype(np.float64)

        if labeling_efficiency is None:
            pulsed = labeling == "pulsed"
            labeling_efficiency = PASL_LABELING_EFFICIENCY if pulsed else LABELING_EFFICIENCY
        protocol = Protocol(
            by_delay(label_duration, "label_duration"),
            by_delay(pld, "pld"),
            t1_blood,
            labeling_efficiency,
            partition_coefficient,
            labeling,
            vascular_crushing,
        )
        check_timing(protocol)
        m0_volume = volume(m0, "m0")
        fractions = {
            name: None if values is None else volume(values, name)
            for name, values in (("gm", gm), ("wm", wm))
        }
        check_fractions(**fractions)
        return cls(
            delta_m=images,
            m0=m0_volume,
            mask=_broadcast(m0_volume > 0.0 if mask is None else mask, tuple(grid), "mask") > 0,
            t1_tissue=volume(t1_tissue, "t1_tissue"),
            readout_delay=volume(readout_delay, "readout_delay"),
            n_averages=by_delay(n_averages, "n_averages").astype(np.float32),
            protocol=protocol,
            affine=np.eye(4) if affine is None else _broadcast(affine, (4, 4), "affine"),
            stem=stem,
            **fractions,
        )

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Voxels of the mask that can be quantified, shape (X, Y, Z).

        Their data are finite, M0 > 0 and T1 >= 0.1 s; no difference exceeds a million times M0, and
        M0 no million times its median, beyond which squares overflow.
        """
        inside = np.asarray(self.mask, dtype=bool)
        positive = (self.m0 > 0.0) & np.isfinite(self.m0)
        known = np.asarray(self.m0, np.float64)
        typical = np.median(known[inside & positive]) if (inside & positive).any() else 0.0
        sound = positive & (known <= _MOST * typical)
        for image in np.moveaxis(self.delta_m, -1, 0):
            sound &= np.isfinite(image) & (np.abs(image) / _MOST <= known)
        relaxing = (self.t1_tissue >= 0.1) & np.isfinite(self.t1_tissue)
        return inside & sound & relaxing

    def __repr__(self) -> str:
        """One line: the grid, the voxels and the delays."""
        grid = " x ".join(map(str, self.mask.shape))
        return (
            f"AslData({grid} voxels, {int(np.sum(self.mask))} in the mask, "
            f"{self.protocol.n_delays} delays)"
        )


def normalised(data: AslData) -> tuple[AslData, float]:
    """Data in a unit in which M0 is of the order of a thousand.

    Scanners scale their images as they like; in float32, squares of what is very large or small are
    no numbers. The unit is a power of two, so that the data lose not a bit and a result does not
    depend on the scanner's unit.

    Parameters
    ----------
    data : AslData
        In any unit.

    Returns
    -------
    data : AslData
    unit : float
        What `delta_m` and `m0` were divided by; 1 where the median M0 is 512 to 1,024.
    """
    valid = data.valid
    median = float(np.median(data.m0[valid])) if valid.any() else 0.0
    if not 0.0 < median < math.inf:
        return data, 1.0
    unit = 2.0 ** (math.frexp(median)[1] - 10)
    if unit == 1.0:
        return data, unit
    dtype = np.asarray(data.delta_m).dtype
    delta_m, m0 = (
        (np.asarray(values, np.float64) / unit).astype(dtype) for values in (data.delta_m, data.m0)
    )
    return dataclasses.replace(data, delta_m=delta_m, m0=m0), unit


def check_fractions(gm: FloatArray | None, wm: FloatArray | None) -> None:
    """Refuse fractions of tissues that no voxel has.

    Parameters
    ----------
    gm, wm : ndarray, shape (X, Y, Z), or None
        Fractions of grey and white matter; NaN where there are none.

    Raises
    ------
    InputError
        If one is given without the other, a fraction is not between 0 and 1, or both add up to
        more than 1, by more than a tenth, as probabilities do that were resampled.
    """
    if gm is None and wm is None:
        return
    if gm is None or wm is None:
        raise InputError("give the fractions of both grey and white matter, gm and wm, or none")
    for name, values in {"gm": gm, "wm": wm, "the sum of gm and wm": gm + wm}.items():
        low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0)
        if not -_FRACTION_TOLERANCE <= low <= high <= 1.0 + _FRACTION_TOLERANCE:
            raise InputError(
                f"{name} must be fractions between 0 and 1, they go from {low:g} to {high:g}"
            )


_FRACTION_TOLERANCE = 0.1
_MOST = 1e6


def _broadcast(values: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    try:
        return np.broadcast_to(np.asarray(values), shape).copy()
    except ValueError:
        raise InputError(f"{name} has the shape {np.shape(values)}, {shape} is needed") from None


class _ByName:
    """Maps by name as attributes too: `maps.cbf` is `maps.values['cbf']`."""

    values: Mapping[str, FloatArray]

    def __getitem__(self, name: str) -> FloatArray:
        """The map of a parameter."""
        return self.values[name]

    def __getattr__(self, name: str) -> FloatArray:
        """The map of a parameter."""
        # by way of __dict__, as copies and pickles ask for attributes before there are any
        values: Mapping[str, FloatArray] = self.__dict__.get("values", {})
        if name not in values:
            raise AttributeError(f"{type(self).__name__} has no map {name!r}")
        return values[name]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Maps(_ByName):
    """Result of an estimator; every map is 0 outside the fitted voxels.

    `maps.cbf` and `maps['cbf']` are `maps.values['cbf']`, and so for every parameter.

    Attributes
    ----------
    model : KineticModel
        Whose parameters the maps are of.
    values : mapping of str to ndarray, shape (X, Y, Z)
        Map of each parameter, in its unit.
    status : ndarray of int8, shape (X, Y, Z)
        `Status` of each voxel.
    sd : mapping of str to ndarray, shape (X, Y, Z)
        Standard deviations in the same units; empty where the method has none.
    noise_sd : float or None
        Estimated standard deviation of one difference image [unit of `delta_m`].
    samples : mapping of str to ndarray, shape (S, X, Y, Z)
        Draws from the posterior; empty where the method has none.
    history : mapping of str to ndarray
        What a training or an iteration recorded, step by step; empty where there is none.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    method : str
        Name of the estimator.
    stem : str
        With what the names of its files begin, relative to their folder.
    notes : tuple of str
        What the data do not tell of the model, a line each.
    probability : mapping of str to ndarray, shape (X, Y, Z)
        Probability that a voxel has a sparse component of the model, by name of its amplitude.
    choice : ModelChoice or None
        How the data chose the model; None where the user named it.
    """

    model: KineticModel
    values: Mapping[str, FloatArray]
    status: NDArray[np.int8]
    sd: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)
    noise_sd: float | None = None
    samples: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)
    history: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)
    affine: FloatArray = dataclasses.field(default_factory=lambda: np.eye(4))
    method: str = dataclasses.field(default="", metadata={"static": True})
    stem: str = dataclasses.field(default=STEM, metadata={"static": True})
    notes: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})
    probability: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)
    choice: ModelChoice | None = dataclasses.field(default=None, metadata={"static": True})

    def plot(self, *names: str) -> "Figure":
        """Draw the maps.

        Parameters
        ----------
        *names : str
            Parameters to draw; all unless given.

        Returns
        -------
        matplotlib.figure.Figure
            A row for each, of up to six axial slices.
        """
        from asl_pinn.viz.plots import map_figure  # pictures are no part of the data

        return map_figure(self, names=names or self.model.names)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the maps as a BIDS derivatives dataset.

        Parameters
        ----------
        folder : str or Path
            Made where needed.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        InputError
            If the folder holds another kind of dataset or cannot be written.
        """
        from asl_pinn.io.bids import write_maps  # files are no part of the data

        return write_maps(Path(folder), self)

    def told(self, name: str) -> NDArray[np.bool_]:
        """Voxels that a parameter says something about: those with some of its tissue or component.

        Parameters
        ----------
        name : str
            Of the parameter.

        Returns
        -------
        ndarray of bool, shape (X, Y, Z)
            Everywhere for a parameter of the voxel as a whole. One of a single tissue is 0
            elsewhere, and one of a sparse component is where its amplitude is 0.
        """
        values = self[name]
        for amplitude, others in components(self.model).items():
            if name in (amplitude, *others) and amplitude in self.values:
                return self[amplitude] != 0.0
        return values != 0.0 if self.model[name].tissue else np.ones(values.shape, bool)

    def estimated(self, name: str = "") -> NDArray[np.bool_]:
        """Voxels that have an estimate, those on a bound or not converged among them.

        Parameters
        ----------
        name : str
            Of a parameter, which is to say something about them; of any unless given.

        Returns
        -------
        ndarray of bool, shape (X, Y, Z)
        """
        kinds = (Status.FITTED, Status.ON_BOUND, Status.NOT_CONVERGED)
        where = np.isin(np.asarray(self.status), kinds)
        return where & self.told(name) if name else where

    def fitted(self, name: str) -> NDArray[np.bool_]:
        """Voxels that a parameter says something about and that were fitted within the bounds.

        Parameters
        ----------
        name : str
            Of the parameter.

        Returns
        -------
        ndarray of bool, shape (X, Y, Z)
        """
        return (np.asarray(self.status) == Status.FITTED) & self.told(name)

    def __repr__(self) -> str:
        """One line: the method, the median of each map, the voxels."""
        fitted = self.status == Status.FITTED
        medians = ", ".join(
            f"{p.symbol} {np.median(self[p.name][self.estimated(p.name)]):.{p.digits}f} {p.unit}"
            for p in self.model.parameters
            if self.estimated(p.name).any()
        )
        return f"Maps({self.method}: medians {medians or 'none'}; {int(fitted.sum())} voxels)"


def to_volume(values: Array | NDArray[Any], where: NDArray[np.bool_]) -> NDArray[Any]:
    """Put one value per selected voxel back into a volume that is 0 elsewhere.

    Parameters
    ----------
    values : array, shape (V,)
        In the order of `volume[where]`.
    where : ndarray of bool, shape (X, Y, Z)
        The V selected voxels.

    Returns
    -------
    ndarray, shape (X, Y, Z)
        Of the dtype of `values`.
    """
    flat = np.asarray(values)
    volume = np.zeros(where.shape, dtype=flat.dtype)
    volume[where] = flat
    return volume


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Phantom(_ByName):
    """A brain whose perfusion is known; every map has shape (X, Y, Z).

    `phantom.cbf` and `phantom['cbf']` are `phantom.values['cbf']`.

    Attributes
    ----------
    values : mapping of str to ndarray
        True map of each parameter, in its unit.
    m0 : ndarray
        Equilibrium magnetisation of tissue [a.u.].
    t1_tissue : ndarray
        Longitudinal relaxation time of tissue [s].
    mask : ndarray of bool
        The brain; the maps are 0 outside it, but for `t1_tissue`, which stays positive.
    grey_matter : ndarray of bool
        Voxels that are mostly grey matter, inside the brain.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    fractions : mapping of str to ndarray
        Fractions 'gm', 'wm' and 'csf' of grey matter, white matter and fluid in each voxel, which
        add up to 1 in the brain; empty where they are not known.
    """

    values: Mapping[str, FloatArray]
    m0: FloatArray
    t1_tissue: FloatArray
    mask: NDArray[np.bool_]
    grey_matter: NDArray[np.bool_]
    affine: FloatArray
    fractions: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)

    def truth(self, model: KineticModel) -> dict[str, FloatArray]:
        """True map of each parameter of a model.

        Parameters
        ----------
        model : KineticModel
            An inferred T1 is that of the phantom.

        Returns
        -------
        dict of str to ndarray, shape (X, Y, Z)

        Raises
        ------
        InputError
            If the phantom does not know one of them.
        """
        known = {"t1_tissue": self.t1_tissue, **self.values}
        missing = [name for name in model.names if name not in known]
        if missing:
            raise InputError(
                f"the phantom has no map of {', '.join(missing)} of model {model.name}, only of "
                f"{', '.join(known)}"
            )
        return {name: known[name] for name in model.names}

    def __repr__(self) -> str:
        """One line: the grid, the brain and what is known."""
        grid = " x ".join(map(str, self.mask.shape))
        return (
            f"Phantom({grid} voxels, {int(np.sum(self.mask))} of brain; {', '.join(self.values)})"
        )
