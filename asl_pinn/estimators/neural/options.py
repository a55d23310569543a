"""Options of the neural estimators, apart from the networks, which take long to import."""

import dataclasses
from typing import Literal

from asl_pinn.estimators.covariates import CovariatesName
from asl_pinn.estimators.options import ByParameter, by_preset, fraction_option, option

BolusChoice = Literal["auto", "spline5", "monotone", "per_bolus"]


@dataclasses.dataclass(frozen=True)
class NeuralFieldOptions:
    """Options of `neural-field`."""

    steps: int = option(1200, "Steps of the optimiser in all.", most=10_000_000)
    epochs: int = option(0, "Passes over the data; sets the number of steps where it is positive.")
    batch_size: int = option(512, "Voxels at each step; 0 for all.")
    learning_rate: float = option(1e-3, "Adam's learning rate.")
    members: int = option(
        8, "Members of the ensemble, trained side by side and averaged.", most=256
    )
    held_out: float = option(
        0.125,
        "Fraction of the data that each member does not see, and by which the best step is chosen; "
        "0 to keep the last step.",
    )
    patience: float = option(2.0, "How many times as long as to the best step a training goes on.")
    f_scale: float = option(3.0, "Misfit, in noise SDs, where soft-L1 turns linear.")
    deviations: bool = option(
        True,
        "Let single voxels deviate from the networks, as much as the data of all voxels show.",
    )
    width: int = option(64, "Neurons in a layer of each parameter's network.", most=4_096)
    depth: int = option(3, "Sine layers of each parameter's network.", most=64)
    covariates: CovariatesName = option(
        "tissue",
        "Let the parameters that follow tissue, as CBF does, be functions of M0 and T1, too, or "
        "of the position alone.",
    )
    omega: ByParameter = option(
        ByParameter.of(8.0, cbf=16.0),
        "Spatial frequency of the first layer of each parameter's network [rad per "
        "--coordinate_mm].",
    )
    tissue_omega: float = option(
        1.0, "Frequency of the first layer in the covariates [rad per SD of each]."
    )
    hidden_omega: float = option(1.0, "Frequency factor of the sine layers after the first.")
    output_scale: ByParameter = option(
        ByParameter.of(0.5, cbf=1.0),
        "Change of a parameter's logarithm for one unit of its network's output, at most the SD of "
        "its prior.",
    )
    coordinate_mm: float = option(120.0, "Length that a network's coordinates take as one [mm].")
    spatial_dims: int = option(2, "2 for networks for each slice, 3 for ones over the volume.")
    slices_at_once: int = option(8, "Slices trained side by side; bounds memory.", most=1_024)
    report_every: int = option(50, "Steps between two updates of the progress bar.")
    checkpoint_every: int = option(200, "Steps between two checkpoints, where they are kept.")
    min_fraction: float = fraction_option()

    @property
    def n_folds(self) -> int:
        """Number of folds of the data, one of which a member does not see."""
        return round(1.0 / self.held_out) if self.held_out > 0.0 else 1


@dataclasses.dataclass(frozen=True)
class PinnOptions:
    """Options of `pinn`; those of default None take the value of the preset."""

    preset: Literal["quick", "paper"] = option(
        "quick",
        "Defaults of the networks: 'paper' as published, 'quick' smaller ones for a first look.",
    )
    steps: int = by_preset(
        "Steps of the optimiser in all.", quick=3000, paper=30000, most=10_000_000
    )
    epochs: int = option(0, "Passes over the data; sets the number of steps where it is positive.")
    signal_steps: int = by_preset(
        "First steps, in which the signal network fits the data without physics.",
        quick=1000,
        paper=10000,
        most=10_000_000,
    )
    physics_ramp: int = option(
        0, "Steps after --signal_steps over which the physics gains its full weight."
    )
    batch_size: int = by_preset("Voxels at each step; 0 for all.", quick=1024, paper=150)
    batch_delays: Literal["all", "one"] = option(
        "one", "Take voxels in turn with all of their delays, or draw voxels with one delay each."
    )
    learning_rate: float = by_preset("Adam's learning rate.", quick=1e-3, paper=1e-4)
    members: int = option(
        1, "Members of the ensemble, trained side by side and averaged.", most=256
    )
    signal_weight: float = option(
        1.0,
        "Weight of the squared misfit between the signal network and the data, in units of the "
        "largest mean difference.",
    )
    physics_weight: float = option(
        0.5,
        "Weight of the squared misfit between the slopes of the signal network and of the model's "
        "curve, in the same unit per second.",
    )
    bolus: BolusChoice = option(
        "auto",
        "Bolus duration over time: a quintic spline, a monotone cubic, or each bolus by itself; "
        "auto takes the first of these that suits the protocol.",
    )
    collocation: Literal["data", "random"] = option(
        "random",
        "Times at which the physics must hold: those of the data, or drawn anew at each step.",
    )
    slope_window: float = option(
        0.5,
        "Window over which the slope of the model's curve is averaged, so that it changes smoothly "
        "with ATT; 0 for the derivative itself, which jumps [s].",
    )
    ode_width: int = by_preset(
        "Neurons in a layer of the network of the parameters.", quick=64, paper=128, most=4_096
    )
    ode_depth: int = by_preset(
        "Sine layers of the network of the parameters.", quick=3, paper=4, most=64
    )
    ode_omega: float = by_preset(
        "Spatial frequency of the first layer of the network of the parameters [rad per "
        "--coordinate_mm].",
        quick=16.0,
        paper=10.0,
    )
    output_scale: ByParameter = option(
        ByParameter.of(0.1, cbf=0.2, abv=1.0),
        "Change of a parameter's logarithm for one unit of its network's output, at most the SD of "
        "its prior.",
    )
    signal_width: int = by_preset(
        "Neurons in a layer of the signal network.", quick=64, paper=256, most=4_096
    )
    signal_depth: int = by_preset("Sine layers of the signal network.", quick=3, paper=7, most=64)
    signal_omega: float = by_preset(
        "Spatial frequency of the signal network's first layer [rad per --coordinate_mm].",
        quick=16.0,
        paper=10.0,
    )
    time_omega: float = option(
        10.0, "Frequency of the signal network's first layer in time [rad per half the time range]."
    )
    hidden_omega: float = option(1.0, "Frequency factor of the sine layers after the first.")
    coordinate_mm: float = option(120.0, "Length that a network's coordinates take as one [mm].")
    spatial_dims: int = option(2, "2 for networks for each slice, 3 for ones over the volume.")
    slices_at_once: int = option(8, "Slices trained side by side; bounds memory.", most=1_024)
    report_every: int = option(200, "Steps between two updates of the progress bar.")
    checkpoint_every: int = option(1000, "Steps between two checkpoints, where they are kept.")
    min_fraction: float = fraction_option()
