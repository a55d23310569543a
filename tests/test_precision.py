import jax
import numpy as np

from asl_pinn.estimators import get_estimator
from asl_pinn.execution import Execution
from asl_pinn.precision import cramer_rao_sd
from asl_pinn.simulate import noise_free, noise_sd, simulate
from asl_pinn.voxels import gather


def test_voxel_wise_fits_reach_the_bound_where_noise_is_low(phantom, protocol):
    clean = noise_free(phantom, protocol)
    sd = noise_sd(clean, phantom, 60.0)
    voxels = gather(clean, np.float32)
    truth = [np.asarray(m[phantom.mask], np.float32) for m in (phantom.cbf, phantom.att)]
    bounds = cramer_rao_sd(*truth, voxels, protocol, clean.n_averages, sd)
    nlls = get_estimator("nlls")
    options = nlls.options(att_guess_sd=1e3, loss_scale=1e3)
    fits = [
        nlls.fit(simulate(phantom, protocol, tsnr=60.0, seed=seed), options, Execution())
        for seed in range(24)
    ]
    for name, bound, true in zip(("cbf", "att"), bounds, truth, strict=True):
        spread = np.std([getattr(fit, name)[phantom.mask] for fit in fits], axis=0, ddof=1)
        assert np.isclose(np.median(spread / bound), 1.0, atol=0.06), name
        assert np.median(np.abs(getattr(fits[0], name)[phantom.mask] - true) / bound) < 1.0


def test_bound_falls_with_averages(phantom, protocol):
    clean = noise_free(phantom, protocol)
    voxels = jax.tree.map(lambda values: values[:5], gather(clean, np.float32))
    truth = [np.asarray(m[phantom.mask][:5], np.float32) for m in (phantom.cbf, phantom.att)]
    once = cramer_rao_sd(*truth, voxels, protocol, clean.n_averages, 1.0)
    often = cramer_rao_sd(*truth, voxels, protocol, 4.0 * clean.n_averages, 1.0)
    assert np.allclose(np.divide(once, often), 2.0, rtol=1e-4)
