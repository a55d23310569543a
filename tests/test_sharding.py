"""Several devices, simulated on the CPU: the same maps as on one."""

import dataclasses
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.estimators.base import RunContext
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.problem import make_problem
from asl_pinn.simulation.acquire import simulate

PROGRAM = """
import pickle, sys
import jax
from asl_pinn.numerics.sharding import lay_over_devices, n_devices
from asl_pinn.estimators.base import RunContext
from asl_pinn.estimators.registry import get_estimator

cases = pickle.load(sys.stdin.buffer)
assert n_devices() == 8

def parts(shape, axis, *lengths):
    placed = lay_over_devices(jax.numpy.zeros(shape), axis, *lengths)
    return len({str(shard.index) for shard in placed.addressable_shards})

assert parts((2, 8, 3), 0, 2, 8) == 8
assert parts((3, 16), -1, 16) == 8
assert parts((3, 12), -1, 12) == 4
assert parts((3, 5), -1, 5) == 1
estimates = [
    get_estimator(method).fit(problem, get_estimator(method).options(**options), RunContext())
    for problem, method, options in cases
]
pickle.dump([estimate.values for estimate in estimates], sys.stdout.buffer)
"""
SMALL_NETWORK = {"steps": 4, "report_every": 4, "members": 4, "width": 8, "depth": 2}


@pytest.fixture
def cases(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=0)
    few = data.mask.copy()
    few[:5], few[9:] = False, False
    data = dataclasses.replace(data, mask=few)
    problem = make_problem(data, models.get("buxton"), "float32")
    with_t1 = dataclasses.replace(problem, model=models.get("buxton+t1"))
    return [
        (problem, "nlls", {"chunk_size": 8, "max_steps": 12}),
        (with_t1, "neural-field", SMALL_NETWORK),
    ]


def test_eight_devices_give_the_maps_of_one(cases):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=pickle.dumps(cases),
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    for (problem, method, options), many in zip(cases, pickle.loads(done.stdout), strict=True):
        estimator = get_estimator(method)
        one = estimator.fit(problem, estimator.options(**options), RunContext()).values
        for p, ours, theirs in zip(problem.model.parameters, many, one, strict=True):
            atol = {"cbf": 0.05}.get(p.name, 5e-3)
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=atol, err_msg=method)
