"""Gradient descent on a device: many steps per call, several trainings side by side."""

import functools
import math
import sys
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from asl_pinn.arrays import FloatArray
from asl_pinn.checkpoints import Checkpoints, opened, restore, save
from asl_pinn.errors import InputError

Metrics = dict[str, Array]

_DIVERGED = 1e4


class Problem(NamedTuple):
    """What to minimise and how; hashable, so that one compilation serves many trainings.

    Attributes
    ----------
    loss : callable
        (settings, params, key, step, context, shared) -> (loss, metrics): one training's
        scalar loss and named scalars to watch. `key` is fresh at every step.
    optimiser : callable
        settings -> optax.GradientTransformation.
    settings : hashable
        Static configuration that both take.
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
    settings: Hashable
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


def start(problem: Problem, params: Any) -> State:
    """State before the first step.

    Parameters
    ----------
    problem : Problem
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
        optimiser=jax.vmap(problem.optimiser(problem.settings).init)(params),
        average=None if problem.monitor is None else copied(),
        kept=None if problem.monitor is None else copied(),
        lowest=infinite,
        mean=infinite.copy(),
        lowest_step=jnp.zeros(n_replicas, jnp.int32),
        step=jnp.zeros(n_replicas, jnp.int32),
    )


def train(
    problem: Problem,
    state: State,
    keys: Array,
    context: Any,
    shared: Any = None,
    *,
    steps: int,
    report_every: int = 100,
    label: str = "training",
    progress: bool = False,
    checkpoints: Checkpoints | None = None,
) -> State:
    """Take steps until there are `steps` in all, from the start or from a checkpoint.

    The host hears of the losses every `report_every` steps; in between, nothing leaves the
    device. The result depends neither on `report_every` nor on where a run was interrupted,
    bit for bit on the same device.

    Parameters
    ----------
    problem : Problem
        What to minimise.
    state : State
        From `start`; its buffers are given up.
    keys : Array of keys, shape (R,)
        Randomness of each training.
    context : pytree
        Data of each training, with a leading axis R.
    shared : pytree
        Data of all of them, as the loss takes it.
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
    State

    Raises
    ------
    InputError
        If a loss is not finite or ten thousand times the first one; it names the step.
    """
    hidden = None if progress else True  # None hides the bar where there is no terminal
    with (
        opened(checkpoints) as manager,
        tqdm(total=steps, desc=label, disable=hidden, file=sys.stderr, unit="step") as bar,
    ):
        if manager is not None:
            state = restore(manager, state)
        done = saved = int(np.asarray(state.step)[0])
        bar.update(done)
        first_loss = None
        while done < steps and not np.asarray(_is_over(problem, state)).all():
            state, metrics = _advance(problem, state, keys, context, shared, steps, report_every)
            count = min(report_every, steps - done)
            history = {name: np.asarray(values)[:count] for name, values in metrics.items()}
            first_loss = history["loss"][0] if first_loss is None else first_loss
            _require_sane(history["loss"], first_loss, done, label)
            done += count
            bar.update(count)
            bar.set_postfix({name: f"{values[-1].mean():.4g}" for name, values in history.items()})
            if checkpoints and manager is not None and done - saved >= checkpoints.every:
                save(manager, done, state)
                saved = done
        if manager is not None and done > saved:
            save(manager, done, state)
    return state


@functools.partial(jax.jit, static_argnames=("problem", "length"), donate_argnames="state")
def _advance(
    problem: Problem,
    state: State,
    keys: Array,
    context: Any,
    shared: Any,
    steps: Array,
    length: int,
) -> tuple[State, Metrics]:
    """Take `length` steps, or fewer where that would be more than `steps` in all."""

    def advance_one(state: State, key: Array, context: Any) -> tuple[State, Metrics]:
        return _step(problem, state, key, context, shared)

    def advance_all(state: State) -> tuple[State, Metrics]:
        return jax.vmap(advance_one)(state, keys, context)

    def body(number: Array, both: tuple[State, Metrics]) -> tuple[State, Metrics]:
        state, metrics = advance_all(both[0])
        return state, jax.tree.map(lambda all_, new: all_.at[number].set(new), both[1], metrics)

    shapes = jax.eval_shape(advance_all, state)[1]
    nothing = jax.tree.map(lambda m: jnp.full((length, *m.shape), jnp.nan, m.dtype), shapes)
    count = jnp.clip(steps - state.step[0], 0, length)
    return jax.lax.fori_loop(0, count, body, (state, nothing))


def _step(
    problem: Problem, state: State, key: Array, context: Any, shared: Any
) -> tuple[State, Metrics]:
    key = jax.random.fold_in(key, state.step)

    def loss(params: Any) -> tuple[Array, Metrics]:
        return problem.loss(problem.settings, params, key, state.step, context, shared)

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    optimiser = problem.optimiser(problem.settings)
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    average, kept = state.average, state.kept
    lowest, mean, lowest_step = state.lowest, state.mean, state.lowest_step
    if problem.monitor is not None:
        watched = metrics[problem.monitor]
        share = 1.0 / problem.memory
        mean = jnp.where(jnp.isinf(mean), watched, mean + share * (watched - mean))
        average = optax.incremental_update(params, average, share)
        better = (mean < lowest) & ~_is_over(problem, state)
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


def _is_over(problem: Problem, state: State) -> Array:
    """Whether the monitored metric has been lowest for good."""
    return state.step > problem.patience * (state.lowest_step + problem.memory)


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
