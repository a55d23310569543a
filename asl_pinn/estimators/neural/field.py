"""Neural field: parameters as networks of the position, fitted through the curve to the data."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.errors import InputError
from asl_pinn.estimators.base import Estimate, RunContext
from asl_pinn.estimators.checks import require_numbers, require_spatial_dims
from asl_pinn.estimators.neural.deviations import with_deviations
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
from asl_pinn.estimators.neural.options import NeuralFieldOptions
from asl_pinn.estimators.neural.outputs import (
    ParameterNetworks,
    Params,
    is_informed,
    is_logarithmic,
    prior_term,
)
from asl_pinn.estimators.neural.siren import Siren
from asl_pinn.estimators.neural.sparse import find_sparse, with_sparse
from asl_pinn.estimators.neural.training import Metrics, Objective
from asl_pinn.models.base import KineticModel
from asl_pinn.models.compose import components
from asl_pinn.numerics.least_squares import soft_l1
from asl_pinn.problem import Problem, predict, split


class FieldSetup(NamedTuple):
    """What every step of a training needs of the options; hashable, made once.

    Attributes
    ----------
    networks : ParameterNetworks
        One for each parameter.
    members : int
        Of the ensemble.
    batch_size : int
        Voxels of a step; 0 for all.
    n_folds : int
        Of the data; 1 where nothing is held out.
    learning_rate : float
        Adam's.
    f_scale : float
        Misfit, in noise SDs, where soft-L1 turns linear.
    """

    networks: ParameterNetworks
    members: int
    batch_size: int
    n_folds: int
    learning_rate: float
    f_scale: float


def fit(problem: Problem, options: NeuralFieldOptions, context: RunContext) -> Estimate:
    """Fit the parameters of a model as functions of the position, given by networks.

    Slices are trained side by side in one program, each with its own networks, unless
    `options.spatial_dims` is 3. Each member of an ensemble minimises the mean soft-L1 misfit of the
    model's curve to the data that it sees, in noise SDs, with the running mean of its networks kept
    from where those that it does not see are predicted best. Single voxels may then deviate from
    the networks, as much as the data show; a sparse component, such as arteries, is that of single
    voxels alone.

    Parameters
    ----------
    problem : Problem
        More measurements than unknown parameters, so that the noise can be told from the fit.
    options : NeuralFieldOptions
        Networks and training.
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
        If there are too few measurements, an option is out of range, or the training diverges.

    References
    ----------
    Sitzmann et al., Implicit neural representations with periodic activation functions,
    NeurIPS (2020), for the networks.
    """
    _check(options)
    sparse = find_sparse(problem) if components(problem.model) else None
    fitted = prepared(problem if sparse is None else sparse.rest)
    parts = split_domains(
        fitted,
        seed=context.seed,
        spatial_dims=options.spatial_dims,
        coordinate_mm=options.coordinate_mm,
        covariates=options.covariates,
        output_scale=options.output_scale,
        n_folds=options.n_folds,
    )
    example = parts[0].domain
    setup = FieldSetup(
        networks=parameter_networks(
            options, fitted.model, example.position.shape[1], example.covariates.shape[1]
        ),
        members=options.members,
        batch_size=options.batch_size,
        n_folds=options.n_folds,
        learning_rate=options.learning_rate,
        f_scale=options.f_scale,
    )
    objective = objective_of(setup, options.patience)

    def stages(n_voxels: int) -> list[Stage]:
        return [Stage(objective, n_steps(options, n_voxels))]

    plan = Plan(
        method="neural-field",
        modules=setup.networks.modules,
        setup=setup,
        stages=stages,
        at_once=options.slices_at_once,
        report_every=options.report_every,
        checkpoint_every=options.checkpoint_every,
    )
    fields = fit_ensembles(fitted, parts, split(fitted)[1], plan, options, context)
    if sparse is not None:
        found = sparse._replace(rest=fitted)
        return with_sparse(fields, found, problem, deviations=options.deviations)
    return with_deviations(fields, fitted) if options.deviations else fields


def parameter_networks(
    options: NeuralFieldOptions, model: KineticModel, n_coordinates: int, n_covariates: int
) -> ParameterNetworks:
    """A network for each parameter, of the position and, where it follows tissue, covariates.

    Parameters
    ----------
    options : NeuralFieldOptions
        Sizes and frequencies.
    model : KineticModel
        With the parameters.
    n_coordinates, n_covariates : int
        Numbers of inputs.

    Returns
    -------
    ParameterNetworks
    """
    modules = []
    for p in model.parameters:
        omega = (options.omega[p.name],) * n_coordinates
        if p.follows_tissue:
            omega += (options.tissue_omega,) * n_covariates
        siren = Siren(options.width, options.depth, 1, omega, options.hidden_omega)
        modules.append((p.name, siren))
    follow = tuple(p.follows_tissue for p in model.parameters)
    return ParameterNetworks(tuple(modules), follow, is_logarithmic(model))


def objective_of(setup: FieldSetup, patience: float) -> Objective:
    """What the training of a set of domains minimises.

    Parameters
    ----------
    setup : FieldSetup
        Networks and numbers.
    patience : float
        As `Objective` has it.

    Returns
    -------
    Objective
        It watches the data that are held out, where there are any.
    """
    simple = Objective(loss=loss, optimiser=adam, setup=setup)
    if setup.n_folds == 1:
        return simple
    return simple._replace(monitor="held_out", patience=patience)


def loss(
    setup: FieldSetup, params: Params, key: Array, step: Array, domain: Domain, shared: Problem
) -> tuple[Array, Metrics]:
    """Sum of the members' losses; their gradients do not mix.

    Parameters
    ----------
    setup : FieldSetup
        Networks and numbers.
    params : Params
        With a leading axis of members.
    key : Array, shape ()
        Nothing is drawn: the voxels were shuffled beforehand, and come in turn.
    step : Array of int, shape ()
        Steps done.
    domain : Domain
        One slice, or the volume.
    shared : Problem
        What all domains share, with `noise_sd`.

    Returns
    -------
    loss : Array, shape ()
    metrics : dict of Array, shape ()
        Means over the members: `data`, the mean soft-L1 misfit in noise SDs; `held_out`, that of
        the data that a member does not see; `prior`, what priors add that every method keeps.
    """
    batch = batch_of(domain, shared, rows_in_turn(domain, setup.batch_size, step))
    one = functools.partial(_member_loss, setup, batch)
    values, metrics = jax.vmap(one)(params, jnp.arange(setup.members))
    return values.sum(), {name: terms.mean() for name, terms in metrics.items()}


def _member_loss(
    setup: FieldSetup, batch: Batch, params: Params, number: Array
) -> tuple[Array, Metrics]:
    problem, metrics = batch.problem, {}
    values = setup.networks(params, batch.position, batch.covariates, batch.outputs)
    misfit = (predict(problem, list(values)) - problem.measured) / problem.noise_sd
    misfit = 2.0 * soft_l1(misfit, setup.f_scale)
    unseen = jnp.zeros_like(batch.weight)
    if setup.n_folds > 1:
        # Each member leaves out another fold, and so stops at a time of its own.
        unseen = jnp.where(batch.fold == number % setup.n_folds, batch.weight, 0.0)
        metrics["held_out"] = weighted_mean(misfit, unseen)
    seen = batch.weight - unseen
    total = metrics["data"] = weighted_mean(misfit, seen)
    if is_informed(problem.model):
        inside = jnp.any(batch.weight > 0.0, axis=0)
        metrics["prior"] = prior_term(problem, values, batch.outputs.centre, inside)
        total += metrics["prior"]
    return total, metrics


def n_steps(options: NeuralFieldOptions, n_voxels: int) -> int:
    """Steps of a training.

    Parameters
    ----------
    options : NeuralFieldOptions
        Steps, or passes over the data.
    n_voxels : int
        Voxels of the largest domain.

    Returns
    -------
    int
    """
    if options.epochs == 0:
        return options.steps
    return options.epochs * (-(-n_voxels // options.batch_size) if options.batch_size else 1)


def _check(options: NeuralFieldOptions) -> None:
    """Refuse options that no training can work with."""
    ones = "steps", "members", "width", "depth", "slices_at_once", "report_every"
    least = {**dict.fromkeys((*ones, "checkpoint_every", "patience"), 1)}
    require_numbers(
        options,
        {**least, "epochs": 0, "batch_size": 0, "held_out": 0.0},
        (
            "f_scale",
            "learning_rate",
            "omega",
            "tissue_omega",
            "hidden_omega",
            "output_scale",
            "coordinate_mm",
        ),
    )
    require_spatial_dims(options)
    if options.held_out > 0.5:
        raise InputError(f"--held_out must be at most 0.5, it is {options.held_out}")
