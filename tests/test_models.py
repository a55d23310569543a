"""Kinetic models: what each must do, and how they are looked up, added, held and changed."""

import dataclasses
import importlib.metadata
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asl_pinn import models
from asl_pinn.errors import InputError
from asl_pinn.models import Blood, Buxton, InferredT1, Prior, Timing, Tissue
from asl_pinn.models.arterial import EDGE_SD
from asl_pinn.models.kernels import GammaKernel, GaussianKernel, inflow

pytestmark = pytest.mark.usefixtures("float64")

REGISTERED = {
    name: models.get(name if make().has_signal else f"buxton+{name}")
    for name, make in models.MODELS.items()
}
"""Every model of the package, those without a signal added to one that has."""

SUMS = ("buxton+arterial", "pulsed+dispersion", "exchange+dispersion-gaussian")
ALL = {
    name: model.softened()
    for name, model in (REGISTERED | {name: models.get(name) for name in SUMS}).items()
}

TAU = st.floats(0.05, 4.0)
T = st.floats(0.0, 8.0)
SLOPE = st.floats(-3.0, 3.0)
BLOOD = Blood(t1_blood=1.65, labeling_efficiency=0.85)
TISSUE = Tissue(m0=1.0, t1_tissue=1.33, partition_coefficient=0.9, gm=0.5, wm=0.3)

every_model = pytest.mark.parametrize("name", REGISTERED)


def arrived(name: str, at: dict[str, float], u: float) -> float:
    """Fraction of the leading edge that is there a time u after the arrival, by SciPy."""
    if "dispersion_rate" in at:
        shape = 1.0 + at["dispersion_rate"] * at["dispersion_time_to_peak"]
        return float(scipy.special.gammainc(shape, at["dispersion_rate"] * max(u, 0.0)))
    if "dispersion_sd" in at:
        return float(scipy.special.ndtr(u / at["dispersion_sd"]))
    return float(u > 0.0)


def convolution_of_tissue(name, at, t, tau, residue) -> float:
    """Arriving bolus convolved with the residue of tissue, by quadrature."""
    x, t1_blood = t - at["att"], at.get("t1_blood", 1.65)
    decay = 1.0 / t1_blood if "pulsed" in name else 0.0

    def product(u: float) -> float:
        bolus = arrived(name, at, u) - arrived(name, at, u - tau)
        return np.exp(-decay * u) * bolus * residue(x - u)

    # Where the edges are steep, and where there is nothing before
    width = 8.0 * spread(name, at)
    begin = -width if "dispersion_sd" in at else 0.0
    steps = (-0.1 * width, 0.0, 0.01 * width, 0.1 * width, width)
    knots = sorted({edge + step for edge in (0.0, tau) for step in steps})
    knots = [begin, *(knot for knot in knots if begin < knot < x), x]
    if x <= begin:
        return 0.0
    parts = [
        scipy.integrate.quad(product, *ends, epsabs=1e-12, epsrel=1e-9)[0]
        for ends in itertools.pairwise(knots)
    ]
    flow = at["cbf"] / 6000.0
    return 2.0 * 0.85 / 0.9 * flow * np.exp(-at["att"] / t1_blood) * sum(parts)


def one_compartment(name, at, t, tau) -> float:
    rate = 1.0 / at.get("t1_tissue", 1.33) + at["cbf"] / 6000.0 / 0.9
    return convolution_of_tissue(name, at, t, tau, lambda u: np.exp(-rate * u))


def two_compartments(name, at, t, tau) -> float:
    """Capillary blood, and tissue that takes up what leaves it, by its differential equation."""
    # d blood / du = -(kw + 1/T1b) blood, d tissue / du = kw blood - tissue / T1
    exchanged = at["exchange_rate"]
    rates, modes = np.linalg.eig([[-exchanged - 1.0 / 1.65, 0.0], [exchanged, -1.0 / 1.33]])
    weights = modes.sum(axis=0) * np.linalg.solve(modes, [1.0, 0.0])

    def residue(u: float) -> float:
        return weights @ np.exp(rates * u)

    return convolution_of_tissue(name, at, t, tau, residue)


def artery(name, at, t, tau) -> float:
    x = t - at["abat"]
    bolus = scipy.special.ndtr(x / EDGE_SD) - scipy.special.ndtr((x - tau) / EDGE_SD)
    return 2.0 * 0.85 / 0.9 * at["abv"] * np.exp(-at["abat"] / 1.65) * bolus


def two_tissues(name, at, t, tau) -> float:
    """Grey and white matter, each by a quadrature of its own, over the M0 of the voxel's blood."""
    total = 0.0
    for label, fraction, t1, coefficient in (("gm", 0.5, 1.33, 0.98), ("wm", 0.3, 0.83, 0.82)):
        own = {"cbf": at[f"cbf_{label}"], "att": at[f"att_{label}"]}
        rate = 1.0 / t1 + own["cbf"] / 6000.0 / coefficient
        signal = convolution_of_tissue(name, own, t, tau, lambda u, r=rate: np.exp(-r * u))
        total += fraction * signal * 0.9 / (0.5 * 0.98 + 0.3 * 0.82 + 0.2 * 1.15)
    return total


def reference(name: str, values: list[float], t: float, tau: float) -> float:
    at = dict(zip(ALL[name].names, values, strict=True))
    parts = {
        "cbf": two_compartments if "exchange_rate" in at else one_compartment,
        "abv": artery,
        "cbf_gm": two_tissues,
    }
    return sum(part(name, at, t, tau) for amplitude, part in parts.items() if amplitude in at)


def spread(name: str, at: dict[str, float]) -> float:
    """SD of the steepest edge of the curve [s]; 0 for sharp ones."""
    if "dispersion_rate" in at:
        rate = at["dispersion_rate"]
        return np.sqrt(1.0 + rate * at["dispersion_time_to_peak"]) / rate
    return at.get("dispersion_sd", EDGE_SD if "abv" in at else 0.0)


def signal(name, values, t, tau, m0=1.0, efficiency=0.85):
    tissue, blood = TISSUE._replace(m0=m0), BLOOD._replace(labeling_efficiency=efficiency)
    return ALL[name].signal(values, Timing(t, tau), tissue, blood)


def derivative(name, values, t, tau, slope):
    return ALL[name].time_derivative(values, Timing(t, tau), TISSUE, BLOOD, slope)


def basis(name, values, t, tau):
    """Sum of the curves of the linear parameters at their typical values."""
    model, at = ALL[name], dict(zip(ALL[name].names, values, strict=True))
    held, kinked = ([at[p.name] for p in group] for group in (model.smooth, model.kinked))
    return sum(model.basis(held, Timing(t, tau), TISSUE, BLOOD)(*kinked))


SIGNAL, DERIVATIVE, BASIS = (
    jax.jit(function, static_argnums=0) for function in (signal, derivative, basis)
)
GRADIENT, GRADIENT_OF_DERIVATIVE = (
    jax.jit(jax.value_and_grad(function, argnums=(1, 2, 3)), static_argnums=0)
    for function in (signal, derivative)
)


def drawn(data, name: str) -> list[float]:
    """A value for each parameter, anywhere within its bounds."""
    return [data.draw(st.floats(p.lower, p.upper), p.name) for p in ALL[name].parameters]


def step_for(name: str, values: list[float], distance: float) -> float:
    """A step for differences of the curve at a distance from its kinks [s]."""
    width = spread(name, dict(zip(ALL[name].names, values, strict=True)))
    return min(1e-2, distance / 4.0) if width == 0.0 else min(width, distance) / 40.0


def kinks(name: str, values: list[float], tau: float) -> list[float]:
    """Times at which a bolus arrives or ends."""
    at = dict(zip(ALL[name].names, values, strict=True))
    arrivals = [at[p.name] for p in ALL[name].kinked]
    return [*arrivals, *(arrival + tau for arrival in arrivals)]


def steepest(name: str, values: list[float]) -> float:
    """Slope of the curve at its arrival, were there no decay [M0/s]."""
    at = dict(zip(ALL[name].names, values, strict=True))
    flow = sum(value for key, value in at.items() if key.startswith("cbf")) / 6000.0
    return 2.0 * 0.85 / 0.8 * (flow + at.get("abv", 0.0) / EDGE_SD)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data(), t=T, tau=TAU)
def test_curve_is_the_convolution_of_bolus_and_residue(name, data, t, tau):
    values = drawn(data, name)
    expected = reference(name, values, t, tau)
    assert float(SIGNAL(name, values, t, tau)) == pytest.approx(expected, rel=1e-6, abs=1e-10)


@every_model
@given(data=st.data(), t=T, tau=TAU, slope=SLOPE)
def test_derivative_is_the_central_difference_along_the_schedule(name, data, t, tau, slope):
    values = drawn(data, name)
    distance = min([tau, *(abs(t - kink) for kink in kinks(name, values, tau))])
    assume(distance > 1e-3)
    step = step_for(name, values, distance / (1.0 + abs(slope)))

    def along(offset: float) -> float:
        return float(SIGNAL(name, values, t + offset, tau + slope * offset))

    fourth_order = 8.0 * (along(step) - along(-step)) - (along(2.0 * step) - along(-2.0 * step))
    assert float(DERIVATIVE(name, values, t, tau, slope)) == pytest.approx(
        fourth_order / (12.0 * step), rel=1e-6, abs=1e-6 * steepest(name, values) + 1e-12
    )


@every_model
@settings(max_examples=30)
@given(data=st.data(), t=st.floats(0.1, 8.0), tau=TAU)
def test_gradients_are_central_differences(name, data, t, tau):
    values = [
        data.draw(st.floats(max(p.lower, 1e-3 * p.upper), p.upper)) for p in ALL[name].parameters
    ]
    distance = min([tau, *(abs(t - kink) for kink in kinks(name, values, tau))])
    assume(distance > 1e-3)
    _, (by_parameter, by_t, by_tau) = GRADIENT(name, values, t, tau)
    everything = np.array([*values, t, tau])
    for place, gradient in enumerate((*by_parameter, by_t, by_tau)):
        step = min(step_for(name, values, distance), 1e-3 * everything[place])

        def along(offset: float, place: int = place) -> float:
            *moved, at, duration = everything + offset * (np.arange(len(everything)) == place)
            return float(SIGNAL(name, moved, at, duration))

        fourth_order = 8.0 * (along(step) - along(-step)) - (along(2.0 * step) - along(-2.0 * step))
        rounding = 1e-14 * steepest(name, values) / step
        assert float(gradient) == pytest.approx(
            fourth_order / (12.0 * step), rel=1e-5, abs=1e-6 * steepest(name, values) + rounding
        )


@every_model
def test_float32_is_as_good_as_its_precision(name):
    rng = np.random.default_rng(0)
    columns = [rng.uniform(p.lower, p.upper, 300) for p in ALL[name].parameters]
    t, tau = rng.uniform(0.0, 8.0, 300), rng.uniform(0.05, 4.0, 300)
    expected = SIGNAL(name, columns, t, tau)
    with jax.enable_x64(False):
        found = SIGNAL(name, [np.float32(c) for c in columns], np.float32(t), np.float32(tau))
        assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@every_model
@given(data=st.data(), t=T, tau=TAU, slope=SLOPE)
def test_values_and_gradients_are_finite_everywhere_also_at_kinks(name, data, t, tau, slope):
    values = drawn(data, name)
    t = data.draw(st.sampled_from([t, *kinks(name, values, tau)]))
    found = GRADIENT(name, values, t, tau), GRADIENT_OF_DERIVATIVE(name, values, t, tau, slope)
    assert np.isfinite(jax.tree.leaves(found)).all()


@every_model
def test_curve_is_continuous_at_its_kinks(name):
    step = 1e-9
    ends = [(p.lower, p.typical, p.upper) for p in ALL[name].parameters]
    for *values, tau in itertools.product(*ends, (0.05, 1.8, 4.0)):
        for kink in kinks(name, values, tau):
            below, above = SIGNAL(name, values, np.array([kink - step, kink + step]), tau)
            most = 2.0 * step * steepest(name, values) + 1e-15
            assert abs(float(above - below)) <= most


@every_model
@given(data=st.data(), t=T, tau=TAU, m0=st.floats(0.1, 1e6), efficiency=st.floats(0.1, 1.0))
def test_signal_scales_with_m0_and_efficiency_and_vanishes_without_amplitudes(
    name, data, t, tau, m0, efficiency
):
    values = drawn(data, name)
    expected = m0 * efficiency / 0.85 * float(SIGNAL(name, values, t, tau))
    found = float(SIGNAL(name, values, t, tau, m0, efficiency))
    assert found == pytest.approx(expected, rel=1e-12)
    nothing = [0.0 if p.linear else v for p, v in zip(ALL[name].parameters, values, strict=True)]
    assert float(SIGNAL(name, nothing, t, tau, m0)) == 0.0


@every_model
@given(data=st.data(), t=T, tau=TAU)
def test_basis_adds_up_to_the_signal_at_typical_amplitudes(name, data, t, tau):
    pairs = zip(ALL[name].parameters, drawn(data, name), strict=True)
    values = [p.typical if p.linear else value for p, value in pairs]
    expected = float(SIGNAL(name, values, t, tau))
    assert float(BASIS(name, values, t, tau)) == pytest.approx(expected, rel=0.0, abs=1e-12)


@every_model
def test_tables_are_sound(name):
    for p in ALL[name].parameters:
        assert p.lower < p.typical < p.upper
        assert p.scale > 0.0
        assert all((p.name, p.label, p.symbol, p.unit))
        assert p.file_suffix.isalnum()  # as BIDS asks for
        assert p.lower > 0.0 or (p.lower == 0.0 and p.link == "softplus") or p.link == "identity"
        if p.prior is not None and p.prior.mean is None:
            assert p.name in (*Tissue._fields, *Blood._fields)
    assert len(set(ALL[name].names)) == len(ALL[name].names)
    grouped = ALL[name].linear + ALL[name].kinked + ALL[name].smooth
    assert sorted(p.name for p in grouped) == sorted(ALL[name].names)
    assert ALL[name].linear
    assert ALL[name].description


@every_model
def test_models_are_pytrees_and_pickle(name):
    amplitude, kinked = ALL[name].linear[0].name, ALL[name].kinked[0].name
    changed = models.with_bounds(ALL[name], **{amplitude: (0.1, 0.9)})
    changed = models.fix(changed, **{kinked: 1.3})
    for model in (ALL[name], changed):
        assert pickle.loads(pickle.dumps(model)) == model
        assert jax.tree.map(lambda leaf: leaf, model) == model
        doubled = jax.tree.map(lambda leaf: 2.0 * leaf, model)
        assert doubled.names == model.names
        assert doubled[amplitude].upper == 2.0 * model[amplitude].upper


def test_centres_are_prior_means_stated_constants_or_typical_values():
    stated = Tissue(1.0, np.array([1.1, 1.4]), 0.9)
    cbf, att, t1 = models.get("buxton+t1").centres(stated, BLOOD)
    assert (cbf, att) == (Buxton()["cbf"].typical, 1.2)
    assert np.array_equal(t1, [1.1, 1.4])
    moved = models.with_priors(models.get("buxton+t1"), att=(1.5, 0.5), t1_tissue=(1.2, 0.1))
    assert moved.centres(stated, BLOOD)[1:] == (1.5, 1.2)


def test_an_inferred_t1_takes_the_place_of_the_stated_one():
    timing = Timing(3.0, 1.8)
    inferred = models.get("buxton+t1").signal((60.0, 1.2, 1.0), timing, TISSUE, BLOOD)
    stated = Buxton().signal((60.0, 1.2), timing, TISSUE._replace(t1_tissue=1.0), BLOOD)
    assert float(inferred) == float(stated)


TIMES = Timing(np.linspace(0.1, 6.0, 60), 1.8)
PLAIN = np.asarray([60.0, 1.2])


def plain(blood: Blood = BLOOD, t1_tissue: float = 1.33) -> np.ndarray:
    """Buxton's curve in continuous labelling, unless the constants of blood state another bolus."""
    return np.asarray(Buxton().signal(PLAIN, TIMES, TISSUE._replace(t1_tissue=t1_tissue), blood))


def test_without_dispersion_or_decay_of_the_bolus_the_curve_is_buxtons():
    expected = plain()
    assert np.allclose(plain(BLOOD._replace(bolus_decay=0.0)), expected, rtol=1e-10, atol=1e-15)
    for kernel in (GammaKernel(1e6, 0.0), GaussianKernel(1e-6)):
        dispersed = plain(BLOOD._replace(kernel=kernel))
        assert np.abs(dispersed - expected).max() < 1e-3 * expected.max()
        both = plain(BLOOD._replace(kernel=kernel, bolus_decay=0.0))
        assert np.allclose(both, dispersed, rtol=1e-6, atol=1e-9 * expected.max())


def test_dispersion_keeps_the_label_and_delays_it_by_the_mean_of_the_kernel():
    late = Timing(np.array([40.0]), 1.8)
    endless = TISSUE._replace(t1_tissue=1e9)

    def total(kernel, att=1.2):
        values, blood = (1e-3, att), BLOOD._replace(kernel=kernel, t1_blood=1e9)
        return float(Buxton().signal(values, late, endless, blood)[0])

    assert total(GammaKernel(7.4, 0.1)) == pytest.approx(total(None), rel=1e-5)
    assert total(GaussianKernel(0.3)) == pytest.approx(total(None), rel=1e-5)
    u = np.linspace(0.0, 10.0, 20001)
    mean = scipy.integrate.simpson(1.0 - np.asarray(GammaKernel(7.4, 0.1).arrived(u)), x=u)
    assert mean == pytest.approx(0.1 + 1.0 / 7.4, rel=1e-6)


def test_exchange_without_hindrance_is_one_compartment_and_without_any_is_blood():
    def curve(exchange_rate):
        return models.Exchange().signal((60.0, 1.2, exchange_rate), TIMES, TISSUE, BLOOD)

    # Label leaves the tissue by relaxation alone, which Buxton's curve does at this T1
    assert np.allclose(curve(1e7), plain(t1_tissue=1.0 / (1.0 / 1.33 - 0.01 / 0.9)), rtol=1e-5)
    assert np.allclose(curve(0.0), plain(t1_tissue=1.0 / (1.0 / 1.65 - 0.01 / 0.9)), rtol=1e-10)


def test_exchange_is_smooth_where_both_compartments_lose_label_at_one_rate():
    same = 1.0 / 1.33 - 1.0 / 1.65

    def curve(exchange_rate):
        return models.Exchange().signal((60.0, 1.2, exchange_rate), TIMES, TISSUE, BLOOD)

    around = np.asarray([curve(same + step) for step in (-1e-3, 0.0, 1e-3)])
    assert np.allclose(around[1], 0.5 * (around[0] + around[2]), rtol=1e-6)
    slope = jax.jvp(curve, (same,), (1.0,))[1]
    assert np.allclose(slope, (around[2] - around[0]) / 2e-3, rtol=1e-4, atol=1e-9)


def test_no_arterial_blood_leaves_the_tissue():
    both = models.get("buxton+arterial").signal((*PLAIN, 0.0, 0.8), TIMES, TISSUE, BLOOD)
    assert np.array_equal(both, plain())


def test_pulsed_label_has_one_age_in_tissue_and_arteries():
    model = models.get("pulsed+arterial")
    early = Timing(np.array([1.1, 1.2]), 0.8)
    signal = model.signal((0.0, 1.9, 0.01, 0.8), early, TISSUE, BLOOD)
    assert np.allclose(signal, 2.0 * 0.85 / 0.9 * 0.01 * np.exp(-early.t / 1.65), rtol=1e-6)
    # T1' is T1b here, so that label decays alike wherever it is
    tissue = TISSUE._replace(t1_tissue=1.0 / (1.0 / 1.65 - 0.01 / 0.9))
    inside = np.clip(TIMES.t - 1.2, 0.0, 1.8)
    expected = 2.0 * 0.85 / 0.9 * 0.01 * np.exp(-TIMES.t / 1.65) * inside
    pulsed = models.Pulsed().signal(PLAIN, TIMES, tissue, BLOOD)
    assert np.allclose(pulsed, expected, rtol=1e-10, atol=1e-15)
    assert np.isfinite(
        jax.jacfwd(lambda v: models.Pulsed().signal(v, TIMES, tissue, BLOOD))(PLAIN)
    ).all()


@pytest.mark.parametrize("order", ["pulsed+t1_blood+arterial", "t1_blood+arterial+pulsed"])
def test_an_inferred_t1_of_blood_takes_the_place_of_the_stated_one(order):
    values = {"cbf": 60.0, "att": 1.2, "abv": 0.01, "abat": 0.8}
    times = {"t": TIMES.t, "label_duration": 1.8}
    expected = models.get("pulsed+arterial").curve(values, **times, t1_blood=1.5)
    found = models.get(order).curve(values | {"t1_blood": 1.5}, **times, t1_blood=1.8)
    assert np.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("kernel", [GammaKernel(3.0, 0.2), GaussianKernel(0.4)])
def test_what_remains_of_dispersed_label_is_right_at_any_rate(kernel):
    rates = np.array([-0.6, 0.0, 1e-9, 0.75, 3.0, 3.0 + 1e-6, 12.0])
    density = jax.jit(jax.vmap(jax.grad(kernel.arrived)))
    remaining, collected = jax.jit(kernel.remaining), jax.jit(lambda x, r: inflow(kernel, x, r))
    for x in (-0.3, 0.05, 0.7, 3.0, 9.0):
        u = np.linspace(min(x, 0.0) - 4.0, x, 40001)
        terms = np.asarray(density(u)) * np.exp(-rates[:, None] * (x - u))
        expected = scipy.integrate.simpson(terms, x=u)
        assert np.allclose(remaining(x, rates), expected, rtol=1e-5, atol=1e-8)
    low, middle, high = (collected(2.0, rates + step) for step in (-1e-4, 0.0, 1e-4))
    assert np.allclose(middle, 0.5 * (low + high), rtol=1e-6)


def test_shared_parameters_may_vary_by_voxel():
    model = models.get("buxton+dispersion+t1_blood")
    assert [p.name for p in model.parameters if p.shared] == [
        "dispersion_rate",
        "dispersion_time_to_peak",
        "t1_blood",
    ]
    varying = models.per_voxel(model, "dispersion_rate", "t1_blood")
    assert [p.name for p in varying.parameters if p.shared] == ["dispersion_time_to_peak"]
    assert varying["t1_blood"].prior == model["t1_blood"].prior
    assert models.per_voxel(model) is model
    with pytest.raises(InputError, match="ATT varies by voxel already"):
        models.per_voxel(model, "att")
    with pytest.raises(InputError, match="no parameter 'abv'"):
        models.per_voxel(model, "abv")


@dataclasses.dataclass(frozen=True)
class Offset(models.KineticModel):
    """A signal that is there from the start, to add to others."""

    parameters: tuple[models.Parameter, ...] = (
        models.Parameter(
            name="offset",
            label="offset",
            symbol="offset",
            unit="1",
            typical=0.01,
            lower=0.0,
            upper=1.0,
            scale=0.1,
            linear=True,
            link="softplus",
        ),
    )
    name = "offset"
    description = "a constant"
    references = ("A work on offsets.",)

    def signal(self, values, timing, tissue, blood):
        return tissue.m0 * values[0] + 0.0 * jnp.asarray(timing.t)


jax.tree_util.register_dataclass(Offset)


def test_a_sum_has_the_parameters_in_order_and_adds_the_signals():
    three = Buxton() + Offset() + InferredT1()
    assert three.names == ("cbf", "att", "offset", "t1_tissue")
    assert three.name == "buxton+offset+t1"
    assert three.references == (*Buxton.references, *Offset.references)
    values, timing = (60.0, 1.2, 0.02, 1.1), Timing(np.array([1.0, 3.0]), 1.8)
    alone = Buxton().signal(values[:2], timing, TISSUE._replace(t1_tissue=1.1), BLOOD)
    assert np.allclose(three.signal(values, timing, TISSUE, BLOOD), alone + 0.02, rtol=1e-12)
    curves = three.basis((1.1,), timing, TISSUE, BLOOD)(1.2)
    assert np.allclose(curves[0] * 60.0 / 40.0, alone, rtol=0.02)
    assert np.allclose(curves[1], 0.01)


def test_the_order_of_the_summands_does_not_matter():
    parts = (Buxton(), Offset(), InferredT1())
    values = {"cbf": 60.0, "att": 1.2, "offset": 0.02, "t1_tissue": 1.1}
    found = []
    for first, second, third in itertools.permutations(parts):
        for model in ((first + second) + third, first + (second + third)):
            assert model.names == sum((part.names for part in (first, second, third)), ())
            found.append(float(model.curve(values, t=2.5, label_duration=1.8)))
    assert np.allclose(found, found[0], rtol=1e-12)


@pytest.mark.parametrize(
    "make", [lambda: Buxton() + Buxton(), lambda: models.get("buxton+t1") + InferredT1()]
)
def test_a_parameter_that_occurs_twice_is_refused(make):
    with pytest.raises(InputError, match="occurs twice"):
        make()


def test_a_held_parameter_is_gone_and_keeps_its_value():
    model = models.get("buxton+t1")
    timing = Timing(np.array([1.0, 3.0]), 1.8)
    for held in ({"att": 1.3}, {"t1_tissue": 1.1}, {"att": 1.3, "t1_tissue": 1.1}):
        fixed = models.fix(model, **held)
        values = {"cbf": 60.0, "att": 1.0, "t1_tissue": 1.5} | held
        free = [values[name] for name in fixed.names]
        assert fixed.names == tuple(name for name in model.names if name not in held)
        expected = model.signal(list(values.values()), timing, TISSUE, BLOOD)
        assert np.array_equal(fixed.signal(free, timing, TISSUE, BLOOD), expected)
        at = {"t1_tissue": 1.5, "att": 1.0}
        smooth, kinked = ([at[p.name] for p in g] for g in (fixed.smooth, fixed.kinked))
        typical = [40.0, *(values[name] for name in ("att", "t1_tissue"))]
        (curve,) = fixed.basis(smooth, timing, TISSUE, BLOOD)(*kinked)
        assert np.allclose(curve, model.signal(typical, timing, TISSUE, BLOOD), atol=1e-12)
    assert "ATT held at 1.3 s" in models.fix(model, att=1.3).description
    assert models.fix(model) is model


def test_a_model_is_held_in_steps_and_added_to_others():
    steps = models.fix(models.fix(models.get("buxton+t1"), att=1.3), t1_tissue=1.1)
    added = models.fix(Buxton(), att=1.3) + models.fix(InferredT1(), t1_tissue=1.1)
    once = models.fix(models.get("buxton+t1"), att=1.3, t1_tissue=1.1)
    found = [m.curve({"cbf": 60.0}, t=3.0, label_duration=1.8) for m in (steps, added, once)]
    assert np.array_equal(found, [found[0]] * 3)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"abv": 0.1}, "no parameter 'abv', only cbf, att"),
        ({"cbf": 50.0}, "CBF is an amplitude and cannot be held"),
        ({"att": 4.5}, "ATT is held at 4.5 s, outside its bounds of 0.05 to 4 s"),
        ({"att": float("nan")}, "ATT is held at nan s"),
    ],
)
def test_what_cannot_be_held_is_refused(held, message):
    with pytest.raises(InputError, match=message):
        models.fix(Buxton(), **held)


def test_bounds_and_priors_change_the_table_alone():
    model = models.with_bounds(models.get("buxton+t1"), cbf=(5.0, 90.0), t1_tissue=(0.5, 2.0))
    model = models.with_priors(model, att=(1.0, 0.3), cbf=(50.0, 20.0))
    assert (model["cbf"].lower, model["cbf"].upper) == (5.0, 90.0)
    assert (model["t1_tissue"].lower, model["t1_tissue"].upper) == (0.5, 2.0)
    assert (model["att"].lower, model["att"].upper) == (0.05, 4.0)
    assert model["att"].prior == Prior(1.0, 0.3, weak=True)
    assert model["cbf"].prior == Prior(50.0, 20.0, weak=False)
    assert model["t1_tissue"].prior == InferredT1()["t1_tissue"].prior
    assert Buxton()["cbf"].prior is None
    held = models.fix(model, att=1.3)
    assert models.with_bounds(held, cbf=(0.0, 70.0))["cbf"].upper == 70.0


def test_none_keeps_a_bound_or_what_a_prior_has():
    model = models.with_bounds(models.get("buxton+t1"), att=(None, 2.0), cbf=(10.0, None))
    assert (model["att"].lower, model["att"].upper) == (0.05, 2.0)
    assert (model["cbf"].lower, model["cbf"].upper) == (10.0, 200.0)
    model = models.with_priors(model, att=(1.0, None), t1_tissue=(None, 0.02))
    assert model["att"].prior == Prior(1.0, 1.0, weak=True)
    assert model["t1_tissue"].prior == Prior(None, 0.02, weak=False)


@pytest.mark.parametrize("bounds", [(2.0, 1.0), (1.0, 1.0), (-1.0, 2.0), (1.0, np.inf)])
def test_bounds_out_of_order_are_refused(bounds):
    with pytest.raises(InputError, match="bounds of ATT"):
        models.with_bounds(Buxton(), att=bounds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: models.with_bounds(Buxton(), att=(0.0, 2.0)), "lower bound of ATT .* above 0"),
        (lambda: models.with_bounds(Buxton(), att=(np.nan, 2.0)), "bounds of ATT"),
        (lambda: models.with_bounds(Buxton(), abv=(0.1, 2.0)), "no parameter 'abv'"),
        (lambda: models.with_priors(Buxton(), abv=(0.1, 2.0)), "no parameter 'abv'"),
        (lambda: models.with_priors(Buxton(), att=(9.0, 1.0)), "prior of ATT"),
        (lambda: models.with_priors(Buxton(), att=(1.0, 0.0)), "positive SD"),
        (lambda: models.with_priors(Buxton(), att=(1.0, np.inf)), "positive SD"),
        (lambda: models.with_priors(Buxton(), att=(np.nan, 1.0)), "prior of ATT"),
        (lambda: models.with_priors(Buxton(), cbf=(50.0, None)), "prior of CBF"),
        (lambda: models.with_priors(Buxton(), cbf=(None, 10.0)), "prior of CBF"),
        (lambda: models.with_bounds(Buxton(), att=(5.0, None)), "bounds of ATT"),
    ],
)
def test_impossible_bounds_and_priors_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        change()


def test_other_bounds_priors_and_held_values_compile_nothing_anew():
    traced = []

    @jax.jit
    def fitted(model, t):
        traced.append(model.names)
        values = [p.upper if p.prior is None else p.prior.sd for p in model.parameters]
        return model.signal(values, Timing(t, 1.8), TISSUE, BLOOD)

    first = fitted(Buxton(), 2.5)
    for model in (
        models.with_bounds(Buxton(), cbf=(0, 100)),
        models.with_bounds(Buxton(), att=(0.1, 3.0)),
        models.with_priors(Buxton(), att=(1, 0.5)),
    ):
        fitted(model, 2.5)
    assert float(fitted(models.with_bounds(Buxton(), cbf=(0.0, 100.0)), 2.5)) < float(first)
    for att in (1, 1.3):
        fitted(models.fix(Buxton(), att=att), 2.5)
    assert traced == [("cbf", "att"), ("cbf",)]


@pytest.mark.parametrize("name", ["buxtn", "", "buxton+", "buxton+nothing"])
def test_unknown_models_are_refused_with_what_there_is(name):
    with pytest.raises(InputError, match=r"unknown model '\w*'; choose buxton, pulsed, "):
        models.get(name)


def test_a_model_without_a_signal_is_refused_alone():
    with pytest.raises(InputError, match="t1 has no signal of its own"):
        models.get("t1")


OUTSIDE = """
import jax
from asl_pinn.models import Buxton

@jax.tree_util.register_dataclass
class Doubled(Buxton):
    name = "doubled"

    def signal(self, values, timing, tissue, blood):
        return 2.0 * super().signal(values, timing, tissue, blood)

class Broken(Buxton):
    def __init__(self):
        raise ValueError("no licence")

A_NUMBER = 3
Nothing = dict
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module with models, from outside the package."""
    (tmp_path / "models_of_mine.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    return "models_of_mine"


def test_a_model_is_found_by_its_module(outside):
    values, times = {"cbf": 60.0, "att": 1.2}, {"t": 2.5, "label_duration": 1.8}
    doubled = models.get(f"{outside}:Doubled")
    assert float(doubled.curve(values, **times)) == pytest.approx(
        2.0 * float(Buxton().curve(values, **times))
    )
    assert models.get(f"{outside}:Doubled+t1").names == ("cbf", "att", "t1_tissue")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Model", "cannot be loaded: No module named 'no_such_module'"),
        ("models_of_mine:Missing", "cannot be loaded: .*no attribute 'Missing'"),
        ("models_of_mine:A_NUMBER", "cannot be loaded: .*not callable"),
        ("models_of_mine:Broken", "cannot be loaded: no licence"),
        ("models_of_mine:Nothing", "is not a KineticModel but a dict"),
        (":Doubled", "cannot be loaded"),
        (".models_of_mine:Doubled", "cannot be loaded"),
    ],
)
@pytest.mark.usefixtures("outside")
def test_a_model_that_cannot_be_loaded_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        models.get(name)


@pytest.fixture
def registered(outside, monkeypatch):
    """Entry points of an installed package."""
    points = [
        importlib.metadata.EntryPoint(name, f"{outside}:{value}", "asl_pinn.models")
        for name, value in {"mine": "Doubled", "broken": "Missing", "buxton": "Doubled"}.items()
    ]
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [point for point in points if point.group == group],
    )


@pytest.mark.usefixtures("registered")
def test_a_model_is_found_by_its_entry_point_and_replaces_none_of_the_packages():
    assert models.get("mine+t1").name == "doubled+t1"
    assert tuple(models.available()) == (*models.MODELS, "mine", "broken")
    assert type(models.get("buxton")) is Buxton
    with pytest.raises(InputError, match="model 'broken' cannot be loaded"):
        models.get("broken")
    with pytest.raises(InputError, match=r"choose buxton, .*, mine, broken"):
        models.get("other")


def test_curve_takes_lists_and_arrays_and_broadcasts():
    model, times = models.get("buxton"), {"t": [1.0, 2.0, 3.6], "label_duration": 1.8}
    one = model.curve({"cbf": 60.0, "att": 1.2}, **times)
    # Per cent of M0 before the arrival, during inflow and after the end of a bolus of 1.8 s
    assert np.allclose(100.0 * one, [0.0, 0.547, 0.565], atol=5e-4)
    for array in (list, np.array, jnp.array):
        shaped = {key: array(value) for key, value in times.items() if key == "t"}
        found = model.curve(
            {"att": array([[1.2], [0.7]]), "cbf": array([60.0])},
            **shaped,
            label_duration=array([1.8]),
            m0=array([1000.0]),
            t1_tissue=array([1.33]),
            t1_blood=array([1.65]),
            labeling_efficiency=array([0.85]),
            partition_coefficient=array([0.9]),
        )
        assert found.shape == (2, 3)
        assert np.allclose(found[0], 1000.0 * one, rtol=1e-12)


def test_curve_names_what_is_missing_or_unknown():
    for values in ({}, {"cbf": 60.0}, {"cbf": 60.0, "att": 1.2, "abv": 0.1}):
        with pytest.raises(InputError, match="model buxton takes cbf, att, not"):
            Buxton().curve(values, t=1.0, label_duration=1.0)


def test_parameters_are_named_for_people():
    cbf, att, t1 = models.get("buxton+t1").parameters
    assert cbf.heading == "CBF [mL/100g/min]"
    assert dataclasses.replace(att, unit="1").heading == "ATT"
    assert (cbf.file_suffix, att.file_suffix, t1.file_suffix) == ("cbf", "att", "T1map")
