"""The networks of CBF, ATT and the signal, in physical units."""

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.bolus import BolusKind, BolusSpline, fit_bolus, require_within_range
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.estimators.pinn.options import PinnOptions, uses_signal_network
from asl_pinn.estimators.pinn.scene import Scene
from asl_pinn.networks import Siren
from asl_pinn.protocol import Protocol

Params = dict[str, Any]
BolusChoice = Literal["auto", "spline5", "monotone", "per_bolus"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Setting:
    """What all scenes of a run share.

    Attributes
    ----------
    protocol : Protocol
        Timing and constants.
    spline : BolusSpline or None
        The bolus duration over time, or None to take each bolus by itself.
    first_t, last_t : float
        Range of the times t of the protocol [s].
    longest_t, longest_bolus : float
        Latest time at which any voxel is read, and the longest bolus [s].
    """

    protocol: Protocol
    spline: BolusSpline | None
    first_t: float
    last_t: float
    longest_t: float
    longest_bolus: float


def make_setting(data: AslData, bolus: BolusChoice) -> Setting:
    """Collect what all scenes share.

    Parameters
    ----------
    data : AslData
        Volumes and protocol.
    bolus : {'auto', 'spline5', 'monotone', 'per_bolus'}
        How the bolus duration depends on time; 'auto' tries them in this order.

    Returns
    -------
    Setting

    Raises
    ------
    InputError
        If the spline that was asked for does not suit the protocol.
    """
    t, label_duration = data.protocol.t, data.protocol.label_duration
    readout_delay = data.readout_delay[data.valid]
    return Setting(
        protocol=data.protocol,
        spline=_spline(t, label_duration, bolus),
        first_t=float(t.min()),
        last_t=float(t.max()),
        longest_t=float(t.max() + readout_delay.max()),
        longest_bolus=float(label_duration.max()),
    )


def init_params(options: PinnOptions, key: Array, scene: Scene, setting: Setting) -> Params:
    """Draw the parameters of one member's networks.

    Parameters
    ----------
    options : PinnOptions
        Resolved.
    key : Array, shape ()
        Randomness.
    scene : Scene
        For the number of coordinates and the type.
    setting : Setting
        For the signal network's inputs.

    Returns
    -------
    dict of str to parameters
    """
    n_coordinates, dtype = scene.position.shape[-1], scene.position.dtype
    n_features = scene.features.shape[-1]
    networks = _perfusion_networks(options, n_coordinates, n_features)
    inputs = dict.fromkeys(networks, n_coordinates)
    if options.separate_networks:
        inputs["cbf"] += n_features
    if uses_signal_network(options):
        networks["signal"] = _signal_network(options, n_coordinates, setting)
        inputs["signal"] = np.size(networks["signal"].first_omega)
    keys = jax.random.split(key, len(networks))
    return {
        name: network.init(key, jnp.zeros((1, inputs[name]), dtype))
        for key, (name, network) in zip(keys, networks.items(), strict=True)
    }


def perfusion(
    options: PinnOptions,
    params: Params,
    position: Array | FloatArray,
    features: Array | FloatArray,
    scene: Scene,
) -> tuple[Array, Array]:
    """Evaluate CBF and ATT.

    The networks give the logarithm of the ratio to the constants that match the mean curve:
    the maps are positive, and of the right size before the first step.

    Parameters
    ----------
    options : PinnOptions
        Resolved.
    params : Params
        Of one member.
    position : Array, shape (B, N)
        Coordinates.
    features : Array, shape (B, F)
        Tissue maps, for CBF alone.
    scene : Scene
        For the constants.

    Returns
    -------
    cbf, att : Array, shape (B,)
        [mL/100g/min] and [s].
    """
    networks = _perfusion_networks(options, position.shape[-1], features.shape[-1])
    inputs = dict.fromkeys(networks, position)
    if options.separate_networks:
        inputs["cbf"] = jnp.concatenate([position, features], axis=-1)
    outputs: list[Any] = [
        network.apply(params[name], inputs[name]) for name, network in networks.items()
    ]
    logarithm = jnp.concatenate(outputs, axis=-1)
    cbf = jnp.exp(options.cbf_spread * logarithm[:, 0]) * scene.cbf
    return cbf, jnp.exp(options.att_spread * logarithm[:, 1]) * scene.att


def signal(
    options: PinnOptions,
    params: Params,
    t: Array,
    label_duration: Array,
    position: Array,
    setting: Setting,
) -> Array:
    """Evaluate the signal network.

    Parameters
    ----------
    options : PinnOptions
        Resolved.
    params : Params
        Of one member.
    t : Array, shape (B, K)
        Times since the start of the bolus [s].
    label_duration : Array, shape (B, K)
        Bolus durations [s]; read only where each bolus is taken by itself.
    position : Array, shape (B, N)
        Coordinates.
    setting : Setting
        What all scenes share.

    Returns
    -------
    Array, shape (B, K)
        Difference signal over the scene's signal unit; where each bolus is taken by itself,
        it is 0 at t = 0.
    """
    inputs = _signal_inputs(t, label_duration, position, setting)
    values: Any = _signal_network(options, position.shape[-1], setting).apply(
        params["signal"], inputs
    )
    return _anchored(values[..., 0].reshape(t.shape), t, setting)


def signal_and_slope(
    options: PinnOptions,
    params: Params,
    t: Array,
    slope_t: Array,
    label_duration: Array,
    position: Array,
    setting: Setting,
) -> tuple[Array, Array]:
    """Evaluate the signal network at some times and its time derivative at others.

    Parameters
    ----------
    options, params
        As in `signal`.
    t, slope_t : Array, shape (B, K)
        Times since the start of the bolus [s].
    label_duration, position, setting
        As in `signal`.

    Returns
    -------
    value, slope : Array, shape (B, K)
        In the scene's signal unit, and per second.
    """
    both = [_signal_inputs(at, label_duration, position, setting) for at in (t, slope_t)]
    direction = jnp.zeros_like(both[1]).at[:, 0].set(2.0 / _time_range(setting))
    outputs: Any = _signal_network(options, position.shape[-1], setting).apply(
        params["signal"], jnp.concatenate(both), direction, method=Siren.with_slopes
    )
    values, slopes = outputs
    value, there = (part.reshape(t.shape) for part in jnp.split(values[:, 0], 2))

    def anchored(output: Array, t: Array) -> Array:
        return _anchored(output, t, setting)

    _, slope = jax.jvp(
        anchored, (there, slope_t), (slopes[:, 0].reshape(t.shape), jnp.ones_like(t))
    )
    return anchored(value, t), slope


def _signal_inputs(t: Array, label_duration: Array, position: Array, setting: Setting) -> Array:
    """Inputs of the signal network, shape (B * K, N + 1), or N + 2 for boluses by themselves."""
    times = [2.0 * (t - _first_t(setting)) / _time_range(setting) - 1.0]
    if setting.spline is None:
        times.append(2.0 * label_duration / setting.longest_bolus - 1.0)
    where = jnp.broadcast_to(position[:, None, :], (*t.shape, position.shape[-1]))
    inputs = jnp.concatenate([jnp.stack(times, axis=-1), where], axis=-1)
    return inputs.reshape(-1, inputs.shape[-1])


def _anchored(output: Array, t: Array, setting: Setting) -> Array:
    """The network's output, or what vanishes at t = 0 where each bolus is taken by itself."""
    return output if setting.spline is not None else output * t / setting.longest_t


def _first_t(setting: Setting) -> float:
    return setting.first_t if setting.spline is not None else 0.0


def _time_range(setting: Setting) -> float:
    return setting.longest_t - _first_t(setting)


def _spline(
    t: np.ndarray,
    label_duration: np.ndarray,
    bolus: BolusChoice,
) -> BolusSpline | None:
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


def _perfusion_networks(
    options: PinnOptions, n_coordinates: int, n_features: int
) -> dict[str, Siren]:
    width, depth, hidden = options.network_width, options.network_depth, options.hidden_omega
    if options.separate_networks:
        omega = (options.cbf_omega,) * n_coordinates + (options.tissue_omega,) * n_features
        return {
            "cbf": Siren(width, depth, 1, omega, hidden),
            "att": Siren(width, depth, 1, options.att_omega, hidden),
        }
    return {"perfusion": Siren(width, depth, 2, options.cbf_omega, hidden)}


def _signal_network(options: PinnOptions, n_coordinates: int, setting: Setting) -> Siren:
    n_times = 1 if setting.spline is not None else 2
    omega = (options.time_omega,) * n_times + (options.signal_omega,) * n_coordinates
    return Siren(options.signal_width, options.signal_depth, 1, omega, options.hidden_omega)
