"""What people call from Python: load, simulate, fit."""

import dataclasses
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import DTypeLike

from asl_pinn import models
from asl_pinn.acquisition.protocol import (
    Protocol,
    Schedule,
    label_durations,
    time_encoded_protocol,
)
from asl_pinn.data import AslData, Maps, Phantom
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.options import from_mapping
from asl_pinn.estimators.registry import DEFAULT_METHOD, get_estimator
from asl_pinn.evaluation.verdict import judge
from asl_pinn.io import bids
from asl_pinn.models.base import KineticModel
from asl_pinn.models.choice import AUTO
from asl_pinn.simulation.acquire import simulate as acquire
from asl_pinn.simulation.phantoms import complete, mni_phantom, select_slices
from asl_pinn.workflow.config import adjusted, most_general

_LOG = logging.getLogger(__name__)


def load(
    folder: str | os.PathLike[str],
    *,
    participant: str | None = None,
    session: str | None = None,
    task: str | None = None,
    acquisition: str | None = None,
    run: str | int | None = None,
    mask: str | os.PathLike[str] | None = None,
    t1_tissue: float | str | os.PathLike[str] | None = None,
    t1_blood: float | None = None,
    gm: str | os.PathLike[str] | None = None,
    wm: str | os.PathLike[str] | None = None,
    keep_sign: bool = False,
    preprocessed: bool = False,
    **calibration: Any,
) -> AslData:
    """Read one ASL series of a BIDS dataset, with its M0, mask and timing.

    What a user should know of how it was read is logged as warnings of the logger 'asl_pinn'.

    Parameters
    ----------
    folder : str or path
        With a dataset_description.json.
    participant, session, task, acquisition, run : str, optional
        Labels in the name of the series, to tell one from several: '01' or 'sub-01'.
    mask : str or path, optional
        Image of the voxels to quantify; else the dataset's brain mask, or one made from M0.
    t1_tissue : float or str or path, optional
        T1 of tissue [s], an image of it, or 'map' for the participant's anat/*_T1map; by the field
        strength unless given.
    t1_blood : float, optional
        T1 of arterial blood [s]; likewise.
    gm, wm : str or path, optional
        Images of the fractions of grey and white matter; 't1' as `gm` makes both from the T1 map.
        Else those among the dataset's derivatives that are on the grid of the series, if any.
    keep_sign : bool
        Whether to take differences as they are though their mean is negative.
    preprocessed : bool
        Whether to read the preprocessed series among the derivatives, as ASLPrep writes it.
    **calibration
        Constants and M0, as `asl-pinn quantify --help` lists them under calibration:
        `labeling_efficiency=0.8`, `m0_rim=2`.

    Returns
    -------
    AslData

    Raises
    ------
    InputError
        If no series or several match, which are then listed, what belongs to it is missing or at
        fault, or there is no such choice of calibration.
    """
    wanted = {"sub": participant, "ses": session, "task": task, "acq": acquisition, "run": run}
    labels = [] if participant is None else [participant]
    matching = [
        found
        for found in bids.find_runs(Path(folder), labels)
        if all(
            _same_label(found.entities.get(entity), str(label), entity)
            for entity, label in wanted.items()
            if label is not None
        )
    ]
    if len(matching) != 1:
        names = ", ".join(found.stem for found in matching or bids.find_runs(Path(folder), labels))
        raise InputError(
            f"{folder}: {len(matching) or 'none'} of its ASL series match; choose one with "
            f"participant=, session=, task=, acquisition= and run= from {names}"
        )
    data, notes = bids.read_run(
        matching[0],
        mask=None if mask is None else Path(mask),
        t1_tissue=_t1_tissue(t1_tissue),
        t1_blood=t1_blood,
        gm="derivatives" if gm is None and wm is None else _fractions(gm),
        wm=_fractions(wm),
        keep_sign=keep_sign,
        use_preprocessed=preprocessed,
        calibration=from_mapping(bids.Calibration, _as_text(calibration), (), "load"),
    )
    for message in (*notes.messages, *judge(notes.facts).reasons):
        _LOG.warning("%s: %s", matching[0].stem, message)
    return data


def simulate(
    phantom: Phantom | Literal["mni"] = "mni",
    *,
    tsnr: float = 1.5,
    seed: int = 0,
    slice: int | str = "central",
    schedule: Schedule | Sequence[float] | Protocol = "t1_adjusted",
    n_delays: int = 7,
    label_total: float = 4.0,
    final_delay: float = 0.1,
    model: str | KineticModel = models.DEFAULT_MODEL,
) -> tuple[Phantom, AslData]:
    """Simulate a time-encoded acquisition of a brain whose perfusion is known.

    Parameters
    ----------
    phantom : 'mni' or Phantom
        Brain: one of ICBM 152 anatomy at 3 mm, with the arteries and the dispersion that the
        model needs, or one's own.
    tsnr : float
        Mean over grey matter and delays of the noise-free signal of tissue, over the noise;
        infinity for none.
    seed : int
        Of the noise; the same seed gives the same bits.
    slice : int or str
        'central', 'all', or the index of a slice along the third axis.
    schedule : str, sequence of float or Protocol
        'equal', 't1_adjusted' or 'free_lunch'; durations of the sub-boluses [s], earliest first;
        or any protocol.
    n_delays : int
        Sub-boluses of a named schedule: the size of the encoding matrix less one.
    label_total : float
        Labelling time of a named schedule [s].
    final_delay : float
        From the last sub-bolus to readout [s].
    model : str or KineticModel
        Whose signal it is; a phantom of one's own must have a map of each of its parameters.

    Returns
    -------
    phantom : Phantom
        The truth, of the slice.
    data : AslData
        The acquisition, decoded.

    Raises
    ------
    InputError
        If there is no such phantom, slice, schedule or model, or the phantom lacks a parameter.
    """
    kinetic = models.get(model) if isinstance(model, str) else model
    if isinstance(phantom, str):
        if phantom != "mni":
            raise InputError(f"phantom {phantom!r} is unknown; choose 'mni' or give a Phantom")
        phantom = complete(mni_phantom(), kinetic)
    truth = select_slices(phantom, str(slice))
    if isinstance(schedule, str):
        schedule = label_durations(schedule, n_delays, label_total).tolist()
    if not isinstance(schedule, Protocol):
        schedule = time_encoded_protocol(np.asarray(schedule), final_delay)
    return truth, acquire(truth, schedule, tsnr=tsnr, seed=seed, model=kinetic)


def fit(
    data: AslData,
    method: str = DEFAULT_METHOD,
    *,
    model: str | KineticModel = AUTO,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    priors: Mapping[str, tuple[float | None, float | None]] | None = None,
    fix: Mapping[str, float] | None = None,
    seed: int = 0,
    dtype: DTypeLike = "float32",
    progress: bool = True,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Maps:
    """Fit a kinetic model to data.

    Parameters
    ----------
    data : AslData
        From `load`, `simulate` or `AslData.from_arrays`.
    method : str
        Name of the estimator: 'spatial-map', 'neural-field', 'pinn', 'nlls', ...
    model : str or KineticModel
        What is fitted: 'buxton', 'buxton+arterial', 'module:Class', or a model; 'auto' for
        tissue alone, with arterial blood, or with that and dispersion, as the data choose:
        `maps.choice` tells which and why.
    bounds : mapping of str to (float or None, float or None), optional
        Lower and upper bound by parameter, in its unit; None for that of the model.
    priors : mapping of str to (float or None, float or None), optional
        Mean and standard deviation by parameter, in its unit; likewise.
    fix : mapping of str to float, optional
        Values of parameters that are held instead of fitted.
    seed : int
        Of everything random in the estimator.
    dtype : dtype
        'float32' or 'float64'.
    progress : bool
        Whether to draw progress bars, on terminals and in notebooks.
    checkpoint_dir : str or path, optional
        Where a long training keeps its state, to resume after a kill.
    **options
        Of the method, as `asl-pinn quantify --help` lists them. An option with a number for each
        parameter takes one number for all or a mapping: `{"cbf": 1.0}`.

    Returns
    -------
    Maps

    Raises
    ------
    InputError
        If there is no such method, option, model or parameter, a value is out of range, or the
        data cannot be fitted so.

    Examples
    --------
    >>> import asl_pinn as asl
    >>> truth, data = asl.simulate(tsnr=5.0)
    >>> asl.fit(data, "nlls", fix={"att": 1.2}).model.names
    ('cbf',)
    """
    estimator, kind = get_estimator(method), np.dtype(dtype).name
    general = most_general(model, fix or {}) if isinstance(model, str) else model
    fitted = models.fix(adjusted(general, bounds or {}, priors or {}), **(fix or {}))
    context = RunContext(
        seed, kind, progress, None if checkpoint_dir is None else Path(checkpoint_dir).absolute()
    )
    chosen: Any = from_mapping(estimator.options, options, fitted.names, method)
    with jax.enable_x64(kind == "float64"):
        choice = None
        if model == AUTO:
            from asl_pinn.estimators.model_choice import choose_model  # no other fit needs it

            own = functools.partial(
                adjusted, bounds=bounds or {}, priors=priors or {}, own_alone=True
            )
            choice = choose_model(data, own, held=fix, dtype=kind)
            fitted = models.fix(own(models.get(choice.model)), **(fix or {}))
        maps = estimate_maps(data, method, estimator, fitted, chosen, context)
    for note in maps.notes:
        _LOG.warning("%s: %s", method, note)
    return dataclasses.replace(maps, choice=choice)


def _same_label(found: str | None, wanted: str, entity: str) -> bool:
    """Whether labels agree: '01' and 'sub-01', and, of numbered runs, 1 and '01'."""
    label = wanted.removeprefix(f"{entity}-")
    if found is not None and found.isdecimal() and label.isdecimal() and entity == "run":
        return int(found) == int(label)
    return found == label


def _as_text(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and paths as the options have them that take either."""
    images = ("m0", "m0_reference_mask")
    return {
        name: str(value) if name in images and value is not None else value
        for name, value in calibration.items()
        if value is not None
    }


def _fractions(given: str | os.PathLike[str] | None) -> Path | Literal["t1"] | None:
    if given == "t1":
        return "t1"
    return None if given is None else Path(given)


def _t1_tissue(
    given: float | str | os.PathLike[str] | None,
) -> float | Path | Literal["map"] | None:
    if given == "map":
        return "map"
    return Path(given) if isinstance(given, (str, os.PathLike)) else given
