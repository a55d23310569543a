"""Networks of the position: a neural field fitted to the data, and the physics-informed network."""

from asl_pinn.estimators.base import DeferredFit, Estimator
from asl_pinn.estimators.neural.options import NeuralFieldOptions, PinnOptions

__all__ = ["NEURAL_FIELD", "PINN", "NeuralFieldOptions", "PinnOptions"]

_SITZMANN = (
    "Sitzmann V, Martel JNP, Bergman AW, Lindell DB, Wetzstein G. Implicit neural "
    "representations with periodic activation functions. NeurIPS 2020."
)

NEURAL_FIELD = Estimator(
    DeferredFit("asl_pinn.estimators.neural.field:fit"),
    NeuralFieldOptions,
    "the parameters as neural networks of the position, fitted through the kinetic model",
    "The parameters were represented by networks with sine activations [2] of the position, one "
    "network for each parameter{covariates}, fitted through the kinetic model to the difference "
    "images (soft-L1 loss beyond {f_scale:g} standard deviations of the noise; Adam, at most "
    "{steps} steps). The maps are the mean of the middle half of {members} such fits{held_out}"
    "{deviations}.",
    (_SITZMANN,),
    words={
        "deviations": lambda allowed: (
            ", from which single voxels deviate by as much as the evidence of all voxels says"
            if allowed
            else ""
        ),
        "covariates": lambda name: {
            "tissue": " (that of CBF of M0 and T1 of tissue as well)",
            "none": "",
        }[name],
        "held_out": lambda fraction: (
            f", each stopped where it best predicted the {100.0 * fraction:.3g} % of the data that "
            "it did not see"
            if fraction > 0.0
            else ""
        ),
    },
    weak_priors=False,
)

PINN = Estimator(
    DeferredFit("asl_pinn.estimators.neural.pinn:fit"),
    PinnOptions,
    "physics-informed network: the parameters from the time derivative of a signal network",
    "A physics-informed neural network [2, 3] was trained ({steps} steps of Adam): a network with "
    "sine activations [4] of time and position was fitted to the difference images, and a second "
    "one of the position, which gives the parameters, was fitted so that the {slope_window} "
    "of the kinetic model equals that of the first network. The maps come from the second "
    "network alone.",
    (
        "Raissi M, Perdikaris P, Karniadakis GE. Physics-informed neural networks: a deep learning "
        "framework for solving forward and inverse problems involving nonlinear partial "
        "differential equations. J Comput Phys 2019;378:686-707.",
        "Giupponi, Da Villa, Veronese, Castellaro. Physics-informed neural network for quantifying "
        "time-encoded arterial spin labeling: a simulation study. Medical Imaging with Deep "
        "Learning (MIDL) 2025.",
        _SITZMANN,
    ),
    words={
        "slope_window": lambda seconds: (
            f"time derivative (its mean over {seconds:g} s)" if seconds > 0.0 else "time derivative"
        ),
    },
    weak_priors=False,
)
