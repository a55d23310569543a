"""Physics-informed network: maps from the differential equation of the signal alone."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.estimators.base import Estimate, RunContext
from asl_pinn.estimators.checks import require_numbers, require_spatial_dims
from asl_pinn.estimators.neural.domains import (
    Batch,
    Domain,
    batch_of,
    prepared,
    rows_in_turn,
    split_domains,
    weighted_mean,
)
from asl_pinn.estimators.neural.ensemble import Plan, Stage, adam, fit_ensembles
from asl_pinn.estimators.neural.options import PinnOptions
from asl_pinn.estimators.neural.outputs import (
    ParameterNetworks,
    Params,
    is_informed,
    is_logarithmic,
    prior_term,
)
from asl_pinn.estimators.neural.signal_network import (
    TimeAxis,
    bolus_at,
    make_time_axis,
    signal,
    signal_and_slope,
)
from asl_pinn.estimators.neural.siren import Siren
from asl_pinn.estimators.neural.training import Metrics, Objective
from asl_pinn.estimators.options import resolve
from asl_pinn.models.base import KineticModel, Timing
from asl_pinn.problem import Problem, split


class PinnSetup(NamedTuple):
    """What every step of a training needs of the options; hashable, made once.

    Attributes
    ----------
    networks : ParameterNetworks
        One, f_ode, for all parameters.
    signal : Siren
        The signal network.
    members : int
        Of the ensemble.
    batch_size : int
        Voxels of a step; 0 for all.
    batch_delays : {'all', 'one'}
        Measurements of each.
    learning_rate : float
        Adam's.
    signal_weight, physics_weight : float
        Of the two terms; without the second, only the signal network is trained.
    signal_steps, physics_ramp : int
        Steps before the physics counts, and over which it gains its weight.
    collocation : {'data', 'random'}
        Times at which the physics must hold.
    slope_window : float
        Window of the model's slope [s].
    """

    networks: ParameterNetworks
    signal: Siren
    members: int
    batch_size: int
    batch_delays: Literal["all", "one"]
    learning_rate: float
    signal_weight: float
    physics_weight: float
    signal_steps: int
    physics_ramp: int
    collocation: Literal["data", "random"]
    slope_window: float


class Shared(NamedTuple):
    """What all domains share.

    Attributes
    ----------
    problem : Problem
        From `asl_pinn.problem.split`, with `noise_sd`.
    axis : TimeAxis
        Times of the signal network.
    """

    problem: Problem
    axis: TimeAxis


def fit(problem: Problem, options: PinnOptions, context: RunContext) -> Estimate:
    """Fit the parameters of a model through the differential equation of the signal.

    Two networks are trained together: the signal network S(t, position) fits the data, and f_ode
    gives the parameters at each position, such that the model's slope is that of the signal
    network. With a bolus duration tau(t) that changes over the measurements, as in time encoding,
    the slope is the total derivative,

        dS/dt = dM/dt + dM/dtau * tau'(t).

    The maps come from f_ode alone, which sees the data through this equation and nothing else.

    Parameters
    ----------
    problem : Problem
        More measurements than unknown parameters, so that the noise can be told from the fit.
    options : PinnOptions
        Preset and what replaces its numbers.
    context : RunContext
        Seed, progress bar and checkpoints.

    Returns
    -------
    Estimate
        With standard deviations where there are 4 members or more; `noise_sd` is the initial
        estimate, from voxel-wise fits on a grid.

    Raises
    ------
    InputError
        If there are too few measurements, an option is out of range, the bolus kind does not suit
        the protocol, or the training diverges.

    References
    ----------
    Raissi et al., J Comput Phys 378:686-707 (2019); Giupponi et al., MIDL (2025).
    """
    options = resolve(options)
    _check(options)
    problem = prepared(problem)
    axis = make_time_axis(problem, options.bolus)
    parts = split_domains(
        problem,
        seed=context.seed,
        spatial_dims=options.spatial_dims,
        coordinate_mm=options.coordinate_mm,
        covariates="none",
        output_scale=options.output_scale,
    )
    setup = make_setup(options, problem.model, parts[0].domain.position.shape[1], axis)
    plan = Plan(
        method="pinn",
        modules=(*setup.networks.modules, ("signal", setup.signal)),
        setup=setup,
        stages=functools.partial(_stages, options, setup, problem.n_measurements),
        at_once=options.slices_at_once,
        report_every=options.report_every,
        checkpoint_every=options.checkpoint_every,
    )
    return fit_ensembles(problem, parts, Shared(split(problem)[1], axis), plan, options, context)


def make_setup(
    options: PinnOptions, model: KineticModel, n_coordinates: int, axis: TimeAxis
) -> PinnSetup:
    """Build the networks, and keep the numbers that a step needs.

    Parameters
    ----------
    options : PinnOptions
        Resolved.
    model : KineticModel
        With the parameters.
    n_coordinates : int
        2 or 3.
    axis : TimeAxis
        For the inputs of the signal network.

    Returns
    -------
    PinnSetup
    """
    ode = Siren(
        options.ode_width,
        options.ode_depth,
        len(model.parameters),
        (options.ode_omega,) * n_coordinates,
        options.hidden_omega,
    )
    return PinnSetup(
        networks=ParameterNetworks((("ode", ode),), (False,), is_logarithmic(model)),
        signal=Siren(
            options.signal_width,
            options.signal_depth,
            1,
            (options.time_omega,) * axis.n_inputs + (options.signal_omega,) * n_coordinates,
            options.hidden_omega,
        ),
        members=options.members,
        batch_size=options.batch_size,
        batch_delays=options.batch_delays,
        learning_rate=options.learning_rate,
        signal_weight=options.signal_weight,
        physics_weight=options.physics_weight,
        signal_steps=options.signal_steps,
        physics_ramp=options.physics_ramp,
        collocation=options.collocation,
        slope_window=options.slope_window,
    )


def loss(
    setup: PinnSetup, params: Params, key: Array, step: Array, domain: Domain, shared: Shared
) -> tuple[Array, Metrics]:
    """Sum of the members' losses; their gradients do not mix.

    Parameters
    ----------
    setup : PinnSetup
        Networks and numbers.
    params : Params
        With a leading axis of members.
    key : Array, shape ()
        Randomness of this step.
    step : Array of int, shape ()
        Steps done.
    domain : Domain
        One slice, or the volume.
    shared : Shared
        What all domains share.

    Returns
    -------
    loss : Array, shape ()
    metrics : dict of Array, shape ()
        Means over the members of the unweighted terms: `signal`, `physics`, and `prior`.
    """
    one = functools.partial(_member_loss, setup, step=step, domain=domain, shared=shared)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(setup.members))
    values, metrics = jax.vmap(one)(params, keys)
    return values.sum(), {name: terms.mean() for name, terms in metrics.items()}


class _Draw(NamedTuple):
    """A batch of B voxels and K measurements of each.

    `t` and `label_duration` are those of the measurements, readout delay included [s], `slope_t`
    are the times at which the physics must hold [s]; all, as `measured` and `weight`, of shape
    (K, B).
    """

    batch: Batch
    t: Array
    label_duration: Array
    slope_t: Array
    measured: Array
    weight: Array


def _member_loss(
    setup: PinnSetup, params: Params, key: Array, *, step: Array, domain: Domain, shared: Shared
) -> tuple[Array, Metrics]:
    drawn = _draw(setup, key, step, domain, shared)
    batch, unit = drawn.batch, domain.signal_unit
    where = drawn.label_duration, batch.position
    network = setup.signal, params["signal"]
    slope = None
    if setup.physics_weight == 0.0:
        value = signal(*network, drawn.t, *where, axis=shared.axis)
    else:
        value, slope = signal_and_slope(*network, drawn.t, drawn.slope_t, *where, axis=shared.axis)
    metrics = {"signal": weighted_mean((value - drawn.measured / unit) ** 2, drawn.weight)}
    total = setup.signal_weight * metrics["signal"]
    if slope is not None:
        values = setup.networks(params, batch.position, batch.covariates, batch.outputs)
        expected = model_slope(
            batch.problem,
            values,
            drawn.slope_t,
            drawn.label_duration,
            shared.axis,
            setup.slope_window,
        )
        inside = (drawn.weight > 0.0).astype(value.dtype)
        metrics["physics"] = weighted_mean((slope - expected / unit) ** 2, inside)
        total += _ramp(setup, step) * setup.physics_weight * metrics["physics"]
        if is_informed(batch.problem.model):
            # In noise SDs, while the data's term is in signal units.
            noise = batch.problem.noise_sd / unit
            informed = jnp.any(drawn.weight > 0.0, axis=0)
            metrics["prior"] = prior_term(batch.problem, values, batch.outputs.centre, informed)
            total += setup.signal_weight * noise**2 * metrics["prior"]
    return total, metrics


def _draw(setup: PinnSetup, key: Array, step: Array, domain: Domain, shared: Shared) -> _Draw:
    n_padded, n_measured = domain.weight.shape
    dtype = domain.weight.dtype
    if setup.batch_delays == "all":
        rows = rows_in_turn(domain, setup.batch_size, step)
        which = jnp.broadcast_to(jnp.arange(n_measured)[:, None], (n_measured, len(rows)))
        fraction = jax.random.uniform(key, which.shape, dtype)
    else:
        # One draw for all three, since each draw costs much to compile.
        uniform = jax.random.uniform(key, (3, 1, setup.batch_size or n_padded), dtype)
        rows = jnp.floor(uniform[0, 0] * domain.n_voxels).astype(jnp.int32)
        which = jnp.floor(uniform[1] * n_measured).astype(jnp.int32)
        fraction = uniform[2]
    batch = batch_of(domain, shared.problem, rows)
    late, axis = jnp.asarray(batch.problem.timing.readout_delay), shared.axis
    t = jnp.asarray(batch.problem.timing.t)[which] + late
    slope_t = t
    if setup.collocation == "random":
        # A window of slopes must not reach beyond the spline's own range.
        margin = setup.slope_window / 2.0
        first = jnp.zeros_like(t) if axis.spline is None else axis.first_t + margin + late
        last = t if axis.spline is None else axis.last_t - margin + late
        slope_t = first + fraction * (last - first)
    return _Draw(
        batch=batch,
        t=t,
        label_duration=jnp.asarray(batch.problem.timing.label_duration)[which],
        slope_t=slope_t,
        measured=jnp.take_along_axis(batch.problem.measured, which, axis=0),
        weight=jnp.take_along_axis(batch.weight, which, axis=0),
    )


def model_slope(
    problem: Problem,
    values: Array,
    t: Array,
    label_duration: Array,
    axis: TimeAxis,
    window: float,
) -> Array:
    """Slope of the model's curve along the time axis, or its mean over a window.

    The curve rises at once when the bolus arrives and falls at once when it ends, so that a
    gradient in ATT of its slope is 0 but at two points. The mean over a window w about t is
    smooth in ATT, and is had without any derivative from the ends of the window,

        1/w int (dM/dt + dM/dtau * tau') dt = [M(t + w/2, tau(t + w/2)) - M(t - w/2, ...)] / w.

    Parameters
    ----------
    problem : Problem
        Of B voxels.
    values : Array, shape (P, B)
        Parameters.
    t : Array, shape (K, B)
        Times since the start of the bolus, readout delay included [s].
    label_duration : Array, shape (K, B)
        Durations of the boluses where each is taken by itself [s].
    axis : TimeAxis
        With tau(t).
    window : float
        Width w [s]; 0 for the derivative itself.

    Returns
    -------
    Array, shape (K, B)
        Unit of M0 per second.
    """
    model, constants = problem.model, (problem.tissue, problem.blood)

    def bolus(at: Array) -> tuple[Array, Array]:
        return bolus_at(axis, at, label_duration, problem.timing.readout_delay)

    if window == 0.0:
        tau, slope = bolus(t)
        return model.time_derivative(list(values), Timing(t, tau), *constants, slope)

    def curve(at: Array) -> Array:
        return model.signal(list(values), Timing(at, bolus(at)[0]), *constants)

    return (curve(t + window / 2.0) - curve(t - window / 2.0)) / window


def _ramp(setup: PinnSetup, step: Array) -> Array | float:
    """Fraction of the physics' weight that is in force."""
    if setup.physics_ramp == 0:
        return 1.0
    return jnp.clip((step - setup.signal_steps) / setup.physics_ramp, 0.0, 1.0)


def _stages(
    options: PinnOptions, setup: PinnSetup, n_measurements: int, n_voxels: int
) -> list[Stage]:
    """The signal network alone at first, so that the physics meets slopes that mean something."""
    steps = _n_steps(options, n_voxels, n_measurements)
    jointly = Objective(loss=loss, optimiser=adam, setup=setup)
    alone = jointly._replace(setup=setup._replace(physics_weight=0.0))
    first = [Stage(alone, min(options.signal_steps, steps), "(signal)")]
    return [*(first if options.signal_steps else []), Stage(jointly, steps)]


def _n_steps(options: PinnOptions, n_voxels: int, n_measurements: int) -> int:
    if options.epochs == 0:
        return options.steps
    if options.batch_size == 0:
        return options.epochs
    n_data = n_voxels * (n_measurements if options.batch_delays == "one" else 1)
    return options.epochs * -(-n_data // options.batch_size)


def _check(options: PinnOptions) -> None:
    """Refuse resolved options that no training can work with."""
    ones = (
        "steps",
        "members",
        "ode_width",
        "ode_depth",
        "signal_width",
        "signal_depth",
        "slices_at_once",
        "report_every",
        "checkpoint_every",
    )
    zeros = "epochs", "signal_steps", "physics_ramp", "batch_size", "slope_window"
    require_numbers(
        options,
        {**dict.fromkeys(ones, 1), **dict.fromkeys(zeros, 0)},
        (
            "learning_rate",
            "signal_weight",
            "physics_weight",
            "ode_omega",
            "output_scale",
            "signal_omega",
            "time_omega",
            "hidden_omega",
            "coordinate_mm",
        ),
    )
    require_spatial_dims(options)
