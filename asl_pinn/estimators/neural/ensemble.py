"""Ensembles of networks: trained side by side, slices beside one another, and merged into maps."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import asl_pinn
from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.base import Estimate, RunContext, voxel_status
from asl_pinn.estimators.neural.domains import Domain, Part, stack
from asl_pinn.estimators.neural.outputs import ParameterNetworks, Params, init_params
from asl_pinn.estimators.neural.siren import Siren
from asl_pinn.estimators.neural.training import History, Objective, start, train
from asl_pinn.io.checkpoints import Checkpoints, fingerprint
from asl_pinn.numerics.sharding import lay_over_devices
from asl_pinn.problem import Problem

SD_PER_DEVIATION = 4.5
"""Standard deviation of a parameter over that of the members about their mean.

Members see nearly the same data, so that they differ by far less than they err together. The
factor makes intervals of 95 % hold 95 % of the true values for the neural field of default options:
calibrated on slices 28, 36 and 42 of the phantom `mni`, seed 101, at tSNR 1.5 and 0.5.
"""

_LEAST_MEMBERS = 4  # below, a standard deviation without the two extremes says nothing


class Setup(Protocol):
    """What all members share; hashable, made once from the options."""

    @property
    def networks(self) -> ParameterNetworks:
        """Those of the parameters."""
        ...

    @property
    def members(self) -> int:
        """Of each ensemble."""
        ...

    @property
    def learning_rate(self) -> float:
        """Of Adam."""
        ...


class Stage(NamedTuple):
    """Part of a training.

    Attributes
    ----------
    objective : Objective
        What is minimised.
    until : int
        Steps in all when it ends.
    label : str
        What the progress bar adds to the method's name.
    """

    objective: Objective
    until: int
    label: str = ""


class Plan(NamedTuple):
    """How ensembles are trained.

    Attributes
    ----------
    method : str
        Name for progress bars and errors.
    modules : tuple of (str, Siren)
        All networks of a member.
    setup : Setup
        What the objectives share.
    stages : callable
        Voxels of the largest domain to the stages, one after the other.
    at_once : int
        Domains trained side by side.
    report_every, checkpoint_every : int
        Steps between two reports, and two checkpoints.
    """

    method: str
    modules: tuple[tuple[str, Siren], ...]
    setup: Any
    stages: Callable[[int], list[Stage]]
    at_once: int
    report_every: int
    checkpoint_every: int


def adam(setup: Setup) -> optax.GradientTransformation:
    """The optimiser of every objective here."""
    return optax.adam(setup.learning_rate)


def fit_ensembles(
    problem: Problem,
    parts: Sequence[Part],
    shared: Any,
    plan: Plan,
    options: Hashable,
    context: RunContext,
) -> Estimate:
    """Train an ensemble on each domain, and merge the members.

    With `context.checkpoint_dir`, the state is kept in a folder named after the data, the
    options and the seed: the same call resumes there and ends in the same bits, while another one
    starts anew beside it.

    Parameters
    ----------
    problem : Problem
        What is fitted.
    parts : sequence of Part
        Its domains.
    shared : pytree
        What all domains share, as the objectives take it.
    plan : Plan
        Networks, objectives and steps.
    options : hashable
        Resolved; with the problem, the seed and the versions, they name the checkpoints.
    context : RunContext
        Seed, progress and checkpoints.

    Returns
    -------
    Estimate
        Means over the middle half of the members in each voxel, and standard deviations from
        the members without the two extremes, where there are 4 or more. `history` has the loss
        and its terms by step, means over members and domains; NaN where a step had none.

    Raises
    ------
    InputError
        If a training diverges or a checkpoint cannot be written.
    """
    checkpoints = _checkpoints(problem, plan, options, context)
    longest = max(len(part.place) for part in parts)
    n_groups = -(-len(parts) // plan.at_once)
    size = -(-len(parts) // n_groups)
    merged = np.zeros((2, len(problem.model.parameters), problem.n_voxels), problem.dtype)
    histories = []
    for number in range(n_groups):
        group = parts[number * size : (number + 1) * size]
        maps, history = _train_group(
            stack([part.domain for part in group], longest),
            jnp.asarray([part.number for part in group]),
            shared,
            plan,
            context,
            checkpoints and checkpoints.part(f"group-{number + 1}"),
            f"{plan.method} {number + 1}/{n_groups}" if n_groups > 1 else plan.method,
        )
        histories.append(history)
        for part, part_maps in zip(group, maps, strict=True):
            merged[..., part.place] = part_maps[..., : len(part.place)]
    values, deviations = merged
    return Estimate(
        values=values,
        status=voxel_status(values, problem.model),
        sd=SD_PER_DEVIATION * deviations if plan.setup.members >= _LEAST_MEMBERS else None,
        noise_sd=float(problem.noise_sd),
        history=_over_groups(histories),
    )


def _train_group(
    domain: Domain,
    numbers: Array,
    shared: Any,
    plan: Plan,
    context: RunContext,
    checkpoints: Checkpoints | None,
    label: str,
) -> tuple[FloatArray, History]:
    """Means and deviations of the parameters, shape (S, 2, P, V), and the steps that led there."""
    seeds = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(context.seed)))
    init_keys, train_keys = jnp.unstack(jax.vmap(jax.random.split)(seeds(numbers)), axis=1)
    stages = plan.stages(int(domain.n_voxels.max()))
    members = plan.setup.members
    params = _init(plan.modules, members, init_keys, domain.position.dtype)
    state, train_keys, domain = lay_over_devices(
        (start(stages[0].objective, params), train_keys, domain), 0, len(numbers), members
    )
    taken = []
    for stage in stages:
        state, steps = train(
            stage.objective,
            state,
            train_keys,
            domain,
            shared,
            steps=stage.until,
            report_every=plan.report_every,
            label=f"{label} {stage.label}".strip(),
            progress=context.progress,
            checkpoints=checkpoints,
        )
        taken.append((int(np.asarray(state.step)[0]), steps))
    values = _merged(plan.setup.networks, state.best, domain)
    return np.asarray(values), _one_after_another(taken, members)


@functools.partial(jax.jit, static_argnames=("modules", "members", "dtype"))
def _init(modules: tuple[tuple[str, Siren], ...], members: int, keys: Array, dtype: Any) -> Params:
    """Parameters with leading axes of domains and members."""

    def one_domain(key: Array) -> Params:
        draw = functools.partial(init_params, dict(modules), dtype=dtype)
        return jax.vmap(draw)(jax.random.split(key, members))

    return jax.vmap(one_domain)(keys)


@functools.partial(jax.jit, static_argnames="networks")
def _merged(networks: ParameterNetworks, params: Params, domain: Domain) -> Array:
    def one(params: Params, domain: Domain) -> Array:
        outputs = jax.tree.map(jnp.transpose, domain.outputs)
        inputs = jnp.asarray(domain.position), jnp.asarray(domain.covariates)

        def member(params: Params) -> Array:
            return networks(params, *inputs, outputs)

        return jnp.stack(_middle(jax.vmap(member)(params)))

    return jax.vmap(one)(params, domain)


def _middle(members: Array) -> tuple[Array, Array]:
    """Mean over the middle half of the first axis, and the deviation without the two extremes.

    Where noise hides the signal, a single member may run away to a late arrival.
    """
    quarter = len(members) // 4
    ordered = jnp.sort(members, axis=0)
    mean = ordered[quarter : len(members) - quarter].mean(axis=0)
    return mean, jnp.std(ordered[1:-1], axis=0) if len(members) > 2 else jnp.zeros_like(mean)


def _checkpoints(
    problem: Problem, plan: Plan, options: Hashable, context: RunContext
) -> Checkpoints | None:
    if context.checkpoint_dir is None:
        return None
    versions = jax.__version__, asl_pinn.__version__
    name = fingerprint(problem, plan.method, options, context.seed, context.dtype, versions)
    return Checkpoints(context.checkpoint_dir / name, plan.checkpoint_every)


def _one_after_another(taken: Sequence[tuple[int, History]], members: int) -> History:
    """Stages of a training as one, means over its domains; the loss is that of one member.

    Each stage comes with the steps done at its end; those before a checkpoint are unknown.
    """
    length = max(done for done, _ in taken)
    history: History = {name: np.full(length, np.nan) for _, steps in taken for name in steps}
    for done, steps in taken:
        for name, values in steps.items():
            mean = values.mean(axis=1) / (members if name == "loss" else 1)
            history[name][done - len(values) : done] = mean
    return history


def _over_groups(histories: Sequence[History]) -> History:
    """Means of what is known, over groups of domains that may differ in length."""
    length = max((len(values) for group in histories for values in group.values()), default=0)
    total: History = {name: np.zeros(length) for group in histories for name in group}
    count: History = {name: np.zeros(length) for name in total}
    for group in histories:
        for name, values in group.items():
            known = np.flatnonzero(np.isfinite(values))
            total[name][known] += values[known]
            count[name][known] += 1.0
    return {
        name: np.where(count[name] > 0.0, values / np.maximum(count[name], 1.0), np.nan)
        for name, values in total.items()
    }
