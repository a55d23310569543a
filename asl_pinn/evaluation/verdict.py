"""Whether a result deserves to be used: a judgement over what was measured on data and maps."""

import dataclasses
import enum
import math
from collections.abc import Iterator


class Level(enum.StrEnum):
    """How far a result can be trusted."""

    USABLE = "usable"
    DOUBTFUL = "doubtful"
    UNUSABLE = "unusable"


@dataclasses.dataclass(frozen=True)
class MedianOf:
    """Median of one map over the voxels of the mask that have an estimate, those on bounds too.

    Attributes
    ----------
    symbol, unit : str
        'CBF', 'mL/100g/min'.
    median : float
        In the unit; NaN where no voxel has an estimate.
    lower, upper : float
        Bounds of the parameter.
    sparse : bool
        Whether it may be all but absent from most voxels.
    plausible : tuple of float, optional
        What medians over tissue lie between.
    """

    symbol: str
    unit: str
    median: float
    lower: float
    upper: float
    sparse: bool = False
    plausible: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was measured on a run; None where it could not be.

    Attributes
    ----------
    on_bound, not_converged : float
        Fractions of the estimated voxels.
    medians : tuple of MedianOf
        One for each fitted parameter.
    mean_difference : float, optional
        Mean difference over the mask and the delays, over that of M0.
    mean_difference_error : float, optional
        Its standard error.
    signal_over_m0 : float, optional
        Largest, over the delays, of the median difference over the mask, over the median M0.
    control_over_m0 : float, optional
        Median over the mask of the mean control image over M0, where they are different images.
    suppression : bool, optional
        Whether the sidecar states background suppression.
    last_readout : float, optional
        From the beginning of labelling to the last readout of a repetition [s].
    repetition_time : float, optional
        The shortest that is stated for the series [s].
    repetition_time_is_total : bool
        Whether it is the time between preparations, and not of one readout of several.
    control_spread : float, optional
        Standard deviation of the mean control signal of volumes that are said to have one delay,
        over their mean.
    control_spread_if_reordered : float, optional
        The least that one of the usual other orders of the same delays gives.
    reordered : str
        That order, in words.
    misfit : float, optional
        Root mean square difference of data and fit in the median voxel, over what the scatter of
        repeats explains.
    remarks : tuple of str
        What reading found that makes the maps doubtful, a sentence each.
    """

    on_bound: float = 0.0
    not_converged: float = 0.0
    medians: tuple[MedianOf, ...] = ()
    mean_difference: float | None = None
    mean_difference_error: float | None = None
    signal_over_m0: float | None = None
    control_over_m0: float | None = None
    suppression: bool | None = None
    last_readout: float | None = None
    repetition_time: float | None = None
    repetition_time_is_total: bool = True
    control_spread: float | None = None
    control_spread_if_reordered: float | None = None
    reordered: str = ""
    misfit: float | None = None
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How far a result can be trusted, and why no further.

    Attributes
    ----------
    level : Level
    reasons : tuple of str
        The gravest first; empty of a usable result.
    """

    level: Level
    reasons: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """'usable', or the level and the reasons."""
        return ": ".join([self.level, "; ".join(self.reasons)] if self.reasons else [self.level])


def judge(facts: Facts) -> Verdict:
    """Judge a result by what was measured.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    Verdict
        As grave as the gravest reason.

    Examples
    --------
    >>> judge(Facts(on_bound=0.02)).sentence
    'usable'
    >>> judge(Facts(on_bound=0.9)).sentence
    'unusable: 90 % of the voxels are on a bound'
    """
    found = list(_reasons(facts))
    for level in (Level.UNUSABLE, Level.DOUBTFUL):
        if any(each == level for each, _ in found):
            ordered = sorted(found, key=lambda reason: reason[0] != Level.UNUSABLE)
            return Verdict(level, tuple(said for _, said in ordered))
    return Verdict(Level.USABLE)


# Where the limits come from. CBF: Alsop et al. (Magn Reson Med 2015;73:102-116) give 40 to 100
# mL/100g/min for grey matter; medians over whole brains lie between half of that and the same. The
# other limits were set on data that are right, in vivo and simulated, which all pass, and on the
# same data made wrong on purpose; tests/test_verdict.py has them.
CBF_PLAUSIBLE = (10.0, 120.0)
_CBF_POSSIBLE = 1.5  # times the upper end; below the lower end nothing is possible
_ON_BOUND = (0.5, 0.8)
_NOT_CONVERGED = (0.2, 0.5)
_SIGNAL = ((5e-4, 1e-4), (0.05, 0.15))
_CONTROL = ((5e-3, 5e-4), (1.5, 5.0))
_UNSUPPRESSED = 0.35
_SUPPRESSED = 0.95
_SPREAD, _SPREAD_RATIO, _SPREAD_ALONE = 0.015, 3.0, 0.1
_MISFIT = 2.0
_ERRORS = 5.0
_AT_BOUND = 1e-5  # of the distance of the bounds, as in `estimators.base.voxel_status`

_Reason = tuple[Level, str]


def _reasons(facts: Facts) -> Iterator[_Reason]:
    yield from _of_fit(facts)
    for each in facts.medians:
        yield from _of_median(each)
    yield from _of_scale(facts)
    yield from _of_timing(facts)
    for remark in facts.remarks:
        yield Level.DOUBTFUL, remark


def _of_fit(facts: Facts) -> Iterator[_Reason]:
    for share, (doubtful, unusable), what in (
        (facts.on_bound, _ON_BOUND, "are on a bound"),
        (facts.not_converged, _NOT_CONVERGED, "did not converge"),
    ):
        if share > doubtful:
            level = Level.UNUSABLE if share > unusable else Level.DOUBTFUL
            yield level, f"{100.0 * share:.0f} % of the voxels {what}"
    if facts.misfit is not None and not facts.misfit <= _MISFIT:
        yield (
            Level.DOUBTFUL,
            f"the fit misses the data by {facts.misfit:.2g} times what the scatter of repeats "
            "explains: timing, order of the delays, or model are wrong",
        )


def _of_median(of: MedianOf) -> Iterator[_Reason]:
    if not math.isfinite(of.median):
        yield Level.UNUSABLE, f"no voxel has a {of.symbol}"
        return
    # what is sparse may be all but absent
    for bound in (of.upper,) if of.sparse else (of.lower, of.upper):
        if abs(of.median - bound) <= _AT_BOUND * (of.upper - of.lower):
            yield Level.UNUSABLE, f"the median {of.symbol} is on its bound of {bound:g} {of.unit}"
            return
    if of.plausible is None:
        return
    low, high = of.plausible
    if not low <= of.median <= high:
        possible = low <= of.median <= _CBF_POSSIBLE * high
        yield (
            Level.DOUBTFUL if possible else Level.UNUSABLE,
            f"the median {of.symbol} is {of.median:.3g} {of.unit}, and that of a brain {low:g} to "
            f"{high:g}: check M0, its scale, and the timing",
        )


def _of_scale(facts: Facts) -> Iterator[_Reason]:
    if facts.mean_difference is not None and facts.mean_difference < 0.0:
        error = facts.mean_difference_error
        if error is not None and -facts.mean_difference > _ERRORS * error:
            yield (
                Level.DOUBTFUL,
                f"the mean difference over the mask is negative "
                f"({100.0 * facts.mean_difference:.2g} % of M0): label and control may be "
                "interchanged",
            )
    for value, limits, what in (
        (facts.signal_over_m0, _SIGNAL, "the median difference at its largest"),
        (facts.control_over_m0, _CONTROL, "the control images"),
    ):
        yield from _of_ratio(value, limits, what)
    yield from _of_suppression(facts)


def _of_ratio(
    value: float | None, limits: tuple[tuple[float, float], tuple[float, float]], what: str
) -> Iterator[_Reason]:
    if value is None:
        return
    (low, lowest), (high, highest) = limits
    if not low <= abs(value) <= high:
        possible = lowest <= abs(value) <= highest
        yield (
            Level.DOUBTFUL if possible else Level.UNUSABLE,
            f"{what} {'is' if 'median' in what else 'are'} {100.0 * value:.2g} % of M0, and should "
            f"be {100.0 * low:g} to {100.0 * high:g} %: check that series and M0 have the same "
            "scale",
        )


def _of_suppression(facts: Facts) -> Iterator[_Reason]:
    ratio = facts.control_over_m0
    if ratio is None:
        return
    if not facts.suppression and ratio < _UNSUPPRESSED:
        stated = "is not stated" if facts.suppression is None else "is stated as false"
        yield (
            Level.DOUBTFUL,
            f"the control images are {100.0 * ratio:.2g} % of M0, as with background suppression, "
            f"which {stated}: CBF comes out low by what its pulses cost, or M0 is wrong",
        )
    if facts.suppression and ratio > _SUPPRESSED:
        yield (
            Level.DOUBTFUL,
            f"the control images are {100.0 * ratio:.3g} % of M0, though background suppression is "
            "stated: M0 was suppressed as well, or the suppression is not there",
        )


def _of_timing(facts: Facts) -> Iterator[_Reason]:
    last, repetition = facts.last_readout, facts.repetition_time
    if last is not None and repetition is not None and last > 1.001 * repetition:
        total = facts.repetition_time_is_total
        yield (
            Level.UNUSABLE if total else Level.DOUBTFUL,
            f"labelling and delay last {last:.3g} s, longer than the repetition time of "
            f"{repetition:.3g} s: one of them is wrong",
        )
    spread, other = facts.control_spread, facts.control_spread_if_reordered
    if spread is None:
        return
    seen = f"control images of one delay differ by {100.0 * spread:.2g} %"
    if other is not None and spread > max(_SPREAD, _SPREAD_RATIO * other):
        yield (
            Level.UNUSABLE,
            f"{seen}, and by {100.0 * other:.2g} % with {facts.reordered}: the order of "
            "PostLabelingDelay is not that of the volumes",
        )
    elif spread > _SPREAD_ALONE:
        yield Level.DOUBTFUL, f"{seen}: the order of the delays is wrong, or the scanner drifted"
