"""Physical constants of ASL, used where a dataset or the user states none."""

import dataclasses

T1_BLOOD = 1.65
"""Longitudinal relaxation time of arterial blood at 3 T [s] (Alsop et al. 2015)."""

T1_TISSUE = 1.33
"""Longitudinal relaxation time of grey matter at 3 T [s] (Lu et al. 2005)."""

T1_WHITE_MATTER = 0.83
"""Longitudinal relaxation time of white matter at 3 T [s] (Lu et al. 2005)."""

T1_FLUID = 4.3
"""Longitudinal relaxation time of cerebrospinal fluid, at any field strength [s] (Rooney et al.,
Magn Reson Med 2007;57:308-318)."""

LABELING_EFFICIENCY = 0.85
"""Inversion efficiency of pCASL (Dai et al., Magn Reson Med 2008)."""

CASL_LABELING_EFFICIENCY = 0.68
"""Inversion efficiency of CASL with an amplitude-modulated control, whose own losses count as well
(Wang et al., Radiology 2005;235:218-228)."""

PASL_LABELING_EFFICIENCY = 0.98
"""Inversion efficiency of PASL (Alsop et al. 2015)."""

PARTITION_COEFFICIENT = 0.9
"""Blood-tissue partition coefficient of water [mL/g] (Herscovitch and Raichle, 1985)."""

PARTITION_COEFFICIENTS = {"GM": 0.98, "WM": 0.82, "CSF": 1.15}
"""The same of pure tissues [mL/g]: grey and white matter (Herscovitch and Raichle, J Cereb Blood
Flow Metab 1985;5:65-69), and the water content of cerebrospinal fluid, 0.99 g/mL, over that of
blood, 0.86 g/mL."""

_ALSOP = "Alsop et al., Magn Reson Med 2015;73:102-116"
_LU = "Lu et al., J Magn Reson Imaging 2005;22:13-22"
_WRIGHT = "Wright et al., MAGMA 2008;21:121-130"
_ZHANG = "Zhang et al., Magn Reson Med 2013;70:1082-1086"


@dataclasses.dataclass(frozen=True)
class RelaxationTimes:
    """Longitudinal relaxation times at one field strength, and the works that measured them.

    Attributes
    ----------
    field_strength : float
        Of the scanner [T].
    t1_blood : float
        Of arterial blood [s].
    t1_tissue : float
        Of grey matter [s].
    t1_white_matter : float
        Of white matter [s]; from the same work as that of grey matter.
    blood_source, tissue_source : str
        Where the values come from.
    """

    field_strength: float
    t1_blood: float
    t1_tissue: float
    t1_white_matter: float
    blood_source: str
    tissue_source: str


RELAXATION_TIMES = (
    RelaxationTimes(1.5, 1.35, 1.20, 0.65, _ALSOP, _WRIGHT),
    RelaxationTimes(3.0, T1_BLOOD, T1_TISSUE, T1_WHITE_MATTER, _ALSOP, _LU),
    RelaxationTimes(7.0, 2.09, 1.94, 1.13, _ZHANG, _WRIGHT),
)
"""By field strength, lowest first."""

_SAME_FIELD = 0.1  # of the nominal field: scanners of 3 T state 2.89 T, too


def relaxation_times(field_strength: float) -> RelaxationTimes | None:
    """Relaxation times at a field strength.

    Parameters
    ----------
    field_strength : float
        Of the scanner [T].

    Returns
    -------
    RelaxationTimes or None
        Those of a nominal field strength within 10 %; None where there is none.

    Examples
    --------
    >>> relaxation_times(2.89).t1_blood
    1.65
    >>> relaxation_times(9.4) is None
    True
    """
    for known in RELAXATION_TIMES:
        if abs(field_strength - known.field_strength) <= _SAME_FIELD * known.field_strength:
            return known
    return None


T1_BLOOD_AT = 3.0
"""Field strength at which T1 of blood by hematocrit is known [T]."""


def hematocrit_to_t1(hematocrit: float, field_strength: float) -> float | None:
    """T1 of arterial blood by its hematocrit.

    Parameters
    ----------
    hematocrit : float
        Fraction of the volume that is red cells.
    field_strength : float
        Of the scanner [T].

    Returns
    -------
    float or None
        1 / (0.52 Hct + 0.38) [s] at 3 T within 10 %; None elsewhere.

    References
    ----------
    Lu et al., Magn Reson Med 52:679-682 (2004).

    Examples
    --------
    >>> round(hematocrit_to_t1(0.42, 3.0), 3)
    1.671
    >>> hematocrit_to_t1(0.42, 7.0) is None
    True
    """
    if abs(field_strength - T1_BLOOD_AT) > _SAME_FIELD * T1_BLOOD_AT:
        return None
    return 1.0 / (0.52 * hematocrit + 0.38)
