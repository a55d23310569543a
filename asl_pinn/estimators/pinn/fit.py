"""Training of the networks on a dataset, and the maps that they give."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import asl_pinn
from asl_pinn.arrays import FloatArray
from asl_pinn.checkpoints import Checkpoints, fingerprint
from asl_pinn.data import AslData, PerfusionMaps, Status, status_volume, to_volume
from asl_pinn.devices import spread
from asl_pinn.estimators import voxelwise
from asl_pinn.estimators.pinn.losses import loss
from asl_pinn.estimators.pinn.models import Params, Setting, init_params, make_setting, perfusion
from asl_pinn.estimators.pinn.options import (
    PinnOptions,
    check,
    compiled,
    uses_signal_network,
)
from asl_pinn.estimators.pinn.scene import Scene, split, stack
from asl_pinn.execution import Execution
from asl_pinn.options import resolve
from asl_pinn.training import Problem, start, train

# Members share their data: calibrated on slices 28, 36 and 42 of `mni`, seed 101, both tSNR.
_SD_PER_SPREAD = 4.5


def fit(data: AslData, options: PinnOptions, execution: Execution) -> PerfusionMaps:
    """Fit CBF and ATT as functions of the position, given by networks.

    Slices are trained side by side in one program, each with its own networks, unless
    `options.spatial_dims` is 3. With `execution.checkpoint_dir`, the state is kept in a
    folder named after the data, the options and the seed: the same call resumes there and
    ends in the same bits, while another one starts anew beside it.

    Parameters
    ----------
    data : AslData
        At least 3 delays, so that the noise can be told from the fit.
    options : PinnOptions
        Preset and what replaces its numbers.
    execution : Execution
        Seed, floating-point type, progress bar and checkpoints.

    Returns
    -------
    PerfusionMaps
        Means over the middle half of the members in each voxel, and standard deviations from
        their spread without the two extremes, where there are 4 members or more; `noise_sd`
        is a rough estimate from the best voxel-wise fits on a grid.

    Raises
    ------
    InputError
        If there are fewer than 3 delays, no valid voxel, an option is out of range, the
        bolus kind does not suit the protocol, or the training diverges.

    References
    ----------
    Raissi et al., J Comput Phys 378:686-707 (2019), for physics-informed networks.
    """
    options = resolve(options)
    check(options)
    voxelwise.check(data, voxelwise.NllsOptions())
    parts, noise_sd = split(data, options, execution.seed, execution.dtype)
    bolus = options.bolus if uses_signal_network(options) else "per_bolus"
    setting = make_setting(data, bolus)
    checkpoints = _checkpoints(data, options, execution)
    longest = max(len(part.place) for part in parts)
    n_groups = -(-len(parts) // options.slices_at_once)
    size = -(-len(parts) // n_groups)
    values = np.zeros((2, 2, data.valid.sum()), execution.dtype)
    for number in range(n_groups):
        group = parts[number * size : (number + 1) * size]
        maps = _fit_group(
            stack([part.scene for part in group], longest),
            jnp.asarray([part.number for part in group]),
            options,
            setting,
            execution,
            checkpoints and checkpoints.part(f"group-{number + 1}"),
            f"pinn {number + 1}/{n_groups}" if n_groups > 1 else "pinn",
        )
        for part, part_maps in zip(group, maps, strict=True):
            values[..., part.place] = part_maps[..., : len(part.place)]
    return _assemble(data, options, values, noise_sd)


def _fit_group(
    scene: Scene,
    numbers: Array,
    options: PinnOptions,
    setting: Setting,
    execution: Execution,
    checkpoints: Checkpoints | None,
    label: str,
) -> FloatArray:
    """Means and spreads of CBF and ATT, of slices trained side by side, shape (S, 2, 2, V)."""
    seeds = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(execution.seed)))
    init_keys, train_keys = jnp.unstack(jax.vmap(jax.random.split)(seeds(numbers)), axis=1)
    signal_only = problem(dataclasses.replace(options, physics_weight=0.0))
    jointly = problem(options)
    params = _init(compiled(options), init_keys, scene, setting)
    lengths = len(numbers), options.members
    state, train_keys, scene = spread((start(jointly, params), train_keys, scene), *lengths)
    steps = _n_steps(options, scene)
    stages = [(jointly, steps, label)]
    if options.physics_weight > 0.0 and options.signal_steps > 0:
        stages.insert(0, (signal_only, min(options.signal_steps, steps), f"{label} (signal)"))
    for what, until, stage in stages:
        state = train(
            what,
            state,
            train_keys,
            scene,
            setting,
            steps=until,
            report_every=options.report_every,
            label=stage,
            progress=execution.progress,
            checkpoints=checkpoints,
        )
    return np.asarray(_maps(compiled(options), state.best, scene))


def problem(options: PinnOptions) -> Problem:
    """What resolved options have the training minimise, and how."""
    simple = Problem(loss=loss, optimiser=_optimiser, settings=compiled(options))
    if options.held_out == 0.0:
        return simple
    return simple._replace(monitor="held_out", patience=options.patience)


def _optimiser(options: PinnOptions) -> optax.GradientTransformation:
    return optax.adam(options.learning_rate)


def _n_steps(options: PinnOptions, scene: Scene) -> int:
    if options.epochs == 0:
        return options.steps
    if options.batch_size == 0:
        return options.epochs
    n_delays = scene.weight.shape[-1] if options.batch_delays == "one" else 1
    n_data = int(scene.n_voxels.max()) * n_delays
    return options.epochs * -(-n_data // options.batch_size)


@functools.partial(jax.jit, static_argnames="options")
def _init(options: PinnOptions, keys: Array, scene: Scene, setting: Setting) -> Params:
    """Parameters with leading axes of slices and members."""

    def members(key: Array, scene: Scene) -> Params:
        split_keys = jax.random.split(key, options.members)
        return jax.vmap(lambda key: init_params(options, key, scene, setting))(split_keys)

    return jax.vmap(members)(keys, scene)


@functools.partial(jax.jit, static_argnames="options")
def _maps(options: PinnOptions, params: Params, scene: Scene) -> Array:
    def one(params: Params, scene: Scene) -> Array:
        def member(params: Params) -> Array:
            return jnp.stack(perfusion(options, params, scene.position, scene.features, scene))

        return jnp.stack(_middle(jax.vmap(member)(params)))

    return jax.vmap(one)(params, scene)


def _middle(members: Array) -> tuple[Array, Array]:
    """Mean over the middle half of the first axis, and the spread without the two extremes.

    Where noise hides the signal, a single member may run away to a late arrival.
    """
    quarter = len(members) // 4
    ordered = jnp.sort(members, axis=0)
    mean = ordered[quarter : len(members) - quarter].mean(axis=0)
    return mean, jnp.std(ordered[1:-1], axis=0) if len(members) > 2 else jnp.zeros_like(mean)


def _checkpoints(data: AslData, options: PinnOptions, execution: Execution) -> Checkpoints | None:
    if execution.checkpoint_dir is None:
        return None
    name = fingerprint(
        data, options, execution.seed, execution.dtype, jax.__version__, asl_pinn.__version__
    )
    return Checkpoints(execution.checkpoint_dir / name, options.checkpoint_every)


def _assemble(
    data: AslData, options: PinnOptions, values: FloatArray, noise_sd: float
) -> PerfusionMaps:
    """Volumes of the means of CBF and ATT and, of an ensemble, their standard deviations."""
    valid = data.valid
    status = status_volume(np.full(valid.sum(), Status.FITTED), data)
    (cbf, att), spreads = values
    maps = PerfusionMaps(to_volume(cbf, valid), to_volume(att, valid), status, noise_sd=noise_sd)
    if options.members < 4:
        return maps
    cbf_sd, att_sd = (to_volume(_SD_PER_SPREAD * spread, valid) for spread in spreads)
    return dataclasses.replace(maps, cbf_sd=cbf_sd, att_sd=att_sd)
