"""The signal network of a PINN: the difference signal as a function of time and position."""

import dataclasses
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.acquisition.bolus import (
    BolusKind,
    BolusSpline,
    fit_bolus,
    label_duration_at,
    require_within_range,
)
from asl_pinn.errors import InputError
from asl_pinn.estimators.neural.options import BolusChoice
from asl_pinn.estimators.neural.siren import Siren
from asl_pinn.problem import Problem


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TimeAxis:
    """Times that the signal network is asked for, and how the bolus changes over them.

    In time-encoded data every measurement has a sub-bolus of its own. Either the bolus duration is
    a function tau(t), and the signal one of t alone, or it is an input of the network beside t.

    Attributes
    ----------
    spline : BolusSpline or None
        tau(t), or None to take each bolus by itself.
    first_t, last_t : float
        Range of the times t of the measurements, readout delays left out [s].
    longest_t, longest_bolus : float
        Latest time at which any voxel is read, and the longest bolus [s].
    """

    spline: BolusSpline | None
    first_t: float
    last_t: float
    longest_t: float
    longest_bolus: float

    @property
    def n_inputs(self) -> int:
        """Inputs of the signal network beside the position: t, or t and tau."""
        return 2 if self.spline is None else 1

    @property
    def start(self) -> float:
        """Time that the network's time coordinate takes as -1 [s]."""
        return 0.0 if self.spline is None else self.first_t

    @property
    def length(self) -> float:
        """Time over which it goes from -1 to 1 [s]."""
        return self.longest_t - self.start


def make_time_axis(problem: Problem, bolus: BolusChoice) -> TimeAxis:
    """Take the times of a problem.

    Parameters
    ----------
    problem : Problem
        With the timing.
    bolus : {'auto', 'spline5', 'monotone', 'per_bolus'}
        How the bolus duration depends on time; 'auto' tries them in this order.

    Returns
    -------
    TimeAxis

    Raises
    ------
    InputError
        If the spline that was asked for does not suit the protocol.
    """
    t, label_duration, readout_delay = map(np.asarray, problem.timing)
    return TimeAxis(
        spline=_spline(t, label_duration, bolus),
        first_t=float(t.min()),
        last_t=float(t.max()),
        longest_t=float(t.max() + readout_delay.max()),
        longest_bolus=float(label_duration.max()),
    )


def bolus_at(
    axis: TimeAxis, t: Array, label_duration: Array, readout_delay: ArrayLike
) -> tuple[Array, Array]:
    """Bolus duration at given times, and its slope.

    Parameters
    ----------
    axis : TimeAxis
        With tau(t).
    t : Array, shape (K, B)
        Times since the start of the bolus [s].
    label_duration : Array, shape (K, B)
        Durations of the boluses where each is taken by itself [s].
    readout_delay : array_like, shape (B,)
        What the slice's readout adds to the times of the protocol [s]: tau(t) is a property of
        the labelling, and so of the times without it.

    Returns
    -------
    tau, slope : Array, shape (K, B)
        [s], and tau'(t) [s/s]; the slope is 0 where each bolus is taken by itself.
    """
    if axis.spline is None:
        return label_duration, jnp.zeros_like(t)
    return label_duration_at(axis.spline, t - readout_delay)


def signal(
    network: Siren,
    params: Any,
    t: Array,
    label_duration: Array,
    position: Array,
    axis: TimeAxis,
) -> Array:
    """Evaluate the signal network.

    Parameters
    ----------
    network : Siren
        Of the time axis' inputs, then the coordinates.
    params : pytree
        Its parameters, of one member.
    t : Array, shape (K, B)
        Times since the start of the bolus [s].
    label_duration : Array, shape (K, B)
        Bolus durations [s]; read only where each bolus is taken by itself.
    position : Array, shape (B, N)
        Coordinates.
    axis : TimeAxis
        Times.

    Returns
    -------
    Array, shape (K, B)
        Difference signal over the domain's signal unit; where each bolus is taken by itself,
        it is 0 at t = 0.
    """
    values: Any = network.apply(params, _inputs(t, label_duration, position, axis))
    return _anchored(values[..., 0].reshape(t.shape), t, axis)


def signal_and_slope(
    network: Siren,
    params: Any,
    t: Array,
    slope_t: Array,
    label_duration: Array,
    position: Array,
    axis: TimeAxis,
) -> tuple[Array, Array]:
    """Evaluate the signal network at some times and its time derivative at others.

    Parameters
    ----------
    network, params
        As in `signal`.
    t, slope_t : Array, shape (K, B)
        Times since the start of the bolus [s].
    label_duration, position, axis
        As in `signal`.

    Returns
    -------
    value, slope : Array, shape (K, B)
        In the domain's signal unit, and per second. With tau(t), t is the only input that
        changes with time, so that the slope is the total derivative dS/dt.
    """
    both = [_inputs(at, label_duration, position, axis) for at in (t, slope_t)]
    direction = jnp.zeros_like(both[1]).at[:, 0].set(2.0 / axis.length)
    outputs: Any = network.apply(params, jnp.concatenate(both), direction, method=Siren.with_slopes)
    values, slopes = outputs
    value, there = (part.reshape(t.shape) for part in jnp.split(values[:, 0], 2))

    def anchored(output: Array, t: Array) -> Array:
        return _anchored(output, t, axis)

    _, slope = jax.jvp(
        anchored, (there, slope_t), (slopes[:, 0].reshape(t.shape), jnp.ones_like(t))
    )
    return anchored(value, t), slope


def _inputs(t: Array, label_duration: Array, position: Array, axis: TimeAxis) -> Array:
    """Inputs of the signal network, shape (K * B, N + 1), or N + 2 for boluses by themselves."""
    times = [2.0 * (t - axis.start) / axis.length - 1.0]
    if axis.spline is None:
        times.append(2.0 * label_duration / axis.longest_bolus - 1.0)
    where = jnp.broadcast_to(position, (*t.shape, position.shape[-1]))
    inputs = jnp.concatenate([jnp.stack(times, axis=-1), where], axis=-1)
    return inputs.reshape(-1, inputs.shape[-1])


def _anchored(output: Array, t: Array, axis: TimeAxis) -> Array:
    """The network's output, or what vanishes at t = 0 where each bolus is taken by itself.

    There the data say nothing of the signal before the shortest delay, and a slope alone leaves a
    constant of integration open: nothing has arrived when labelling begins.
    """
    return output if axis.spline is not None else output * t / axis.longest_t


def _spline(t: np.ndarray, label_duration: np.ndarray, bolus: BolusChoice) -> BolusSpline | None:
    if bolus == "per_bolus":
        return None
    if bolus == "auto":
        for kind in get_args(BolusKind):
            try:
                return _spline(t, label_duration, kind)
            except InputError:
                continue
        return None
    spline = fit_bolus(t, label_duration, bolus)
    require_within_range(spline, t, label_duration)
    return spline
