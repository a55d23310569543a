import dataclasses

import numpy as np
import pytest

from asl_pinn.degrade import with_noisy_delay, with_outliers
from asl_pinn.errors import InputError
from asl_pinn.estimators import get_estimator
from asl_pinn.estimators.spatial_map import SpatialOptions, fit
from asl_pinn.execution import Execution
from asl_pinn.metrics import coverage, scores
from asl_pinn.phantoms import add_lesions, mni_phantom, select_slices
from asl_pinn.protocol import label_durations, time_encoded_protocol
from asl_pinn.simulate import simulate

PROTOCOL = time_encoded_protocol(label_durations("t1_adjusted", 7, 4.0), 0.1)
QUICK = SpatialOptions(rounds=15)


@pytest.fixture(scope="module")
def brain():
    return select_slices(mni_phantom(resolution=4), "22")


@pytest.fixture(scope="module")
def noisy(brain):
    return simulate(brain, PROTOCOL, tsnr=1.0, seed=100)


@pytest.fixture(scope="module")
def maps(noisy):
    return fit(noisy, QUICK, Execution())


def nrmse(maps, brain):
    return [
        scores(getattr(maps, name), getattr(brain, name), brain.mask)["nrmse"]
        for name in ("cbf", "att")
    ]


def test_neighbours_make_both_maps_far_better_than_voxels_by_themselves(maps, noisy, brain):
    nlls = get_estimator("nlls")
    alone = nrmse(nlls.fit(noisy, nlls.options(), Execution()), brain)
    together = nrmse(maps, brain)
    assert together[0] < 0.3 * alone[0]
    assert together[1] < 0.4 * alone[1]


def test_noise_and_precisions_are_found_from_the_data_alone(maps, noisy, brain):
    truth = noisy.delta_m - simulate(brain, PROTOCOL, tsnr=np.inf, seed=100).delta_m
    assert np.isclose(maps.noise_sd, truth[brain.mask].std(), rtol=0.05)


def test_intervals_cover_the_truth(maps, brain):
    for name, sd in (("cbf", maps.cbf_sd), ("att", maps.att_sd)):
        share = coverage(getattr(maps, name), getattr(brain, name), sd, brain.mask)
        assert 0.8 < share <= 1.0


def test_a_large_focus_survives(brain):
    volume, where = add_lesions(mni_phantom(resolution=4), 22)
    ill = select_slices(volume, "22")
    focus = where["high 12 mm"][:, :, [22]]
    found = fit(simulate(ill, PROTOCOL, tsnr=5.0, seed=100), QUICK, Execution())
    contrast = ill.cbf[focus].mean() - brain.cbf[focus].mean()
    assert found.cbf[focus].mean() - brain.cbf[focus].mean() > 0.8 * contrast


@pytest.mark.parametrize("spoil", [with_outliers, with_noisy_delay])
def test_outliers_and_a_noisy_delay_are_found_out(maps, noisy, brain, spoil):
    what = 0.03 if spoil is with_outliers else 2
    found = fit(spoil(noisy, what, maps.noise_sd, 7), QUICK, Execution())
    for spoiled, clean in zip(nrmse(found, brain), nrmse(maps, brain), strict=True):
        assert spoiled < 1.35 * clean


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cbf_order", 3),
        ("att_order", 0),
        ("spatial_dims", 1),
        ("samples", 2),
        ("rounds", 0),
        ("cbf_edge_dof", -1.0),
        ("rtol", 0.0),
        ("att_min", 5.0),
    ],
)
def test_options_out_of_range_are_named(noisy, option, value):
    with pytest.raises(InputError, match=f"--{option}"):
        fit(noisy, dataclasses.replace(QUICK, **{option: value}), Execution())
