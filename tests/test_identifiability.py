"""Models that a protocol cannot determine."""

import dataclasses

import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.errors import InputError
from asl_pinn.estimators.identifiability import check_identifiable
from asl_pinn.evaluation.cramer_rao import cramer_rao_sd
from asl_pinn.problem import make_problem, take
from asl_pinn.simulation.acquire import simulate


def problem(phantom, model, plds=None, protocol=None, tsnr=5.0):
    if plds is not None:
        protocol = Protocol(np.full(len(plds), 1.8), np.array(plds))
    chosen = models.get(model).softened()  # as estimators fit it
    data = simulate(phantom, protocol, tsnr=tsnr, seed=0)
    return make_problem(data, chosen, "float32")


@pytest.mark.parametrize("model", ["buxton", "buxton+arterial"])
def test_models_that_the_delays_determine_pass_in_silence(phantom, protocol, model):
    assert check_identifiable(problem(phantom, model, protocol=protocol)) == ()


def test_arteries_on_three_delays_are_refused_with_the_model_to_use(phantom):
    with pytest.raises(InputError, match=r"3 delay.* aBV.*: use --model=buxton$"):
        check_identifiable(problem(phantom, "buxton+arterial", [0.5, 1.2, 1.8]))


def test_tissue_alone_is_left_to_what_the_methods_need(phantom):
    assert check_identifiable(problem(phantom, "buxton", [2.0, 2.4, 2.8])) == ()


def test_a_parameter_that_follows_its_prior_is_named_once(phantom, protocol):
    quiet = check_identifiable(problem(phantom, "buxton+t1", protocol=protocol, tsnr=50.0))
    (said,) = check_identifiable(problem(phantom, "buxton+t1", protocol=protocol, tsnr=0.5))
    assert quiet == ()
    assert "T1 (expected SD" in said
    assert "CBF" not in said


@pytest.mark.parametrize("model", ["buxton+arterial", "buxton+dispersion-gaussian", "exchange"])
def test_every_model_has_a_bound(phantom, protocol, model):
    """Dispersion is told by hardly any voxel, so that its prior is its bound."""
    some = take(problem(phantom, model, protocol=protocol), slice(0, 6))
    some = dataclasses.replace(some, noise_sd=np.float32(1.0))
    values = np.stack([np.full(6, p.typical) for p in some.model.parameters])
    bounds = cramer_rao_sd(some, values)
    assert np.isfinite(bounds).all()
    for p, bound in zip(some.model.parameters, bounds, strict=True):
        assert (bound > 0.0).all()
        if p.knowledge:
            assert (bound <= p.knowledge.sd * 1.001).all()
