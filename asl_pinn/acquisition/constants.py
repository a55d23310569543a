"""Physical constants of pCASL, used where a dataset or the user states none."""

import dataclasses

T1_BLOOD = 1.65
"""Longitudinal relaxation time of arterial blood at 3 T [s] (Alsop et al. 2015)."""

T1_TISSUE = 1.33
"""Longitudinal relaxation time of grey matter at 3 T [s] (Lu et al. 2005)."""

LABELING_EFFICIENCY = 0.85
"""Inversion efficiency of pCASL (Dai et al., Magn Reson Med 2008)."""

PARTITION_COEFFICIENT = 0.9
"""Blood-tissue partition coefficient of water [mL/g] (Herscovitch and Raichle, 1985)."""

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
    blood_source, tissue_source : str
        Where the values come from.
    """

    field_strength: float
    t1_blood: float
    t1_tissue: float
    blood_source: str
    tissue_source: str


RELAXATION_TIMES = (
    RelaxationTimes(1.5, 1.35, 1.20, _ALSOP, _WRIGHT),
    RelaxationTimes(3.0, T1_BLOOD, T1_TISSUE, _ALSOP, _LU),
    RelaxationTimes(7.0, 2.09, 1.94, _ZHANG, _WRIGHT),
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
