"""CBF with the transit time held: the single-delay case."""

import dataclasses

import numpy as np
import pytest

from asl_pinn import kinetics
from asl_pinn.data import AslData, Status
from asl_pinn.errors import InputError
from asl_pinn.estimators import ESTIMATORS, get_estimator
from asl_pinn.estimators.fixed_att import FixedAttOptions, fit
from asl_pinn.execution import Execution
from asl_pinn.protocol import Protocol

CBF = np.linspace(5.0, 120.0, 24, dtype=np.float32).reshape(4, 3, 2)


def single_delay(att: float = 1.2, **changes) -> AslData:
    """White-paper timing, noise-free, from a transit time that all voxels share."""
    protocol = Protocol(np.array([1.8]), np.array([1.8]))
    readout_delay = np.zeros(CBF.shape, np.float32) + np.array([0.0, 0.04], np.float32)
    delta_m = kinetics.delta_m(
        CBF[..., None],
        att,
        protocol.t + readout_delay[..., None],
        protocol.label_duration,
        m0=100.0,
    )
    data = AslData(
        delta_m=np.asarray(delta_m),
        m0=np.full(CBF.shape, 100.0, np.float32),
        mask=np.ones(CBF.shape, bool),
        t1_tissue=np.full(CBF.shape, kinetics.T1_TISSUE, np.float32),
        readout_delay=readout_delay,
        n_averages=np.array([30.0]),
        protocol=protocol,
        affine=np.eye(4),
    )
    return dataclasses.replace(data, **changes)


def run(data: AslData, **options):
    return fit(data, FixedAttOptions(**options), Execution())


def test_one_delay_gives_cbf_where_att_is_known():
    maps = run(single_delay())
    np.testing.assert_allclose(maps.cbf, CBF, rtol=1e-4)
    np.testing.assert_array_equal(maps.att, np.float32(1.2))
    assert (maps.status == Status.FITTED).all()
    assert maps.cbf_sd is None
    assert maps.att_sd is None


def test_error_of_a_wrong_att_is_its_decay():
    """Label that has arrived decays with T1 of tissue instead of blood, whatever CBF is."""
    maps = run(single_delay(att=0.8), att=1.2)
    expected = np.exp(0.4 / 1.65 - 0.4 / kinetics.T1_TISSUE)
    np.testing.assert_allclose(maps.cbf / CBF, expected, rtol=0.02)


def test_negative_and_excessive_differences_end_on_a_bound():
    data = single_delay()
    delta_m = data.delta_m.copy()
    delta_m[0, 0, 0], delta_m[1, 0, 0] = -1.0, 50.0
    maps = run(dataclasses.replace(data, delta_m=delta_m))
    assert maps.status[0, 0, 0] == maps.status[1, 0, 0] == Status.ON_BOUND
    assert (maps.cbf[0, 0, 0], maps.cbf[1, 0, 0]) == (0.0, 200.0)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"att": 3.6}, "nothing would have arrived"),
        ({"att": 0.0}, "--att must be positive"),
        ({"att": float("nan")}, "--att must be positive"),
        ({"cbf_max": -1.0}, "--cbf_max must be positive"),
    ],
)
def test_options_out_of_range(options, fault):
    with pytest.raises(InputError, match=fault):
        run(single_delay(), **options)


@pytest.mark.parametrize("method", [name for name in ESTIMATORS if name != "fixed-att"])
def test_other_methods_refuse_one_delay_and_name_this_one(method):
    estimator = get_estimator(method)
    with pytest.raises(InputError, match=r"1 delay.*--method=fixed-att"):
        estimator.fit(single_delay(), estimator.options(), Execution())
