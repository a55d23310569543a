"""Training steps: of the published networks, beside the same in PyTorch, and of `neural-field`."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asl_pinn.data import AslData
from asl_pinn.estimators.neural import NeuralFieldOptions, PinnOptions, field, pinn
from asl_pinn.estimators.neural.domains import prepared, split_domains, stack
from asl_pinn.estimators.neural.ensemble import adam
from asl_pinn.estimators.neural.outputs import init_params
from asl_pinn.estimators.neural.signal_network import make_time_axis
from asl_pinn.estimators.neural.siren import Siren
from asl_pinn.estimators.neural.training import Objective, start, train
from asl_pinn.estimators.options import resolve
from asl_pinn.models import Buxton
from asl_pinn.problem import Problem, make_problem, split
from bench.measure import Timing, of_product, row, time_calls


class Training(NamedTuple):
    """What a step needs: objective, networks, what each domain sees and what all share."""

    objective: Objective
    modules: tuple[tuple[str, Siren], ...]
    domain: Any
    shared: Any


def rows(data: AslData, repeats: int, steps: int, bounds: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of the published step in which the physics takes part, and of `neural-field`.

    Parameters
    ----------
    data : AslData
        One slice.
    repeats : int
        Runs of each.
    steps : int
        Steps in a run.
    bounds : dict
        Limits of the machine.

    Returns
    -------
    list of dict
        With PyTorch's time, if it is installed (extra `bench`).
    """
    problem = prepared(make_problem(data, Buxton(), "float32"))
    found = []
    published = resolve(PinnOptions(preset="paper", signal_steps=0))
    ours = _timed(_pinn(problem, published), published.members, repeats, steps)
    batch = f"{published.members} x {published.batch_size} voxels, {published.batch_delays}"
    of_limit = of_product(_multiply_adds_of_pinn(published), ours.median, bounds)
    work = f"pinn --preset=paper, a step of {batch} delay(s)"
    beside = _torch(data, published, repeats, steps)
    found.append(row(work, ours, *beside, calls=steps, of_limit=of_limit))
    default = NeuralFieldOptions()
    training = _neural_field(problem, default)
    ours = _timed(training, default.members, repeats, steps)
    of_limit = of_product(_multiply_adds_of_field(default, training), ours.median, bounds)
    work = f"neural-field, a step of {default.members} x {default.batch_size} voxels, all delay(s)"
    found.append(row(work, ours, calls=steps, of_limit=of_limit))
    return found


def _pinn(problem: Problem, options: PinnOptions) -> Training:
    axis = make_time_axis(problem, options.bolus)
    (part,) = split_domains(
        problem,
        seed=0,
        spatial_dims=options.spatial_dims,
        coordinate_mm=options.coordinate_mm,
        covariates="none",
        output_scale=options.output_scale,
    )
    domain = stack([part.domain], len(part.place))
    setup = pinn.make_setup(options, problem.model, domain.position.shape[-1], axis)
    modules = (*setup.networks.modules, ("signal", setup.signal))
    objective = Objective(loss=pinn.loss, optimiser=adam, setup=setup)
    return Training(objective, modules, domain, pinn.Shared(split(problem)[1], axis))


def _neural_field(problem: Problem, options: NeuralFieldOptions) -> Training:
    (part,) = split_domains(
        problem,
        seed=0,
        spatial_dims=options.spatial_dims,
        coordinate_mm=options.coordinate_mm,
        covariates=options.covariates,
        output_scale=options.output_scale,
        n_folds=options.n_folds,
    )
    domain = stack([part.domain], len(part.place))
    inputs = domain.position.shape[-1], domain.covariates.shape[-1]
    networks = field.parameter_networks(options, problem.model, *inputs)
    setup = field.FieldSetup(
        networks=networks,
        members=options.members,
        batch_size=options.batch_size,
        n_folds=options.n_folds,
        learning_rate=options.learning_rate,
    )
    objective = field.objective_of(setup, math.inf)
    return Training(objective, networks.modules, domain, split(problem)[1])


def _timed(training: Training, members: int, repeats: int, steps: int) -> Timing:
    keys = jax.random.split(jax.random.key(0), 1)
    draw = functools.partial(init_params, dict(training.modules), dtype=jnp.float32)
    params = jax.vmap(draw)(jax.random.split(keys[0], members))
    state = [start(training.objective, jax.tree.map(lambda leaf: leaf[None], params))]

    def run() -> None:
        done = int(state[0].step[0])
        state[0], _ = train(
            training.objective,
            state[0],
            keys,
            training.domain,
            training.shared,
            steps=done + steps,
            report_every=steps,
        )

    return time_calls(run, repeats).per(steps)


def _multiply_adds_of_pinn(options: PinnOptions, n_coordinates: int = 2) -> int:
    """Multiply-adds of the matrix products that a step cannot do without.

    A network's value takes one pass over its layers, its gradient two more. The signal network
    is evaluated at the data, and at the collocation times together with its time derivative,
    which doubles everything there.
    """
    needed = 3 * _layers(n_coordinates, options.ode_width, options.ode_depth, 2)
    needed += 9 * _layers(1 + n_coordinates, options.signal_width, options.signal_depth, 1)
    return options.members * options.batch_size * needed


def _multiply_adds_of_field(options: NeuralFieldOptions, training: Training) -> int:
    """The same of networks alone: their values and gradients."""
    needed = 3 * sum(
        _layers(len(network.first_omega), options.width, options.depth, 1)
        for _, network in training.modules
    )
    return options.members * options.batch_size * needed


def _layers(n_inputs: int, width: int, depth: int, n_outputs: int) -> int:
    return n_inputs * width + (depth - 1) * width**2 + width * n_outputs


def _torch(
    data: AslData, options: PinnOptions, repeats: int, steps: int
) -> tuple[str, float | None]:
    """Name and median [s] of the published step in PyTorch, if it is installed (extra `bench`)."""
    try:
        from bench.torch_step import TorchStep
    except ModuleNotFoundError:
        return "PyTorch is not installed", None
    step = TorchStep(data, options)
    theirs = time_calls(lambda: [step() for _ in range(steps)], repeats).per(steps)
    return "PyTorch, eager", theirs.median
