"""Training steps: of the published networks, beside the same in PyTorch, and of the default."""

import functools
import math
from typing import Any

import jax
import numpy as np

from asl_pinn.data import AslData
from asl_pinn.estimators.pinn import PinnOptions
from asl_pinn.estimators.pinn.fit import problem
from asl_pinn.estimators.pinn.models import init_params, make_setting
from asl_pinn.estimators.pinn.options import compiled, uses_signal_network
from asl_pinn.estimators.pinn.scene import split, stack
from asl_pinn.options import resolve
from asl_pinn.training import start, train
from bench.measure import Timing, of_product, row, time_calls


def rows(data: AslData, repeats: int, steps: int, bounds: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of the published step in which the physics takes part, and of the default preset's.

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
    parts, _ = split(data, resolve(PinnOptions()), 0, np.dtype(np.float32))
    n_features = parts[0].scene.features.shape[-1]
    found = []
    for preset in ("paper", "fast"):
        options = resolve(PinnOptions(preset=preset, report_every=steps, signal_steps=0))
        ours = _ours(data, options, repeats, steps)
        needed = multiply_adds(options, 0 if options.guide == "none" else n_features)
        share = of_product(needed, ours.median, bounds)
        batch = f"{options.members} x {options.batch_size} voxels, {options.batch_delays} delay(s)"
        work = f"pinn --preset={preset}, a step of {batch}"
        beside = _torch(data, options, repeats, steps) if preset == "paper" else ("", None)
        found.append(row(work, ours, *beside, calls=steps, share=share))
    return found


def multiply_adds(options: PinnOptions, n_features: int, n_coordinates: int = 2) -> int:
    """Multiply-adds of the matrix products that a step cannot do without.

    A network's value takes one pass over its layers, its gradient two more. The signal network
    is evaluated at the data, and at the collocation times together with its time derivative,
    which doubles everything there.

    Parameters
    ----------
    options : PinnOptions
        Resolved; a signal network is one over time and position.
    n_features : int
        Tissue maps that CBF follows.
    n_coordinates : int
        Coordinates of a position.

    Returns
    -------
    int
    """
    shape = options.network_width, options.network_depth
    if options.separate_networks:
        needed = 3 * _layers(n_coordinates + n_features, *shape, 1)
        needed += 3 * _layers(n_coordinates, *shape, 1)
    else:
        needed = 3 * _layers(n_coordinates, *shape, 2)
    if uses_signal_network(options):
        needed += 9 * _layers(1 + n_coordinates, options.signal_width, options.signal_depth, 1)
    return options.members * options.batch_size * needed


def _layers(n_inputs: int, width: int, depth: int, n_outputs: int) -> int:
    return n_inputs * width + (depth - 1) * width**2 + width * n_outputs


def _ours(data: AslData, options: PinnOptions, repeats: int, steps: int) -> Timing:
    parts, _ = split(data, options, 0, np.dtype(np.float32))
    scene = stack([parts[0].scene], len(parts[0].place))
    setting = make_setting(data, "auto")
    keys = jax.random.split(jax.random.key(0), 1)
    make = jax.vmap(functools.partial(init_params, compiled(options)), in_axes=(0, None, None))
    members = make(jax.random.split(keys[0], options.members), parts[0].scene, setting)
    params = jax.tree.map(lambda leaf: leaf[None], members)
    endless = problem(options)._replace(patience=math.inf)
    state = [start(endless, params)]

    def run() -> None:
        done = int(state[0].step[0])
        state[0] = train(
            endless, state[0], keys, scene, setting, steps=done + steps, report_every=steps
        )

    return time_calls(run, repeats).per(steps)


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
