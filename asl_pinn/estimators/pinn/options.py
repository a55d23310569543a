"""Options of the physics-informed network and its two presets."""

import dataclasses
from typing import Literal

from asl_pinn.errors import InputError
from asl_pinn.options import by_preset, option


@dataclasses.dataclass(frozen=True)
class PinnOptions:
    """Options of `pinn`; those of default None take the value of the preset."""

    preset: Literal["fast", "paper"] = option(
        "fast",
        "Defaults of the network: 'paper' as published, 'fast' better maps for far less work.",
    )
    steps: int = by_preset("Steps of the optimiser in all.", fast=1200, paper=30000)
    epochs: int = option(0, "Passes over the data; sets the number of steps where it is positive.")
    signal_steps: int = by_preset(
        "First steps, in which the signal network fits the data without physics.",
        fast=0,
        paper=10000,
    )
    physics_ramp: int = option(
        0, "Steps after --signal_steps over which the physics gains its full weight."
    )
    batch_size: int = by_preset("Voxels at each step; 0 for all.", fast=512, paper=150)
    batch_delays: Literal["all", "one"] = by_preset(
        "Take voxels in turn with all of their delays, or draw voxels with one delay each.",
        fast="all",
        paper="one",
    )
    learning_rate: float = by_preset("Adam's learning rate.", fast=1e-3, paper=1e-4)
    members: int = by_preset(
        "Networks trained side by side, whose maps are averaged.", fast=8, paper=1
    )
    held_out: float = by_preset(
        "Share of the data that each member does not see, and by which the best step is chosen; "
        "0 to keep the last step.",
        fast=0.125,
        paper=0.0,
    )
    patience: float = option(2.0, "How many times as long as to the best step a training goes on.")
    data_weight: float = by_preset(
        "Weight of the squared misfit, in noise SDs, between Buxton's curve and the data.",
        fast=1.0,
        paper=0.0,
    )
    signal_weight: float = by_preset(
        "Weight of the squared misfit between the signal network and the data, in units of the "
        "largest mean difference.",
        fast=0.0,
        paper=1.0,
    )
    physics_weight: float = by_preset(
        "Weight of the squared misfit between the slopes of the signal network and of Buxton's "
        "curve, in the same unit per second.",
        fast=0.0,
        paper=0.5,
    )
    bolus: Literal["auto", "spline5", "monotone", "per_bolus"] = option(
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
        "Window over which the slope of Buxton's curve is averaged, so that it changes smoothly "
        "with ATT; 0 for the derivative itself, which jumps [s].",
    )
    separate_networks: bool = by_preset(
        "Whether CBF and ATT have a network each, or share one.", fast=True, paper=False
    )
    network_width: int = by_preset(
        "Neurons in a layer of the network(s) of CBF and ATT.", fast=64, paper=128
    )
    network_depth: int = by_preset("Sine layers of the network(s) of CBF and ATT.", fast=3, paper=4)
    signal_width: int = by_preset("Neurons in a layer of the signal network.", fast=64, paper=256)
    signal_depth: int = by_preset("Sine layers of the signal network.", fast=3, paper=7)
    guide: Literal["tissue", "none"] = by_preset(
        "Let CBF follow M0 and T1, as far as the data say so, or not at all.",
        fast="tissue",
        paper="none",
    )
    cbf_omega: float = by_preset(
        "Spatial frequency of the first layer for CBF, or for both maps where they share it "
        "[rad per --coordinate_mm].",
        fast=16.0,
        paper=10.0,
    )
    tissue_omega: float = option(
        1.0, "Frequency of the first layer for CBF in the tissue maps [rad per SD of each]."
    )
    att_omega: float = option(
        8.0,
        "Spatial frequency of the first layer for ATT, where it has its own network "
        "[rad per --coordinate_mm].",
    )
    signal_omega: float = option(
        10.0, "Spatial frequency of the signal network's first layer [rad per --coordinate_mm]."
    )
    time_omega: float = option(
        10.0, "Frequency of the signal network's first layer in time [rad per half the time range]."
    )
    hidden_omega: float = option(1.0, "Frequency factor of the sine layers after the first.")
    cbf_spread: float = by_preset(
        "Logarithm of CBF for one unit of its network's output.", fast=1.0, paper=0.2
    )
    att_spread: float = by_preset(
        "Logarithm of ATT for one unit of its network's output.", fast=0.5, paper=0.1
    )
    coordinate_mm: float = option(120.0, "Length that a network's coordinates take as one [mm].")
    spatial_dims: int = option(2, "2 for a network for each slice, 3 for one over the volume.")
    slices_at_once: int = option(8, "Slices trained side by side; bounds memory.")
    report_every: int = by_preset(
        "Steps between two updates of the progress bar.", fast=50, paper=200
    )
    checkpoint_every: int = by_preset(
        "Steps between two checkpoints, where they are kept.", fast=200, paper=1000
    )

    @property
    def n_folds(self) -> int:
        """Number of shares that the data are dealt into, one of which a member does not see."""
        return round(1.0 / self.held_out) if self.held_out > 0.0 else 1


def check(options: PinnOptions) -> None:
    """Refuse resolved options that no training can work with.

    Parameters
    ----------
    options : PinnOptions
        From `asl_pinn.options.resolve`.

    Raises
    ------
    InputError
        If a number is out of range or no loss has a weight.
    """
    least = {
        "steps": 1,
        "epochs": 0,
        "signal_steps": 0,
        "physics_ramp": 0,
        "batch_size": 0,
        "members": 1,
        "network_width": 1,
        "network_depth": 1,
        "signal_width": 1,
        "signal_depth": 1,
        "slices_at_once": 1,
        "report_every": 1,
        "checkpoint_every": 1,
        "data_weight": 0.0,
        "signal_weight": 0.0,
        "physics_weight": 0.0,
        "held_out": 0.0,
        "patience": 1.0,
        "slope_window": 0.0,
    }
    for name, smallest in least.items():
        if not getattr(options, name) >= smallest:
            raise InputError(
                f"--{name} must be at least {smallest}, it is {getattr(options, name)}"
            )
    for name in (
        "learning_rate",
        "cbf_omega",
        "tissue_omega",
        "att_omega",
        "signal_omega",
        "time_omega",
        "hidden_omega",
        "cbf_spread",
        "att_spread",
        "coordinate_mm",
    ):
        if not getattr(options, name) > 0.0:
            raise InputError(f"--{name} must be positive, it is {getattr(options, name)}")
    if options.spatial_dims not in (2, 3):
        raise InputError(f"--spatial_dims must be 2 or 3, it is {options.spatial_dims}")
    if options.held_out > 0.5:
        raise InputError(f"--held_out must be at most 0.5, it is {options.held_out}")
    if options.guide == "tissue" and not options.separate_networks:
        raise InputError("--guide=tissue needs --separate_networks: it is for CBF alone")
    if options.data_weight == 0.0 and not options.signal_weight * options.physics_weight > 0.0:
        raise InputError(
            "nothing ties CBF and ATT to the data: give --data_weight, or both --signal_weight "
            "and --physics_weight"
        )


def compiled(options: PinnOptions) -> PinnOptions:
    """Resolved options without those that no compiled program depends on.

    Runs that differ in these alone share their compilation.

    Parameters
    ----------
    options : PinnOptions
        Resolved.

    Returns
    -------
    PinnOptions
        Hashable, to be static.
    """
    return dataclasses.replace(
        options,
        steps=0,
        epochs=0,
        patience=0.0,
        bolus="auto",
        coordinate_mm=1.0,
        spatial_dims=2,
        slices_at_once=1,
        report_every=0,
        checkpoint_every=0,
    )


def uses_signal_network(options: PinnOptions) -> bool:
    """Whether resolved options need the signal network at all.

    Parameters
    ----------
    options : PinnOptions
        Resolved.

    Returns
    -------
    bool
        False where both of its weights are 0.
    """
    return options.signal_weight > 0.0 or options.physics_weight > 0.0
