"""Gradient descent on a device: many steps per call, several trainings side by side."""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.io.checkpoints import Checkpoints, opened, restore, save
from asl_pinn.numerics.progress import progress_bar

Metrics = dict[str, Array]

History = dict[str, FloatArray]
"""Scalars by name, each of shape (steps, R)."""

_DIVERGED = 1e4


class Objective(NamedTuple):
    """What to minimise and how; hashable, so that one compilation serves many trainings.

    Attributes
    ----------
    loss : callable
        (setup, params, key, step, data, shared) -> (loss, metrics): one training's
        scalar loss and named scalars to watch. `key` is fresh at every step.
    optimiser : callable
        setup -> optax.GradientTransformation.
    setup : hashable
        Networks and numbers that both take, made once for all steps.
    monitor : str or None
        Metric whose lowest running mean tells when to keep the running mean of the parameters;
        None keeps the last parameters.
    memory : int
        Steps over which the running means forget.
    patience : float
        A training is over once it is this many times as long as it was when the running
        mean was lowest.
    """

    loss: Callable[[Any, Any, Array, Array, Any, Any], tuple[Array, Metrics]]
    optimiser: Callable[[Any], optax.GradientTransformation]
    setup: Hashable
    monitor: str | None = None
    memory: int = 10
    patience: float = math.inf


class State(NamedTuple):
    """State of R trainings side by side; every leaf has a leading axis R.

    Attributes
    ----------
    params : pytree
        Current parameters.
    optimiser : pytree
        State of the optimiser.
    average : pytree
        Running mean of the parameters, or None where nothing is monitored.
    kept : pytree
        Parameters to use: their running mean when that of the monitored metric was lowest so
        far, or None where nothing is monitored.
    lowest, mean : Array, shape (R,)
        That lowest running mean, and the running mean now.
    lowest_step : Array of int, shape (R,)
        Steps done when it was lowest.
    step : Array of int, shape (R,)
        Steps done.
    """

    params: Any
    optimiser: Any
    average: Any
    kept: Any
    lowest: Array
    mean: Array
    lowest_step: Array
    step: Array

    @property
    def best(self) -> Any:
        """Parameters to use."""
        return self.params if self.kept is None else self.kept


def start(objective: Objective, params: Any) -> State:
    """State before the first step.

    Parameters
    ----------
    objective : Objective
        What will be minimised.
    params : pytree
        Initial parameters with a leading axis R; they are copied.

    Returns
    -------
    State
    """
    n_replicas = len(jax.tree.leaves(params)[0])
    dtype = jax.tree.leaves(params)[0].dtype
    infinite = jnp.full(n_replicas, jnp.inf, dtype)

    def copied() -> Any:
        return jax.tree.map(jnp.array, params)

    return State(
        params=copied(),
        optimiser=jax.vmap(objective.optimiser(objective.setup).init)(params),
        average=None if objective.monitor is None else copied(),
        kept=None if objective.monitor is None else copied(),
        lowest=infinite,
        mean=infinite.copy(),
        lowest_step=jnp.zeros(n_replicas, jnp.int32),
        step=jnp.zeros(n_replicas, jnp.int32),
    )


def train(
    objective: Objective,
    state: State,
    keys: Array,
    data: Any,
    shared: Any = None,
    *,
    steps: int,
    report_every: int = 100,
    label: str = "training",
    progress: bool = False,
    checkpoints: Checkpoints | None = None,
) -> tuple[State, History]:
    """Take steps until there are `steps` in all, from the start or from a checkpoint.

    The host hears of the losses every `report_every` steps; in between, nothing leaves the
    device. The result depends neither on `report_every` nor on where a run was interrupted,
    bit for bit on the same device.

    Parameters
    ----------
    objective : Objective
        What to minimise.
    state : State
        From `start`; its buffers are given up.
    keys : Array of keys, shape (R,)
        Randomness of each training.
    data : pytree
        What each training sees, with a leading axis R.
    shared : pytree
        What all of them see, as the loss takes it.
    steps : int
        Steps in all.
    report_every : int
        Steps of one call of the compiled program.
    label : str
        What the progress bar and errors call it.
    progress : bool
        Whether to draw a progress bar on standard error, if that is a terminal.
    checkpoints : Checkpoints or None
        Where to keep the state, every `checkpoints.every` steps (rounded up to whole
        reports) and at the end.

    Returns
    -------
    state : State
    history : dict of ndarray, shape (steps, R)
        Loss and metrics of the steps that were taken here, and so without those before a
        checkpoint.

    Raises
    ------
    InputError
        If a loss is not finite or ten thousand times the first one; it names the step.
    """
    reports: list[History] = []
    with (
        opened(checkpoints) as manager,
        progress_bar(steps, label, unit="step", shown=progress) as bar,
    ):
        if manager is not None:
            state = restore(manager, state)
        done = saved = int(np.asarray(state.step)[0])
        bar.update(done)
        while done < steps and not np.asarray(_is_over(objective, state)).all():
            state, metrics = advance(objective, state, keys, data, shared, steps, report_every)
            count = min(report_every, steps - done)
            reports.append({name: np.asarray(values)[:count] for name, values in metrics.items()})
            _require_sane(reports[-1]["loss"], reports[0]["loss"][0], done, label)
            done += count
            bar.update(count)
            bar.set_postfix(_last_means(reports[-1]))
            if checkpoints and manager is not None and done - saved >= checkpoints.every:
                save(manager, done, state)
                saved = done
        if manager is not None and done > saved:
            save(manager, done, state)
    names = reports[0] if reports else {}
    return state, {name: np.concatenate([part[name] for part in reports]) for name in names}


def _last_means(report: History) -> dict[str, str]:
    return {name: f"{values[-1].mean():.4g}" for name, values in report.items()}


@functools.partial(jax.jit, static_argnames=("objective", "length"), donate_argnames="state")
def advance(
    objective: Objective,
    state: State,
    keys: Array,
    data: Any,
    shared: Any,
    steps: Array,
    length: int,
) -> tuple[State, Metrics]:
    """Take some steps in one compiled program, in which nothing passes to or from the host.

    Parameters
    ----------
    objective, state, keys, data, shared
        As in `train`.
    steps : Array of int, shape ()
        Steps in all.
    length : int
        Steps to take, or fewer where that would be more than `steps` in all.

    Returns
    -------
    state : State
    metrics : dict of Array, shape (length, R)
        NaN for steps that were not taken.
    """

    def advance_one(state: State, key: Array, data: Any) -> tuple[State, Metrics]:
        return _step(objective, state, key, data, shared)

    def advance_all(state: State) -> tuple[State, Metrics]:
        return jax.vmap(advance_one)(state, keys, data)

    def body(number: Array, both: tuple[State, Metrics]) -> tuple[State, Metrics]:
        state, metrics = advance_all(both[0])
        return state, jax.tree.map(lambda all_, new: all_.at[number].set(new), both[1], metrics)

    shapes = jax.eval_shape(advance_all, state)[1]
    nothing = jax.tree.map(lambda m: jnp.full((length, *m.shape), jnp.nan, m.dtype), shapes)
    count = jnp.clip(steps - state.step[0], 0, length)
    return jax.lax.fori_loop(0, count, body, (state, nothing))


def _step(
    objective: Objective, state: State, key: Array, data: Any, shared: Any
) -> tuple[State, Metrics]:
    key = jax.random.fold_in(key, state.step)

    def loss(params: Any) -> tuple[Array, Metrics]:
        return objective.loss(objective.setup, params, key, state.step, data, shared)

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    optimiser = objective.optimiser(objective.setup)
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    average, kept = state.average, state.kept
    lowest, mean, lowest_step = state.lowest, state.mean, state.lowest_step
    if objective.monitor is not None:
        watched = metrics[objective.monitor]
        rate = 1.0 / objective.memory
        mean = jnp.where(jnp.isinf(mean), watched, mean + rate * (watched - mean))
        average = optax.incremental_update(params, average, rate)
        better = (mean < lowest) & ~_is_over(objective, state)
        lowest_step = jnp.where(better, state.step, lowest_step)
        lowest = jnp.where(better, mean, lowest)
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), average, kept)
    advanced = State(
        params=params,
        optimiser=optimiser_state,
        average=average,
        kept=kept,
        lowest=lowest,
        mean=mean,
        lowest_step=lowest_step,
        step=state.step + 1,
    )
    return advanced, {"loss": value, **metrics}


def _is_over(objective: Objective, state: State) -> Array:
    """Whether the monitored metric has been lowest for good."""
    return state.step > objective.patience * (state.lowest_step + objective.memory)


def _require_sane(losses: FloatArray, first_loss: FloatArray, done: int, label: str) -> None:
    """Refuse losses, shape (steps, R), that are not finite or have exploded."""
    exploded = ~(losses <= _DIVERGED * np.maximum(first_loss, np.finfo(losses.dtype).tiny))
    if exploded.any():
        step, replica = np.argwhere(exploded)[0]
        raise InputError(
            f"{label} diverged at step {done + step + 1}: the loss is "
            f"{losses[step, replica]:.3g}, at first it was {first_loss[replica]:.3g}; lower the "
            "learning rate or look for outliers in the data"
        )
