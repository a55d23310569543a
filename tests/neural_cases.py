"""A disc of brain, and the networks that the tests of both network methods train on it."""

import dataclasses

import numpy as np

from asl_pinn import models
from asl_pinn.acquisition.protocol import Protocol, label_durations, time_encoded_protocol
from asl_pinn.data import AslData, Maps, Phantom
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.neural import NEURAL_FIELD, PINN, NeuralFieldOptions, PinnOptions
from asl_pinn.models.base import KineticModel
from asl_pinn.problem import Problem, make_problem
from asl_pinn.simulation.acquire import simulate

PROTOCOL = time_encoded_protocol(label_durations("t1_adjusted", 7, 4.0), 0.1)
UNEVEN = time_encoded_protocol([1.8, 0.8, 0.4, 0.15, 0.15, 0.1, 0.1], 0.17)
BUXTON = models.get("buxton")
WITH_T1 = models.get("buxton+t1")
ARTERIAL = models.get("buxton+arterial")

FIELD = NeuralFieldOptions(
    members=2,
    width=8,
    depth=2,
    steps=30,
    deviations=False,
    report_every=10,
    checkpoint_every=10,
)
SMALL_PINN = PinnOptions(
    members=2,
    ode_width=8,
    ode_depth=2,
    signal_width=8,
    signal_depth=2,
    steps=40,
    signal_steps=20,
    batch_size=20,
    report_every=10,
    checkpoint_every=10,
)
BOTH = [FIELD, SMALL_PINN]
_METHODS = {
    NeuralFieldOptions: ("neural-field", NEURAL_FIELD),
    PinnOptions: ("pinn", PINN),
}


def phantom(n_slices: int = 1) -> Phantom:
    """A disc whose maps vary slowly."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 20)] * 2, np.arange(n_slices), indexing="ij")
    mask = x**2 + y**2 < 0.8
    return Phantom(
        {
            "cbf": np.where(mask, 50.0 + 15.0 * np.sin(2.0 * x + z) * np.cos(1.5 * y), 0.0),
            "att": np.where(mask, 1.1 + 0.3 * np.cos(2.0 * y - x + z), 0.0),
        },
        m0=np.where(mask, 1000.0 + 100.0 * x, 0.0),
        t1_tissue=np.full(mask.shape, 1.33),
        mask=mask,
        grey_matter=mask,
        affine=np.diag([6.0, 6.0, 6.0, 1.0]),
    )


def noisy(n_slices: int = 1, protocol: Protocol = PROTOCOL) -> AslData:
    """With a voxel in the mask that cannot be fitted."""
    data = simulate(phantom(n_slices), protocol, tsnr=2.0, seed=0)
    data.delta_m[10, 10] = np.nan
    return data


def problem(data: AslData, model: KineticModel = BUXTON, dtype: str = "float32") -> Problem:
    """Its voxels as arrays."""
    return make_problem(data, model, dtype)


def maps(
    data: AslData,
    options: NeuralFieldOptions | PinnOptions,
    model: KineticModel = BUXTON,
    **context: object,
) -> Maps:
    """Result of the method that the options belong to."""
    method, estimator = _METHODS[type(options)]
    return estimate_maps(data, method, estimator, model, options, RunContext(**context))


def with_arteries(truth: Phantom) -> Phantom:
    """Arteries in a few single voxels, whose blood arrives before that of tissue."""
    abv = np.zeros(truth.mask.shape)
    abv[4::5, 4::4] = 0.02
    present = truth.mask & (abv > 0.0)
    values = {
        **truth.values,
        "abv": np.where(present, abv, 0.0),
        "abat": np.where(present, truth.att - 0.4, 0.0),
    }
    return dataclasses.replace(truth, values=values)
