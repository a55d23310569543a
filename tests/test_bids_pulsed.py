"""Pulsed data from files to maps: what is put in comes out, and no other model fits them."""

import dataclasses
import json

import numpy as np
import pytest
from bids_fixtures import (
    M0,
    MASK,
    PROTOCOL,
    PULSED,
    SHAPE,
    VALIDATOR,
    asl_data,
    phantom,
    validation_errors,
    write_dataset,
)
from numpy.typing import NDArray
from scipy.integrate import quad

import asl_pinn as asl
from asl_pinn import models
from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.io.bids import find_runs, read_run, write_simulation
from asl_pinn.models.choice import default_model
from asl_pinn.simulation.acquire import noise_free
from asl_pinn.viz.reports.methods import methods_text

NLLS = dataclasses.asdict(get_estimator("nlls").options())
CBF, ATT, TI1, TIMES = 60.0, 0.8, 0.7, (0.5, 0.9, 1.3, 1.7, 2.2, 2.8)
PULSED_PROTOCOL = Protocol(
    np.full(len(TIMES), TI1), np.array(TIMES) - TI1, labeling_efficiency=0.9, labeling="pulsed"
)


def convolved(times: tuple[float, ...]) -> NDArray[np.float32]:
    """Signal of a pulsed bolus by numerical convolution: label decays with T1b until it arrives."""
    flow = CBF / 6000.0
    rate = 1.0 / 1.33 + flow / 0.9

    def signal(t: float) -> float:
        last = min(t, ATT + TI1)
        left = quad(lambda s: np.exp(-s / 1.65 - rate * (t - s)), ATT, last)[0] if t > ATT else 0.0
        return 2.0 * 0.8 * 1000.0 / 0.9 * flow * left

    inside = MASK[..., None] * np.array([signal(t) for t in times])
    return inside.astype(np.float32)


def with_times(data: AslData, protocol: Protocol) -> AslData:
    images = np.ones((*SHAPE, protocol.n_delays), np.float32)
    averages = np.ones(protocol.n_delays, np.float32)
    return dataclasses.replace(data, delta_m=images, n_averages=averages, protocol=protocol)


@pytest.mark.parametrize(("times", "held"), [(TIMES, {}), ((1.8,), {"att": ATT})])
def test_cbf_of_a_pulsed_series_is_what_was_put_in(tmp_path, times, held):
    root = write_dataset(
        tmp_path,
        volumes=convolved(times),
        types=("deltam",) * len(times),
        metadata=PULSED | {"PostLabelingDelay": list(times)},
    )
    data = asl.load(root)
    model = default_model(data.protocol)
    maps = asl.fit(data, "nlls", model=model, fix=held, progress=False)
    np.testing.assert_allclose(maps.cbf[MASK], CBF, rtol=2e-3)
    if not held:
        np.testing.assert_allclose(maps.att[MASK], ATT, atol=5e-3)
    text, _ = methods_text(data, maps, get_estimator("nlls"), {"Options": NLLS})
    assert "images of pulsed arterial spin labelling at" in text
    listed = ", ".join(f"{time:g}" for time in times)
    assert f"(bolus duration 0.7 s; inversion time{'s' * (len(times) > 1)} {listed} s)" in text


def test_arrays_of_a_pulsed_series():
    data = AslData.from_arrays(
        convolved(TIMES),
        M0,
        label_duration=TI1,
        pld=np.array(TIMES) - TI1,
        mask=MASK,
        labeling="pulsed",
        vascular_crushing=True,
    )
    assert data.protocol.labeling_efficiency == 0.98
    assert data.protocol.vascular_crushing
    maps = asl.fit(data, "nlls", model="pulsed", progress=False)
    np.testing.assert_allclose(maps.cbf[MASK], CBF * 0.8 / 0.98, rtol=5e-3)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"labeling": "velocity"}, "labeling is 'velocity'; choose continuous or pulsed"),
        ({"pld": -0.1}, "pld must be 0 to 30 s after continuous labelling, it holds -0.1"),
        ({"pld": 1800.0}, "it holds 1800"),
        ({"pld": np.nan}, "it holds nan"),
        ({"label_duration": 0.0}, "label_duration must be above 0"),
        ({"pld": -0.8, "labeling": "pulsed"}, "pld must be above -label_duration"),
    ],
)
def test_times_that_cannot_be(arguments, fault):
    timing = {"label_duration": 0.7, "pld": 1.0} | arguments
    with pytest.raises(InputError, match=fault) as caught:
        AslData.from_arrays(convolved(TIMES), M0, **timing)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "model", "advice"),
    [
        (PULSED_PROTOCOL, "buxton", "use model pulsed"),
        (PULSED_PROTOCOL, "buxton+t1", r"use model pulsed\+t1"),
        (PROTOCOL, "pulsed", "use model buxton"),
    ],
)
def test_a_model_of_the_other_labelling_is_refused(protocol, model, advice):
    """By fits, and by simulations too; the line names the model to use."""
    for refusing in (
        lambda: asl.fit(with_times(asl_data(), protocol), "nlls", model=model, progress=False),
        lambda: noise_free(phantom(), protocol, models.get(model)),
    ):
        with pytest.raises(InputError, match=advice) as caught:
            refusing()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("crushing", [None, True, False])
def test_simulated_pulsed_acquisition_is_read_as_it_was(tmp_path, crushing):
    protocol = dataclasses.replace(PULSED_PROTOCOL, vascular_crushing=crushing)
    simulated = noise_free(phantom(), protocol, models.get("pulsed"))
    write_simulation(tmp_path, phantom(), simulated, seed=0, model=models.get("pulsed"))
    data, _ = read_run(find_runs(tmp_path)[0])
    np.testing.assert_array_equal(data.delta_m, simulated.delta_m)
    np.testing.assert_allclose(data.protocol.label_duration, protocol.label_duration)
    np.testing.assert_allclose(data.protocol.t, protocol.t)
    assert data.protocol.labeling == "pulsed"
    assert data.protocol.vascular_crushing is crushing
    assert data.protocol.labeling_efficiency == 0.9
    sidecar = json.loads((tmp_path / "sub-01" / "perf" / "sub-01_asl.json").read_text())
    assert "LabelingDuration" not in sidecar
    if crushing and VALIDATOR.exists():
        assert validation_errors(tmp_path) == []


def test_pulsed_simulations_that_files_cannot_state(tmp_path):
    several = dataclasses.replace(PULSED_PROTOCOL, label_duration=np.linspace(0.5, 1.0, len(TIMES)))
    with pytest.raises(InputError, match="pulsed labelling has one label duration"):
        write_simulation(tmp_path, phantom(), with_times(asl_data(), several), seed=0)
    data = with_times(asl_data(), PULSED_PROTOCOL)
    with pytest.raises(InputError, match="a pulsed bolus cannot be time-encoded"):
        write_simulation(tmp_path, phantom(), data, seed=0, images=data.delta_m)
