"""How signal becomes CBF: choices that take the place of what a dataset states."""

import dataclasses
from typing import Any, Literal

from asl_pinn.acquisition.constants import PARTITION_COEFFICIENT
from asl_pinn.errors import InputError

_LARGEST_COEFFICIENT = 2.0


def _choice(default: Any, help_text: str) -> Any:
    """A field with the text of its flag, as `asl_pinn.estimators.options` has it."""
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Constants and M0 of a run; every field becomes a flag and a keyword of `asl.load`."""

    labeling_efficiency: float | None = _choice(
        None,
        "Labelling efficiency, losses by background suppression included, in place of "
        "LabelingEfficiency of the sidecar or the default.",
    )
    partition_coefficient: float = _choice(
        PARTITION_COEFFICIENT, "Blood-tissue partition coefficient of water [mL/g]."
    )
    m0: str | None = _choice(
        None,
        "Image of M0 on the grid of the series, or one number for all voxels, in place of what "
        "M0Type says.",
    )
    m0_scale: float = _choice(
        1.0, "Factor on M0, for images whose scale is not that of the series."
    )
    m0_tr_correction: bool = _choice(
        True,
        "Divide an M0 whose repetition time is below 5 s by 1 - exp(-TR/T1), with T1 by tissue as "
        "far as it is known.",
    )
    m0_reference: Literal["voxel", "csf", "wm"] = _choice(
        "voxel",
        "What M0 of blood is taken from: each voxel's own M0, or the median M0 of cerebrospinal "
        "fluid or of white matter, which a mask or fractions of tissues tell.",
    )
    m0_reference_mask: str | None = _choice(
        None, "Image of the voxels of the reference tissue, on the grid of the series."
    )
    m0_smoothing: float = _choice(
        0.0,
        "Width (FWHM) of a blur of M0 inside the mask [mm]; with a reference tissue it gives the "
        "sensitivity of the coils, which is else taken as even.",
    )
    m0_rim: int = _choice(
        0,
        "Voxels at the edge of the mask whose M0 is replaced by that further inside: partly "
        "outside the brain, it inflates CBF there.",
    )


DEFAULT_CALIBRATION = Calibration()


def check_calibration(options: Calibration) -> None:
    """Refuse choices that cannot be.

    Parameters
    ----------
    options : Calibration

    Raises
    ------
    InputError
        If a number is out of range.
    """
    alpha = options.labeling_efficiency
    if alpha is not None and not 0.0 < alpha <= 1.0:
        raise InputError(f"--labeling_efficiency must be above 0 and at most 1, it is {alpha:g}")
    if not 0.0 < options.partition_coefficient <= _LARGEST_COEFFICIENT:
        raise InputError(
            f"--partition_coefficient must be above 0 and at most {_LARGEST_COEFFICIENT:g} mL/g, "
            f"it is {options.partition_coefficient:g}"
        )
    if not 0.0 < options.m0_scale < float("inf"):
        raise InputError(f"--m0_scale must be a positive number, it is {options.m0_scale:g}")
    if not 0.0 <= options.m0_smoothing < float("inf"):
        raise InputError(
            f"--m0_smoothing must be zero or more millimetres, it is {options.m0_smoothing:g}"
        )
    if options.m0_rim < 0:
        raise InputError(f"--m0_rim must be zero or more voxels, it is {options.m0_rim}")
    if options.m0_reference_mask is not None and options.m0_reference == "voxel":
        raise InputError("--m0_reference_mask needs --m0_reference=csf or --m0_reference=wm")
