"""A methods paragraph and its references, ready to paste."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from asl_pinn import __version__
from asl_pinn.acquisition.constants import PARTITION_COEFFICIENTS
from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.data import AslData, Maps, Status
from asl_pinn.estimators.base import Estimator
from asl_pinn.models.base import Blood, KineticModel, Parameter, Tissue
from asl_pinn.models.compose import Fixed, Sum
from asl_pinn.viz.plots.style import in_unit

_MOST_LISTED = 12
_EN_DASH = "\N{EN DASH}"


def software_citation() -> str:
    """How to cite the package."""
    return (
        "asl_pinn contributors. asl_pinn: CBF and ATT maps from time-encoded and other multi-delay "
        f"pCASL MRI, version {__version__} [computer software]."
    )


def methods_text(
    data: AslData, maps: Maps, estimator: Estimator, provenance: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Describe how a result was made.

    Parameters
    ----------
    data : AslData
        What was quantified.
    maps : Maps
        The result.
    estimator : Estimator
        What made it.
    provenance : mapping of str to Any
        'Options' of the estimator; 'T1BloodSource' and 'T1TissueSource' where the values of T1
        come from a work; what was done to M0, as the sidecars state it.

    Returns
    -------
    paragraph : str
        Plain text, in sentences for a paper.
    references : list of str
        Works that it cites, in the order of their numbers: those of the kinetic model, then those
        of the estimator.
    """
    protocol, model = data.protocol, maps.model
    repeats = data.n_averages
    averaged = f"; each the mean of {_range(repeats)} repeats" if repeats.max() > 1 else ""
    timing = _timing(protocol)
    works, options = list(model.references), provenance.get("Options", {})
    regressed = _regressed(model, options, works)
    counts = {status: int((maps.status == status).sum()) for status in Status}
    n_mask = sum(counts.values()) - counts[Status.OUTSIDE]
    names = enumerated([f"{p.label} ({p.symbol})" for p in model.parameters])
    sentences = [
        f"{names[0].upper()}{names[1:]} {'was' if len(model.parameters) == 1 else 'were'} "
        f"estimated with asl_pinn {__version__} (method {maps.method}) from control-label "
        f"difference images of {_labelling(protocol)} at {protocol.n_delays} "
        f"{'delay' if protocol.n_delays == 1 else 'delays'} ({timing}{averaged}).",
        _slices(data),
        f"The difference signal was described by {_described(model, works)}.",
        _chosen(maps),
        "It was scaled by the M0 of each voxel, assuming "
        f"{enumerated(_assumed(data, model, provenance))}.",
        _m0(provenance),
        regressed,
        _held_sentence(model),
        _bounds_sentence(data, model, estimator.weak_priors),
        estimator.describe(_by_symbol(options, model), n_cited=len(works)),
        f"Of the {n_mask} voxels in the mask, {counts[Status.FITTED]} were fitted within the "
        f"bounds, {counts[Status.ON_BOUND]} lay on or beyond a bound, "
        f"{counts[Status.NOT_CONVERGED]} did not converge and {counts[Status.SKIPPED]} could not "
        "be quantified.",
        f"No correction for motion{'' if model.needs_fractions else ' or partial volume effects'} "
        "was made by asl_pinn.",
    ]
    return " ".join(filter(None, sentences)), [*works, *estimator.references]


def enumerated(words: Sequence[str], last: str = "and") -> str:
    """'a, b and c'."""
    *others, end = words
    return f"{', '.join(others)} {last} {end}" if others else end


def _chosen(maps: Maps) -> str:
    """How the data chose the model."""
    choice = maps.choice
    if choice is None:
        return ""
    if not choice.compared:
        return f"Other models were not considered: {choice.reason}."
    names = enumerated([each.model for each in choice.compared], "or")
    return (
        f"The model was chosen among {names} by the evidence of {choice.n_voxels} voxels and the "
        f"predictive probability of delays left out, as {choice.reason}."
    )


def _labelling(protocol: Protocol) -> str:
    crushing = {None: "", True: " with vascular crushing", False: " without vascular crushing"}
    return f"{protocol.labeling} arterial spin labelling{crushing[protocol.vascular_crushing]}"


def _timing(protocol: Protocol) -> str:
    if protocol.labeling == "pulsed":
        cut_off = np.unique(protocol.label_duration)
        return f"{_listed('bolus duration', cut_off)}; {_listed('inversion time', protocol.t)}"
    durations = _listed("label duration", protocol.label_duration)
    return f"{durations}; {_listed('post-labelling delay', protocol.pld)}"


def _by_symbol(options: Mapping[str, Any], model: KineticModel) -> dict[str, Any]:
    """Options whose numbers by parameter have the symbols that people know in place of names."""
    symbols = {p.name: p.symbol for p in model.parameters}
    return {
        name: {symbols.get(key, key): number for key, number in value.items()}
        if isinstance(value, Mapping)
        else value
        for name, value in options.items()
    }


def _slices(data: AslData) -> str:
    latest = float(data.readout_delay[data.mask].max(initial=0.0))
    if latest == 0.0:
        return ""
    return f"The readout time of each slice, up to {latest:.4g} s, was added to the delays."


def _described(model: KineticModel, works: Sequence[str]) -> str:
    """Each model of a sum with the numbers of its own references."""
    if isinstance(model, Fixed):
        return _described(model.model, works)
    if isinstance(model, Sum):
        return ", with ".join(_described(part, works) for part in model.models)
    numbers = ", ".join(str(works.index(work) + 1) for work in model.references)
    return f"{model.description} [{numbers}]" if numbers else model.description


def _held(model: KineticModel) -> list[tuple[Parameter, float]]:
    """Parameters that are held, and their values."""
    if isinstance(model, Fixed):
        return [*_held(model.model), *((model.model[n], v) for n, v in model.held.items())]
    if isinstance(model, Sum):
        return [each for part in model.models for each in _held(part)]
    return []


def _held_sentence(model: KineticModel) -> str:
    held = [f"{p.symbol} was held at {value:g}{in_unit(p)}" for p, value in _held(model)]
    return f"{enumerated(held)}." if held else ""


def _assumed(data: AslData, model: KineticModel, provenance: Mapping[str, Any]) -> list[str]:
    """The constants of the model that are no parameters of it."""
    protocol = data.protocol
    constants = {
        "t1_blood": f"a T1 of arterial blood of {protocol.t1_blood:.4g} s"
        f"{_source(provenance, 'T1BloodSource')}",
        "t1_tissue": f"{_t1_of_tissue(data)}{_source(provenance, 'T1TissueSource')}",
        "labeling_efficiency": f"a labelling efficiency of {protocol.labeling_efficiency:.3g}",
        "partition_coefficient": "a blood-tissue partition coefficient of "
        f"{protocol.partition_coefficient:.3g} mL/g",
    }
    if model.needs_fractions:
        source = _source(provenance, "T1GreyMatterSource")
        constants["t1_tissue"] = (
            f"a T1 of {protocol.t1_gm:.4g} s in grey and {protocol.t1_wm:.4g} s in white "
            f"matter{source}"
        )
        of = [f"{value:g} for {tissue}" for tissue, value in PARTITION_COEFFICIENTS.items()]
        constants["partition_coefficient"] = (
            f"blood-tissue partition coefficients of {enumerated(of)} mL/g, averaged over what is "
            "in a voxel for the M0 of its blood"
        )
    inferred = {*model.names, *(p.name for p, _ in _held(model))}
    return [text for name, text in constants.items() if name not in inferred]


def _m0(provenance: Mapping[str, Any]) -> str:
    """What was done to M0."""
    done = []
    percent = provenance.get("M0RelaxationCorrectionPercent", 0.0)
    if percent:
        times = np.unique(provenance["M0RepetitionTime"])
        done.append(
            f"corrected for incomplete relaxation at {_listed('repetition time', times)} (by "
            f"{percent:.3g} % in the median)"
        )
    rim, fwhm = (provenance.get(key, 0) for key in ("M0RimVoxels", "M0SmoothingFWHM"))
    if rim:
        done.append(f"extrapolated into the outermost {rim} voxel{'' if rim == 1 else 's'}")
    if fwhm:
        done.append(f"smoothed by a Gaussian of {fwhm:g} mm FWHM")
    tissue = provenance.get("M0Reference", "voxel")
    if tissue != "voxel":
        name = {"csf": "cerebrospinal fluid", "wm": "white matter"}[tissue]
        done.append(f"taken from {provenance['M0ReferenceVoxels']} voxels of {name}")
    return f"M0 was {enumerated(done)}." if done else ""


def _regressed(model: KineticModel, options: Mapping[str, Any], works: list[str]) -> str:
    """How images of pure tissue were made for fits of single voxels; adds the work to the list."""
    if not model.needs_fractions or "pv_kernel" not in options:
        return ""
    works.append(
        "Asllani I, Borogovac A, Brown TR. Regression algorithm correcting for partial volume "
        "effects in arterial spin labeling MRI. Magn Reson Med 2008;60:1362-1371."
    )
    return (
        "Difference images of pure grey and white matter were found by linear regression on the "
        f"tissue fractions over {options['pv_kernel']} voxels [{len(works)}], and each was fitted "
        f"where there was at least {options['min_fraction']:g} of the tissue."
    )


def _source(provenance: Mapping[str, Any], key: str) -> str:
    """The work that a constant comes from; nothing where the user gave it by a flag."""
    source = provenance.get(key, "--")
    return "" if source.startswith("--") else f" ({source})"


def _t1_of_tissue(data: AslData) -> str:
    t1 = data.t1_tissue[data.valid]
    if not t1.size:
        return "a T1 of tissue"
    if np.ptp(t1) == 0.0:
        return f"a T1 of tissue of {t1[0]:.4g} s"
    return f"a T1 of tissue from a map (median {np.median(t1):.3g} s)"


def _bounds_sentence(data: AslData, model: KineticModel, weak_priors: bool) -> str:
    where, protocol = data.valid, data.protocol
    tissue = Tissue(data.m0[where], data.t1_tissue[where], protocol.partition_coefficient)
    centres = model.centres(tissue, Blood(protocol.t1_blood, protocol.labeling_efficiency))
    bounds = [
        f"{p.lower:g}{_EN_DASH}{p.upper:g}{in_unit(p)} for {p.symbol}"
        f"{_prior(p, centre, weak_priors)}"
        for p, centre in zip(model.parameters, centres, strict=True)
    ]
    return f"The bounds were {enumerated(bounds)}."


def _prior(p: Parameter, centre: ArrayLike, weak_priors: bool) -> str:
    if p.prior is None or (p.prior.weak and not weak_priors):
        return ""
    kind = "weak normal prior" if p.prior.weak else "normal prior"
    stated = np.unique(centre)
    # a mean that is stated for each voxel is a map
    mean = f"{stated[0]:.4g}{in_unit(p)}" if stated.size == 1 else "from the given map"
    return f" ({kind}: mean {mean}, SD {p.prior.sd:g}{in_unit(p)})"


def _listed(name: str, values: np.ndarray) -> str:
    """'label durations 1.8, 1, 0.8 s'."""
    if len(values) > _MOST_LISTED:
        return f"{name}s {_range(values)} s"
    plural = "" if len(values) == 1 else "s"
    return f"{name}{plural} {', '.join(f'{value:.4g}' for value in values)} s"


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
