"""Several devices, simulated on the CPU: the same maps as on one."""

import dataclasses
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from asl_pinn.estimators import get_estimator
from asl_pinn.execution import Execution
from asl_pinn.simulate import simulate

PROGRAM = """
import pickle, sys
import jax
from asl_pinn.devices import n_devices, spread
from asl_pinn.estimators import get_estimator
from asl_pinn.execution import Execution

cases = pickle.load(sys.stdin.buffer)
assert n_devices() == 8
placed = spread(jax.numpy.zeros((2, 8, 3)), 2, 8)
assert len({str(shard.index) for shard in placed.addressable_shards}) == 8
maps = [
    get_estimator(method).fit(data, get_estimator(method).options(**options), Execution())
    for data, method, options in cases
]
pickle.dump(maps, sys.stdout.buffer)
"""
SMALL_NETWORK = {
    "steps": 4,
    "report_every": 4,
    "members": 4,
    "network_width": 8,
    "network_depth": 2,
}


@pytest.fixture
def cases(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=0)
    few = data.mask.copy()
    few[:5], few[9:] = False, False
    data = dataclasses.replace(data, mask=few)
    fit = {"chunk_size": 8, "max_steps": 12}
    return [(data, "nlls", fit), (data, "pinn", SMALL_NETWORK)]


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
    for (data, method, options), many in zip(cases, pickle.loads(done.stdout), strict=True):
        estimator = get_estimator(method)
        one = estimator.fit(data, estimator.options(**options), Execution())
        np.testing.assert_allclose(many.cbf, one.cbf, rtol=2e-3, atol=0.05, err_msg=method)
        np.testing.assert_allclose(many.att, one.att, rtol=2e-3, atol=5e-3, err_msg=method)
