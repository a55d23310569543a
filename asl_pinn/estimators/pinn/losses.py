"""The losses that tie the networks to the data and to Buxton's curve."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn import kinetics
from asl_pinn.bolus import label_duration_at
from asl_pinn.estimators.pinn.models import (
    Params,
    Setting,
    perfusion,
    signal,
    signal_and_slope,
)
from asl_pinn.estimators.pinn.options import PinnOptions, uses_signal_network
from asl_pinn.estimators.pinn.scene import Scene
from asl_pinn.training import Metrics
from asl_pinn.voxels import Voxels, predict


class Batch(NamedTuple):
    """B voxels with K delays each.

    `seen` and `unseen` weigh the squares for one member; `share` is uniform between 0 and 1.
    """

    position: Array
    features: Array
    voxels: Voxels
    delay: Array
    delta_m: Array
    seen: Array
    unseen: Array
    share: Array


class Learned(NamedTuple):
    """What the signal network says of a batch; all of shape (B, K).

    `value` is the signal at the times of the data, in the scene's unit, and `slope` its time
    derivative at `slope_t` [per second], for boluses of `label_duration` [s].
    """

    value: Array
    slope: Array
    slope_t: Array
    label_duration: Array


def loss(
    options: PinnOptions, params: Params, key: Array, step: Array, scene: Scene, setting: Setting
) -> tuple[Array, Metrics]:
    """Sum of the members' losses; their gradients do not mix.

    Parameters
    ----------
    options : PinnOptions
        Resolved.
    params : Params
        With a leading axis of members.
    key : Array, shape ()
        Randomness of this step.
    step : Array of int, shape ()
        Steps done.
    scene : Scene
        One slice, or the volume.
    setting : Setting
        What all scenes share.

    Returns
    -------
    loss : Array, shape ()
    metrics : dict of Array, shape ()
        Means over the members: `data`, `signal` and `physics`, the unweighted terms in use,
        and `held_out`, the squared misfit of the data that a member does not see.
    """
    numbers = jnp.arange(options.members)
    one = functools.partial(_member_loss, options, step=step, scene=scene, setting=setting)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
    values, metrics = jax.vmap(one)(params, keys, numbers)
    return values.sum(), {name: terms.mean() for name, terms in metrics.items()}


def _member_loss(
    options: PinnOptions,
    params: Params,
    key: Array,
    number: Array,
    *,
    step: Array,
    scene: Scene,
    setting: Setting,
) -> tuple[Array, Metrics]:
    batch = _draw(options, key, number, step, scene)
    total, metrics = jnp.zeros((), scene.position.dtype), {}
    cbf, att = perfusion(options, params, batch.position, batch.features, scene)
    if options.data_weight > 0.0 or options.held_out > 0.0:
        misfit = _decoder_misfit(cbf, att, batch, scene, setting)
        metrics["data"] = _weighted_mean(misfit, batch.seen)
        total += options.data_weight * metrics["data"]
        if options.held_out > 0.0:
            metrics["held_out"] = _weighted_mean(misfit, batch.unseen)
    if uses_signal_network(options):
        learned = _learned(options, params, batch, setting)
    if options.signal_weight > 0.0:
        misfit = (learned.value - batch.delta_m / scene.signal_unit) ** 2
        metrics["signal"] = _weighted_mean(misfit, batch.seen)
        total += options.signal_weight * metrics["signal"]
    if options.physics_weight > 0.0:
        times = learned.slope_t, learned.label_duration
        expected = _expected_slope(options, cbf, att, *times, batch.voxels, setting)
        misfit = (learned.slope - expected / scene.signal_unit) ** 2
        inside = (batch.seen + batch.unseen > 0.0).astype(misfit.dtype)
        metrics["physics"] = _weighted_mean(misfit, inside)
        total += _ramp(options, step) * options.physics_weight * metrics["physics"]
    return total, metrics


def _draw(options: PinnOptions, key: Array, number: Array, step: Array, scene: Scene) -> Batch:
    n_padded, n_delays = scene.weight.shape
    dtype = scene.weight.dtype
    n_rows = options.batch_size or n_padded
    if options.batch_delays == "all":
        n_rows = min(n_rows, n_padded)
        row = jnp.arange(n_padded)
        if n_rows < n_padded:  # in turn; the scene is shuffled
            row = (step * n_rows + row[:n_rows]) % scene.n_voxels
        delay = jnp.broadcast_to(jnp.arange(n_delays), (n_rows, n_delays))
        share = jax.random.uniform(key, delay.shape, dtype)
    else:
        # One draw for all three, since each draw costs much to compile.
        row_share, delay_share, share = jax.random.uniform(key, (3, n_rows, 1), dtype)
        row = jnp.floor(row_share[:, 0] * scene.n_voxels).astype(jnp.int32)
        delay = jnp.floor(delay_share * n_delays).astype(jnp.int32)
    here = row[:, None], delay
    weight = scene.weight[here]
    hidden = scene.fold[here] == number % options.n_folds
    unseen = jnp.where(hidden, weight, 0.0) if options.held_out > 0.0 else jnp.zeros_like(weight)
    return Batch(
        position=scene.position[row],
        features=scene.features[row],
        voxels=jax.tree.map(lambda values: values[row], scene.voxels),
        delay=delay,
        delta_m=scene.voxels.delta_m[here],
        seen=weight - unseen,
        unseen=unseen,
        share=share,
    )


def _decoder_misfit(cbf: Array, att: Array, batch: Batch, scene: Scene, setting: Setting) -> Array:
    curve = jax.vmap(predict, in_axes=(0, 0, 0, None))(cbf, att, batch.voxels, setting.protocol)
    predicted = jnp.take_along_axis(curve, batch.delay, axis=1)
    return ((predicted - batch.delta_m) / scene.noise_sd) ** 2


def _learned(options: PinnOptions, params: Params, batch: Batch, setting: Setting) -> Learned:
    t, label_duration = _read_times(batch, setting)
    if options.physics_weight == 0.0:
        value = signal(options, params, t, label_duration, batch.position, setting)
        return Learned(value, jnp.zeros_like(t), t, label_duration)
    slope_t = t
    if options.collocation == "random":
        late = batch.voxels.readout_delay[:, None]
        margin = options.slope_window / 2.0
        first = jnp.zeros_like(t) if setting.spline is None else setting.first_t + margin + late
        last = t if setting.spline is None else setting.last_t - margin + late
        slope_t = first + batch.share * (last - first)
    both = signal_and_slope(options, params, t, slope_t, label_duration, batch.position, setting)
    return Learned(*both, slope_t, label_duration)


def _expected_slope(
    options: PinnOptions,
    cbf: Array,
    att: Array,
    t: Array,
    label_duration: Array,
    voxels: Voxels,
    setting: Setting,
) -> Array:
    """Total derivative of Buxton's curve, or its mean over a window, shape (B, K)."""
    protocol = setting.protocol
    maps = cbf[:, None], att[:, None]
    constants: dict[str, ArrayLike] = {
        "m0": voxels.m0[:, None],
        "t1_tissue": voxels.t1_tissue[:, None],
        "t1_blood": protocol.t1_blood,
        "labeling_efficiency": protocol.labeling_efficiency,
        "partition_coefficient": protocol.partition_coefficient,
    }

    def bolus(t: Array) -> tuple[Array, Array]:
        if setting.spline is None:
            return label_duration, jnp.zeros_like(t)
        return label_duration_at(setting.spline, t - voxels.readout_delay[:, None])

    if options.slope_window == 0.0:
        return kinetics.delta_m_time_derivative(*maps, t, *bolus(t), **constants)
    early, late = t - options.slope_window / 2.0, t + options.slope_window / 2.0
    rise = kinetics.delta_m(*maps, late, bolus(late)[0], **constants)
    rise -= kinetics.delta_m(*maps, early, bolus(early)[0], **constants)
    return rise / options.slope_window


def _read_times(batch: Batch, setting: Setting) -> tuple[Array, Array]:
    """Times of the data and durations of their boluses, shape (B, K) [s]."""
    dtype = batch.delta_m.dtype
    t = jnp.asarray(setting.protocol.t, dtype)[batch.delay] + batch.voxels.readout_delay[:, None]
    return t, jnp.asarray(setting.protocol.label_duration, dtype)[batch.delay]


def _ramp(options: PinnOptions, step: Array) -> Array | float:
    """Share of the physics' weight that is in force."""
    if options.physics_ramp == 0:
        return 1.0
    return jnp.clip((step - options.signal_steps) / options.physics_ramp, 0.0, 1.0)


def _weighted_mean(values: Array, weight: Array) -> Array:
    return jnp.sum(weight * values) / jnp.maximum(jnp.sum(weight), 1.0)
