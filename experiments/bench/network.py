"""A training step of the published networks, beside the same in PyTorch."""

import functools
from typing import Any

import jax
import numpy as np

from asl_pinn.data import AslData
from asl_pinn.estimators.pinn import PinnOptions
from asl_pinn.estimators.pinn.fit import problem
from asl_pinn.estimators.pinn.models import init_params, make_setting
from asl_pinn.estimators.pinn.options import compiled
from asl_pinn.estimators.pinn.scene import split, stack
from asl_pinn.options import resolve
from asl_pinn.training import start, train
from bench.measure import Timing, row, time_calls


def rows(
    data: AslData, repeats: int, steps: int, multiply_adds_per_s: float
) -> list[dict[str, Any]]:
    """The row of the step in which the physics takes part.

    Parameters
    ----------
    data : AslData
        One slice.
    repeats : int
        Runs of each.
    steps : int
        Steps in a run.
    multiply_adds_per_s : float
        Limit of the machine.

    Returns
    -------
    list of dict
        With PyTorch's time, if it is installed (extra `bench`).
    """
    options = resolve(PinnOptions(preset="paper", report_every=steps, signal_steps=0))
    ours = _ours(data, options, repeats, steps)
    share = multiply_adds(options) / multiply_adds_per_s / ours.median
    work = f"pinn --preset=paper, a step of batch {options.batch_size}"
    try:
        from bench.torch_step import TorchStep
    except ModuleNotFoundError:
        return [row(work, ours, "PyTorch is not installed", calls=steps, share=share)]
    step = TorchStep(data, options)
    theirs = time_calls(lambda: [step() for _ in range(steps)], repeats).per(steps)
    return [row(work, ours, "PyTorch, eager", theirs.median, calls=steps, share=share)]


def multiply_adds(options: PinnOptions, n_coordinates: int = 2) -> int:
    """Multiply-adds of the matrix products that a step cannot do without.

    A network's value takes one pass over its layers, its gradient two more. The signal network
    is evaluated at the data, and at the collocation times together with its time derivative,
    which doubles everything there.

    Parameters
    ----------
    options : PinnOptions
        Resolved, with a signal network over time and position.
    n_coordinates : int
        Coordinates of a position.

    Returns
    -------
    int
    """
    signal = _layers(1 + n_coordinates, options.signal_width, options.signal_depth, 1)
    maps = _layers(n_coordinates, options.network_width, options.network_depth, 2)
    return options.batch_size * (3 * maps + 3 * signal + 2 * 3 * signal)


def _layers(n_inputs: int, width: int, depth: int, n_outputs: int) -> int:
    return n_inputs * width + (depth - 1) * width**2 + width * n_outputs


def _ours(data: AslData, options: PinnOptions, repeats: int, steps: int) -> Timing:
    parts, _ = split(data, options, 0, np.dtype(np.float32))
    scene = stack([parts[0].scene], len(parts[0].place))
    setting = make_setting(data, "auto")
    keys = jax.random.split(jax.random.key(0), 1)
    make = jax.vmap(functools.partial(init_params, compiled(options)), in_axes=(0, 0, None))
    params = jax.tree.map(lambda leaf: leaf[:, None], make(keys, scene, setting))
    state = [start(problem(options), params)]

    def run() -> None:
        done = int(state[0].step[0])
        state[0] = train(
            problem(options), state[0], keys, scene, setting, steps=done + steps, report_every=steps
        )

    return time_calls(run, repeats).per(steps)
