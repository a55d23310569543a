import dataclasses

import numpy as np
import pytest
from absl import flags
from neural_cases import ARTERIAL, FIELD, PROTOCOL, WITH_T1, maps, noisy, phantom, with_arteries

from asl_pinn.errors import InputError
from asl_pinn.estimators.neural import NEURAL_FIELD, NeuralFieldOptions
from asl_pinn.estimators.neural.deviations import Deviated, standard_deviations
from asl_pinn.estimators.options import ByParameter, define_flags, options_from_flags
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.simulation.acquire import noise_free, simulate


def test_smooth_maps_without_noise_are_recovered_to_a_few_percent():
    truth = phantom()
    options = NeuralFieldOptions(steps=300, members=2, learning_rate=3e-3)
    found = maps(noise_free(truth, PROTOCOL), options)
    for name in ("cbf", "att"):
        error = np.abs(found[name] - truth[name])[truth.mask] / truth[name][truth.mask]
        assert np.mean(error) < 0.02
        assert error.max() < 0.15


def test_an_inferred_t1_moves_towards_the_truth():
    """The stated T1 is off by one SD of its prior; the data know better."""
    truth = phantom()
    data = simulate(truth, PROTOCOL, tsnr=30.0, seed=0)
    stated = dataclasses.replace(data, t1_tissue=data.t1_tissue - 0.1)
    found = maps(stated, dataclasses.replace(FIELD, width=16, steps=400), WITH_T1)
    error = (found.t1_tissue - truth.t1_tissue)[data.valid]
    assert abs(np.median(error)) < 0.05
    fixed = maps(stated, dataclasses.replace(FIELD, width=16, steps=400))
    bias, bias_where_held = (
        np.median((result.cbf / np.where(truth.mask, truth.cbf, 1.0))[data.valid]) - 1.0
        for result in (found, fixed)
    )
    assert abs(bias) < 0.6 * abs(bias_where_held)


def test_training_reduces_the_error():
    data, truth = noisy(), phantom()
    few, many = (
        maps(data, dataclasses.replace(FIELD, steps=steps, held_out=0.0)) for steps in (1, 150)
    )
    before, after = (np.mean((found.cbf - truth.cbf) ** 2) for found in (few, many))
    assert after < 0.5 * before


def test_what_is_held_out_ends_a_training_and_is_predicted_worse():
    patient = dataclasses.replace(FIELD, steps=2000, patience=1.0, learning_rate=1e-2)
    history = maps(noisy(), patient).history
    assert len(history["loss"]) < 2000
    assert history["held_out"][-1] > history["data"][-1]
    assert "held_out" not in maps(noisy(), dataclasses.replace(FIELD, held_out=0.0)).history


def test_too_much_held_out_is_refused():
    with pytest.raises(InputError, match="--held_out must be at most"):
        maps(noisy(), dataclasses.replace(FIELD, held_out=0.9))


def test_cbf_follows_tissue_only_where_it_may():
    """M0 has an edge that CBF shares and that no smooth function of the position has."""
    truth = phantom()
    edge = np.arange(20)[:, None, None] % 2 == 0
    values = {**truth.values, "cbf": np.where(edge, truth.cbf, 0.4 * truth.cbf)}
    truth = dataclasses.replace(truth, values=values, m0=np.where(edge, 1.0, 0.8) * truth.m0)
    data = simulate(truth, PROTOCOL, tsnr=5.0, seed=1)
    errors = []
    for covariates in ("tissue", "none"):
        options = dataclasses.replace(FIELD, steps=300, covariates=covariates, learning_rate=1e-2)
        errors.append(np.mean((maps(data, options).cbf - truth.cbf)[data.valid] ** 2))
    assert errors[0] < 0.5 * errors[1]


def test_registered():
    assert get_estimator("neural-field") is NEURAL_FIELD


def test_options_become_flags_by_parameter():
    values = flags.FlagValues()
    methods = {"neural-field": NeuralFieldOptions}
    define_flags(methods, values)
    values(["program", "--steps=7", "--omega=att=4"])
    found = options_from_flags(methods, "neural-field", values, WITH_T1.names)
    assert found.steps == 7
    assert found.omega(WITH_T1.names) == (16.0, 4.0, 8.0)
    assert found.output_scale == ByParameter.of(0.5, cbf=1.0)


def test_options_of_the_physics_are_not_among_its_own():
    names = {entry.name for entry in dataclasses.fields(NeuralFieldOptions)}
    assert not {name for name in names if "signal" in name or "physics" in name or "ode" in name}
    assert "bolus" not in names


def test_the_methods_section_says_what_was_done():
    said = NEURAL_FIELD.describe(dataclasses.asdict(NeuralFieldOptions()))
    assert "8 such fits" in said
    assert "12.5 % of the data" in said
    alone = NeuralFieldOptions(covariates="none", held_out=0.0)
    assert "M0" not in NEURAL_FIELD.describe(dataclasses.asdict(alone))


DEVIATING = dataclasses.replace(FIELD, steps=300, learning_rate=1e-2, deviations=True)


def test_single_voxels_deviate_where_the_data_show_it_and_not_where_there_is_only_noise():
    """Detail that no smooth network has, with little noise; then none, with more of it."""
    smooth = phantom()
    detail = np.random.default_rng(0).choice([0.7, 1.3], smooth.mask.shape)
    sharp = dataclasses.replace(
        smooth, values={**smooth.values, "cbf": detail * smooth.cbf}, m0=1000.0 * smooth.mask
    )
    errors = {}
    for name, truth, tsnr in (("sharp", sharp, 30.0), ("smooth", smooth, 1.5)):
        data = simulate(truth, PROTOCOL, tsnr=tsnr, seed=0)
        for deviations in (True, False):
            options = dataclasses.replace(DEVIATING, deviations=deviations)
            found = maps(data, options)
            errors[name, deviations] = np.mean((found.cbf - truth.cbf)[data.valid] ** 2)
    assert errors["sharp", True] < 0.1 * errors["sharp", False]
    assert errors["smooth", True] < 1.1 * errors["smooth", False]


def test_arteries_are_found_in_single_voxels_and_leave_tissue_unbiased():
    truth = with_arteries(phantom())
    data = simulate(truth, PROTOCOL, tsnr=10.0, seed=0, model=ARTERIAL)
    found = maps(data, DEVIATING, ARTERIAL)
    arteries = data.valid & (truth.abv > 0.0)
    elsewhere = data.valid & ~arteries
    assert np.mean(found.abv[arteries] > 0.0) > 0.9
    assert np.mean(found.abv[elsewhere] > 0.0) < 0.02
    assert not found.abat[data.valid & (found.abv == 0.0)].any()
    here = data.valid & (found.abv > 0.0)
    assert (found.abat <= found.att)[here].all()
    np.testing.assert_allclose(np.median((found.abv / 0.02)[arteries]), 1.0, atol=0.1)
    assert abs(np.median((found.att - truth.att)[arteries])) < 0.05
    assert abs(np.median(found.cbf[arteries] / truth.cbf[arteries]) - 1.0) < 0.05


def test_what_a_voxel_does_not_follow_of_a_field_is_not_uncertain_by_it():
    of_field = np.array([[1.0, 1.0, 1.0]])
    kept, own = np.array([[[1.0, 0.5, 0.1]]]), np.array([[0.0, 0.01, 0.09]])
    found = Deviated(of_field, kept, own, own[0])
    np.testing.assert_allclose(standard_deviations(found, of_field), [[1.0, 0.5, 0.3]])
