"""Which model fits an acquisition, and what the choice between several rests on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from asl_pinn.acquisition.protocol import Labeling, Protocol
from asl_pinn.errors import InputError
from asl_pinn.models.base import Blood, KineticModel, Tissue

AUTO = "auto"
"""In place of a model's name: the data choose among those of `candidates`."""

_ADDED = ("arterial", "arterial+dispersion-gaussian")

_TISSUE_MODELS: dict[Labeling, str] = {"continuous": "buxton", "pulsed": "pulsed"}


def default_model(protocol: Protocol) -> str:
    """Model of tissue that describes an acquisition, where the user has not chosen one.

    Parameters
    ----------
    protocol : Protocol
        Its labelling decides.

    Returns
    -------
    str
        As `asl_pinn.models.get` takes it: 'pulsed' for PASL, 'buxton' for CASL and pCASL.

    Examples
    --------
    >>> import numpy as np
    >>> default_model(Protocol(np.array([0.7]), np.array([1.1]), labeling="pulsed"))
    'pulsed'
    """
    return _TISSUE_MODELS[protocol.labeling]


def candidates(protocol: Protocol | None = None) -> tuple[str, ...]:
    """Models among which the data of an acquisition choose, each with one part more.

    Parameters
    ----------
    protocol : Protocol, optional
        Its labelling decides; continuous labelling without it.

    Returns
    -------
    tuple of str
        As `asl_pinn.models.get` takes them, tissue alone first.

    Examples
    --------
    >>> candidates()
    ('buxton', 'buxton+arterial', 'buxton+arterial+dispersion-gaussian')
    """
    tissue = _TISSUE_MODELS["continuous"] if protocol is None else default_model(protocol)
    return (tissue, *(f"{tissue}+{added}" for added in _ADDED))


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What the data say of a model, beside the first one: that of tissue alone.

    Attributes
    ----------
    model : str
        Its name.
    evidence : float
        Logarithm of the Bayes factor that favours it over the first one, by voxel: the population
        of the voxels settled, their own parameters integrated out, what was settled paid for.
    prediction : float or None
        How much larger the logarithm of the probability of the delays is, by voxel, each
        predicted from the others; None where the evidence had spoken against the model.
    fraction : float
        Of the voxels that have the sparse component; 0 for a model without.
    """

    model: str
    evidence: float
    prediction: float | None
    fraction: float


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """Which model the data chose, and why.

    Attributes
    ----------
    model : str
        Its name.
    reason : str
        End of a sentence that begins with 'it was chosen, as'.
    n_voxels : int
        Of the sample that was asked; 0 where there was no choice.
    compared : tuple of Candidate
        Models that were compared; empty where there was no choice.
    """

    model: str
    reason: str
    n_voxels: int = 0
    compared: tuple[Candidate, ...] = ()

    @property
    def sentence(self) -> str:
        """One line for people."""
        return f"model {self.model} was chosen, as {self.reason}"

    def stated(self) -> dict[str, Any]:
        """As a key of a sidecar has it; `restored` takes it back."""
        return {
            "Reason": self.reason,
            "Voxels": self.n_voxels,
            "Compared": {
                each.model: {
                    "LogEvidencePerVoxel": each.evidence,
                    "LogPredictionPerVoxel": each.prediction,
                    "Fraction": each.fraction,
                }
                for each in self.compared
            },
        }

    @classmethod
    def restored(cls, model: str, stated: Mapping[str, Any]) -> "ModelChoice":
        """The choice that a sidecar states.

        Parameters
        ----------
        model : str
            That was chosen.
        stated : mapping
            From `stated`; KeyError, TypeError or ValueError where it is something else.

        Returns
        -------
        ModelChoice
        """

        def candidate(name: str, of: Mapping[str, Any]) -> Candidate:
            predicted = of["LogPredictionPerVoxel"]
            return Candidate(
                name,
                float(of["LogEvidencePerVoxel"]),
                None if predicted is None else float(predicted),
                float(of["Fraction"]),
            )

        compared = (candidate(*item) for item in stated["Compared"].items())
        return cls(model, str(stated["Reason"]), int(stated["Voxels"]), tuple(compared))


def check_labeling(model: KineticModel, protocol: Protocol) -> None:
    """Refuse to describe an acquisition by a model of another kind of labelling.

    Parameters
    ----------
    model : KineticModel
        Is of pulsed labelling where its `constants` state a `bolus_decay`.
    protocol : Protocol
        Of the acquisition.

    Raises
    ------
    InputError
        If the labelling is pulsed and the model's continuous, or the reverse: of a pulsed bolus,
        what arrives later has decayed for longer.
    """
    typical = [p.typical for p in model.parameters]
    blood = model.constants(typical, Tissue(), Blood())[1]
    described: Labeling = "continuous" if blood.bolus_decay is None else "pulsed"
    if described == protocol.labeling:
        return
    mistaken, right = _TISSUE_MODELS[described], default_model(protocol)
    parts = model.name.split("+")
    named = "+".join(right if part == mistaken else part for part in parts)
    raise InputError(
        f"model {model.name} describes {described} labelling, and the data are of "
        f"{protocol.labeling} labelling; use model {named if mistaken in parts else right}"
    )
