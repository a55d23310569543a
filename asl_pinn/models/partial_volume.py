"""Grey and white matter in one voxel, each with a perfusion of its own."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from asl_pinn.acquisition.constants import PARTITION_COEFFICIENTS
from asl_pinn.errors import InputError
from asl_pinn.models.base import Blood, KineticModel, Parameter, Prior, Timing, Tissue, Values
from asl_pinn.models.buxton import ATT, CBF, Buxton
from asl_pinn.models.compose import Fixed, Sum

TissueLabel = Literal["GM", "WM"]
TISSUE_LABELS: tuple[TissueLabel, ...] = ("GM", "WM")
"""Labels of BIDS for the tissues that are told apart."""


def _of_tissue(parameter: Parameter, label: TissueLabel, words: str, typical: float) -> Parameter:
    return dataclasses.replace(
        parameter,
        name=f"{parameter.name}_{label.lower()}",
        label=f"{parameter.label} of {words}",
        symbol=f"{parameter.symbol} {label}",
        typical=typical,
        # M0 and T1 of a voxel tell which tissues are in it, and nothing about either.
        follows_tissue=False,
        suffix=parameter.file_suffix,
        tissue=label,
    )


CBF_GM = _of_tissue(CBF, "GM", "grey matter", 60.0)
ATT_GM = _of_tissue(ATT, "GM", "grey matter", 1.2)
CBF_WM = _of_tissue(CBF, "WM", "white matter", 20.0)
ATT_WM = dataclasses.replace(
    _of_tissue(ATT, "WM", "white matter", 1.5),
    prior=Prior(1.5, 1.0, weak=True),  # blood arrives later than in grey matter
)


_GREY, _WHITE = Buxton((CBF_GM, ATT_GM)), Buxton((CBF_WM, ATT_WM))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PartialVolume(KineticModel):
    """Grey and white matter, each with its own CBF, ATT, T1 and partition coefficient.

    With the fractions g, w and c = 1 - g - w of grey matter, white matter and fluid,

        dM = g dM_GM + w dM_WM,    M0a = M0 / (g lambda_GM + w lambda_WM + c lambda_CSF)

    and Buxton's curve for the dM of each tissue. Fluid has no perfusion, but it has M0: of a voxel
    that is half fluid, M0/0.9 is not the magnetisation of its blood. The water of a voxel is that
    of blood times the mean of the partition coefficients, which is undone here, so that no M0 of
    pure tissue has to be found, and the receive field of the coil cancels as it does elsewhere.

    Parameters of tissue that is hardly there hang on neighbours and priors alone.

    References
    ----------
    Asllani et al., Magn Reson Med 60:1362-1371 (2008); Chappell et al., Magn Reson Med
    65:1173-1183 (2011). Partition coefficients: Herscovitch and Raichle, J Cereb Blood Flow Metab
    5:65-69 (1985).
    """

    grey: Buxton = _GREY
    white: Buxton = _WHITE
    name = "partial-volume"
    description = (
        "Buxton's single-compartment kinetic model of grey and of white matter, summed over their "
        "fractions of each voxel"
    )
    references = (
        *Buxton.references,
        "Chappell MA, Groves AR, MacIntosh BJ, Donahue MJ, Jezzard P, Woolrich MW. Partial volume "
        "correction of multiple inversion time arterial spin labeling MRI data. Magn Reson Med "
        "2011;65:1173-1183.",
    )
    needs_fractions = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        """Those of grey matter, then those of white matter."""
        return (*self.grey.parameters, *self.white.parameters)

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """The constants with the mean partition coefficient of what is in the voxel.

        So that other models of a sum have the same M0 of blood.
        """
        return tissue._replace(partition_coefficient=mean_partition_coefficient(tissue)), blood

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Difference signal of both tissues."""
        grey, white = _in_voxel(tissue)
        in_grey = self.grey.signal(values[:2], timing, grey, blood)
        return in_grey + self.white.signal(values[2:], timing, white, blood)

    def basis(
        self, held: Values, timing: Timing, tissue: Tissue, blood: Blood
    ) -> Callable[..., tuple[Array, ...]]:
        """Curves of either tissue, as functions of both transit times."""
        grey, white = _in_voxel(tissue)
        in_grey = self.grey.basis(held, timing, grey, blood)
        in_white = self.white.basis(held, timing, white, blood)

        def curves(att_gm: ArrayLike, att_wm: ArrayLike) -> tuple[Array, ...]:
            return (*in_grey(att_gm), *in_white(att_wm))

        return curves


def fraction_of(tissue: Tissue, label: str) -> NDArray[np.float64]:
    """Fraction of a tissue in each voxel, on the host.

    Parameters
    ----------
    tissue : Tissue
        With fractions.
    label : str
        'GM' or 'WM'.

    Returns
    -------
    ndarray, shape (V,)
    """
    return np.asarray({"GM": tissue.gm, "WM": tissue.wm}[label], np.float64)


def mean_partition_coefficient(tissue: Tissue) -> Array:
    """Partition coefficient of a voxel, by what is in it: M0 of the voxel over that of its blood.

    Parameters
    ----------
    tissue : Tissue
        What its fractions leave is fluid; without fractions, its own coefficient stands.

    Returns
    -------
    Array
        [mL/g], of the shape of the fractions.

    Examples
    --------
    >>> round(float(mean_partition_coefficient(Tissue(gm=0.5, wm=0.3))), 3)
    0.966
    """
    if tissue.gm is None or tissue.wm is None:
        return jnp.asarray(tissue.partition_coefficient)
    coefficient = PARTITION_COEFFICIENTS
    gm, wm = jnp.asarray(tissue.gm), jnp.asarray(tissue.wm)
    fluid = jnp.maximum(1.0 - gm - wm, 0.0)
    return gm * coefficient["GM"] + wm * coefficient["WM"] + fluid * coefficient["CSF"]


def pure_tissue(tissue: Tissue, label: TissueLabel, arterial_m0: ArrayLike) -> Tissue:
    """Constants of one tissue alone.

    Parameters
    ----------
    tissue : Tissue
        With the relaxation times of pure tissues.
    label : {'GM', 'WM'}
        Which.
    arterial_m0 : array_like
        Equilibrium magnetisation of blood, times the fraction of the tissue [a.u.].

    Returns
    -------
    Tissue
        Without fractions.
    """
    coefficient = PARTITION_COEFFICIENTS[label]
    t1 = tissue.t1_gm if label == "GM" else tissue.t1_wm
    return Tissue(jnp.asarray(arterial_m0) * coefficient, t1, coefficient)


def pure_model(model: KineticModel, label: TissueLabel) -> KineticModel:
    """What a model of mixed voxels says of one tissue alone.

    Parameters
    ----------
    model : KineticModel
        With `PartialVolume` in it.
    label : {'GM', 'WM'}
        Which tissue.

    Returns
    -------
    KineticModel
        With the parameters of the tissue.

    Raises
    ------
    InputError
        If something else has a parameter, which belongs to neither tissue.

    Examples
    --------
    >>> pure_model(PartialVolume(), "WM").names
    ('cbf_wm', 'att_wm')
    """
    found = _one_tissue(model, label)
    others = [p.symbol for p in found.parameters if p.tissue != label]
    if others:
        raise InputError(
            f"model {model.name}: {', '.join(others)} belongs to neither tissue, so that fits of "
            "single voxels cannot tell it from them; use --method=spatial-map or neural-field"
        )
    return found


def _one_tissue(model: KineticModel, label: TissueLabel) -> KineticModel:
    if isinstance(model, PartialVolume):
        return model.grey if label == "GM" else model.white
    if isinstance(model, Sum):
        return Sum(
            tuple(
                _one_tissue(part, label) if part.needs_fractions else part for part in model.models
            )
        )
    if isinstance(model, Fixed):
        free = _one_tissue(model.model, label)
        held = {name: value for name, value in model.held.items() if name in free.names}
        return Fixed(free, held) if held else free
    raise InputError(f"model {model.name} cannot be fitted to one tissue alone")


def _in_voxel(tissue: Tissue) -> tuple[Tissue, Tissue]:
    """Constants of grey and white matter, each with the M0 of its part of the voxel's blood."""
    if tissue.gm is None or tissue.wm is None:
        raise InputError("partial volume needs the fractions of grey and white matter, gm and wm")
    arterial_m0 = jnp.asarray(tissue.m0) / mean_partition_coefficient(tissue)
    return (
        pure_tissue(tissue, "GM", arterial_m0 * tissue.gm),
        pure_tissue(tissue, "WM", arterial_m0 * tissue.wm),
    )
