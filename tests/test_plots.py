import dataclasses
import io

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

from asl_pinn import models
from asl_pinn.acquisition.protocol import label_durations, time_encoded_protocol
from asl_pinn.data import AslData, Maps, Phantom, Status
from asl_pinn.errors import InputError
from asl_pinn.evaluation.prediction import predicted
from asl_pinn.viz.plots import (
    axial_view,
    comparison_figure,
    covariate_figure,
    distribution_figure,
    fit_figure,
    histogram_figure,
    history_figure,
    input_figure,
    map_figure,
    mean_curve_figure,
    png,
    probability_figure,
    residual_figure,
    status_figure,
)
from asl_pinn.viz.plots.axial import framed
from asl_pinn.viz.plots.style import limits
from asl_pinn.viz.regions import find_regions

RAS = np.array([[2.0, 0, 0, -10], [0, 3, 0, -12], [0, 0, 4, -8], [0, 0, 0, 1]])
SHAPE = (11, 9, 5)
MODELS = ("buxton", "buxton+t1")
HEADINGS = {
    "buxton": ["CBF [mL/100g/min]", "ATT [s]"],
    "buxton+t1": ["CBF [mL/100g/min]", "ATT [s]", "T1 [s]"],
}


def reoriented(volume: NDArray, affine: NDArray, axes: str) -> tuple[NDArray, NDArray]:
    """The same volume stored with other axes."""
    change = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    )
    back = nib.orientations.inv_ornt_aff(change, volume.shape)
    return nib.orientations.apply_orientation(volume, change), affine @ back


def ellipsoid(shape: tuple[int, ...] = SHAPE) -> NDArray:
    grid = [np.linspace(-1.2, 1.2, n) if n > 1 else np.zeros(1) for n in shape]
    x, y, z = np.meshgrid(*grid, indexing="ij")
    return x**2 + y**2 + z**2 < 1.0


def phantom(mask: NDArray) -> Phantom:
    x = np.indices(mask.shape)[0] / mask.shape[0]
    return Phantom(
        {"cbf": np.where(mask, 30.0 + 40.0 * x, 0.0), "att": np.where(mask, 1.8 - x, 0.0)},
        m0=np.where(mask, 1000.0, 0.0),
        t1_tissue=1.2 + 0.2 * x,
        mask=mask,
        grey_matter=mask,
        affine=RAS,
    )


def result(
    truth: Phantom, error: float = 0.1, *, with_sd: bool = False, model: str = "buxton"
) -> Maps:
    """The truth with a relative error, of another sign from parameter to parameter."""
    chosen = models.get(model)
    true = truth.truth(chosen)
    return Maps(
        chosen,
        {n: true[n] * truth.mask * (1.0 + (-1) ** k * error) for k, n in enumerate(true)},
        np.where(truth.mask, Status.FITTED, Status.OUTSIDE).astype(np.int8),
        {n: true[n] * truth.mask * error for n in true} if with_sd else {},
        noise_sd=2.0,
        affine=RAS,
        method="nlls",
    )


def simulated(truth: Phantom) -> AslData:
    """Noise-free data at seven delays."""
    protocol = time_encoded_protocol(label_durations("t1_adjusted", 7))
    delta_m = models.get("buxton").curve(
        {name: volume[..., None] for name, volume in truth.values.items()},
        t=protocol.t,
        label_duration=protocol.label_duration,
        m0=truth.m0[..., None],
    )
    return AslData(
        np.asarray(delta_m),
        truth.m0,
        truth.mask,
        truth.t1_tissue,
        np.zeros(truth.mask.shape),
        np.ones(7),
        protocol,
        RAS,
    )


def decode(figure: Figure) -> NDArray:
    """Pixels in 0 to 1, shape (rows, columns, 4)."""
    content = png(figure)
    assert content.startswith(b"\x89PNG")
    return imread(io.BytesIO(content), format="png")


def n_coloured(figure: Figure) -> int:
    rgb = decode(figure)[..., :3]
    return int((np.ptp(rgb, axis=-1) > 0.15).sum())


def y_labels(figure: Figure) -> list[str]:
    """Labels of the colour bars, and of other axes that have one."""
    return [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "RPI", "ASR", "SLP"])
def test_display_puts_left_anterior_superior_where_they_belong(axes):
    volume = np.zeros(SHAPE)
    volume[0, -1, -1] = 1.0
    view = axial_view(*reoriented(volume, RAS, axes))
    assert view.slices.shape == SHAPE[::-1]
    assert np.argwhere(view.slices).tolist() == [[4, 8, 0]]
    assert view.aspect == pytest.approx(1.5)
    np.testing.assert_allclose(view.height, [-8, -4, 0, 4, 8], atol=1e-9)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPI"])
def test_a_bright_spot_at_the_left_front_is_painted_there(axes):
    cbf = np.ones((20, 20, 1))
    cbf[2:6, 14:18] = 100.0
    cbf, affine = reoriented(cbf, RAS, axes)
    values = {"cbf": cbf, "att": np.ones_like(cbf)}
    maps = Maps(models.get("buxton"), values, np.ones(cbf.shape, np.int8), affine=affine)
    pixels = decode(map_figure(maps, title="left"))
    top = pixels[: pixels.shape[0] // 2, : int(0.7 * pixels.shape[1]), :3]
    bright = (top[..., 0] > 0.9) & (top[..., 1] > 0.9) & (top[..., 2] < 0.8)
    dark = top.max(axis=-1) < 0.15
    assert bright.sum() > 500
    rows, columns = np.nonzero(bright)
    dark_rows, dark_columns = np.nonzero(dark)
    assert rows.mean() < dark_rows.mean() - 50
    assert columns.mean() < dark_columns.mean() - 50


def test_frame_keeps_the_brain_and_a_margin_even_at_the_edge():
    brain = np.zeros((2, 30, 40))
    brain[:, 0:20, 10:40] = 1.0
    frame = framed(brain, brain)
    assert frame.shape == (2, 20 + 6, 30 + 6)
    assert np.nansum(frame) == brain.sum()
    assert np.isnan(frame[:, :3]).all()
    assert np.isnan(frame[:, :, -3:]).all()
    assert (frame[:, 3:-3, :3] == 0.0).all()


@pytest.mark.parametrize(
    ("values", "low", "expected"),
    [
        (np.linspace(0.0, 100.0, 101), 1.0, (1.0, 99.0)),
        (np.linspace(20.0, 120.0, 101), None, (0.0, 119.0)),
        (np.full(9, 1.3), 1.0, (0.8, 1.8)),
        (np.zeros(9), None, (0.0, 1.0)),
        (np.full(9, np.nan), 1.0, (0.0, 1.0)),
        (np.array([0.0, 50.0, np.nan, 100.0]), 0.0, (0.0, 99.0)),
    ],
)
def test_limits_are_robust_and_never_equal(values, low, expected):
    assert limits(values, low, 99.0) == pytest.approx(expected)


@pytest.mark.parametrize("model", MODELS)
def test_map_figure_has_a_row_for_each_parameter(model):
    truth = phantom(ellipsoid())
    maps = result(truth, with_sd=True, model=model)
    figure = map_figure(maps, truth.mask)
    assert y_labels(figure) == HEADINGS[model]
    assert y_labels(map_figure(maps, truth.mask, sd=True))[:2] == [
        "SD of CBF\n[mL/100g/min]",
        "SD of ATT [s]",
    ]
    painted = [ax.images[0].get_clim() for ax in figure.axes if ax.images]
    n_slices = len(painted) // len(maps.model.names)
    for name, (lowest, highest) in zip(maps.model.names, painted[::n_slices], strict=True):
        shown = maps.model[name].shown
        inside = maps[name][truth.mask]
        expected = np.percentile(inside, [1.0, 99.0]) if shown is None else shown
        assert (lowest, highest) == pytest.approx(tuple(expected))


def test_map_figure_grows_with_its_rows_and_is_deterministic():
    truth = phantom(ellipsoid())
    maps = result(truth)
    plain, single = map_figure(maps, truth.mask), map_figure(maps, truth.mask, names=["att"])
    again = [png(map_figure(maps, truth.mask)) for _ in range(2)]
    assert again[0] == again[1]
    assert b"Matplotlib" not in again[0]
    height, width, _ = decode(plain).shape
    assert width > 500
    assert height > 1.7 * decode(single).shape[0]
    assert n_coloured(plain) > 1.5 * n_coloured(single) > 5_000


def test_maps_draw_themselves_and_notebooks_show_them():
    maps = result(phantom(ellipsoid()))
    figure = maps.plot("att")
    assert y_labels(figure) == ["ATT [s]"]
    assert figure._repr_png_() == png(map_figure(maps, names=["att"]))
    assert y_labels(maps.plot()) == HEADINGS["buxton"]


def test_maps_that_cannot_be_drawn_say_why():
    maps = result(phantom(ellipsoid()))
    with pytest.raises(InputError, match="no parameter 'abv', only cbf, att"):
        maps.plot("abv")
    with pytest.raises(InputError, match="nlls gives no standard deviations"):
        map_figure(maps, sd=True)
    with pytest.raises(InputError, match="the mask is empty"):
        dataclasses.replace(maps, status=np.zeros_like(maps.status)).plot()


@pytest.mark.parametrize("shape", [(11, 9, 1), (11, 9, 5), (12, 10, 30)])
@pytest.mark.parametrize("full", [False, True])
def test_map_figure_takes_any_number_of_slices_and_masks_at_the_edge(shape, full):
    truth = phantom(np.ones(shape, dtype=bool) if full else ellipsoid(shape))
    pixels = decode(map_figure(result(truth), truth.mask, title="sub-01"))
    assert max(pixels.shape) < 2500


def test_map_figure_takes_constant_maps_and_voxels_without_estimate():
    mask = ellipsoid()
    values = {"cbf": mask * 50.0, "att": mask * 1.0}
    flat = Maps(models.get("buxton"), values, mask.astype(np.int8), affine=RAS)
    skipped = dataclasses.replace(flat, status=(mask * Status.SKIPPED).astype(np.int8))
    assert n_coloured(map_figure(flat, mask)) > 2 * n_coloured(map_figure(skipped, mask))


@pytest.mark.parametrize("model", MODELS)
def test_comparison_figure_has_a_column_per_method_and_two_rows_per_parameter(model):
    truth = phantom(ellipsoid((30, 36, 5)))
    maps = {"nlls": result(truth, model=model)}
    one = comparison_figure(truth, maps, "tSNR 1.5")
    two = comparison_figure(truth, {**maps, "pinn": result(truth, 0.3)}, "tSNR 1.5")
    errors = [f"error of {p.symbol} [%]" for p in maps["nlls"].model.parameters]
    assert sorted(y_labels(one)) == sorted(y_labels(two)) == sorted([*HEADINGS[model], *errors])
    assert decode(two).shape[1] > 1.3 * decode(one).shape[1]
    again = [png(comparison_figure(truth, maps, "tSNR 1.5")) for _ in range(2)]
    assert again[0] == again[1]
    assert n_coloured(one) > 10_000


def test_comparison_figure_refuses_what_the_phantom_does_not_know():
    truth = phantom(ellipsoid())
    with pytest.raises(InputError, match="no map of att"):
        comparison_figure(
            dataclasses.replace(truth, values={"cbf": truth.cbf}), {"nlls": result(truth)}
        )


def test_comparison_figure_paints_the_sign_of_errors():
    truth = phantom(ellipsoid((30, 36, 1)))
    pixels = decode(comparison_figure(truth, {"high": result(truth, 0.2)}, "sign"))
    half = pixels.shape[0] // 2
    right = slice(int(0.45 * pixels.shape[1]), int(0.8 * pixels.shape[1]))
    cbf_errors = pixels[half : half + pixels.shape[0] // 4, right, :3]
    att_errors = pixels[half + pixels.shape[0] // 4 :, right, :3]
    assert (cbf_errors[..., 0] - cbf_errors[..., 2]).mean() > 0.05
    assert (att_errors[..., 2] - att_errors[..., 0]).mean() > 0.05


def test_comparison_figure_takes_perfect_and_missing_estimates_and_a_truth_of_zero():
    truth = phantom(ellipsoid())
    missing = dataclasses.replace(result(truth), status=np.zeros(SHAPE, dtype=np.int8))
    decode(comparison_figure(truth, {"exact": result(truth, 0.0), "none": missing}, "extremes"))
    bloodless = dataclasses.replace(truth, values={**truth.values, "cbf": 0.0 * truth.cbf})
    decode(comparison_figure(bloodless, {"nlls": result(truth)}, "no perfusion"))


@pytest.mark.parametrize("n_fitted", [0, 1, 400])
def test_histogram_and_fit_figures_take_any_number_of_voxels(n_fitted):
    truth = phantom(np.ones((20, 20, 1), dtype=bool))
    data = simulated(truth)
    status = np.where(np.arange(400) < n_fitted, Status.FITTED, Status.SKIPPED)
    maps = dataclasses.replace(result(truth), status=status.reshape(20, 20, 1).astype(np.int8))
    regions, images = find_regions(data), predicted(data, maps)
    histogram, fit = histogram_figure(maps, regions), fit_figure(data, maps, images)
    assert (n_coloured(histogram) > 1000) == (n_fitted > 0)
    assert (n_coloured(fit) > 100) == (n_fitted > 0)
    assert n_coloured(status_figure(maps, truth.mask)) > 1000
    assert len(png(residual_figure(data, maps, images, regions))) > 1000


@pytest.mark.parametrize("model", MODELS)
def test_histogram_and_fit_figures_show_every_parameter(model):
    truth = phantom(np.ones((6, 5, 1), dtype=bool))
    data, maps = simulated(truth), result(truth, model=model)
    histogram = histogram_figure(maps, find_regions(data))
    assert [ax.get_xlabel() for ax in histogram.axes] == HEADINGS[model]
    fit = fit_figure(data, maps, predicted(data, maps))
    _, *panels = fit.axes  # the first is the schedule
    assert len(panels) == 6
    for ax in panels:
        title = ax.get_title().replace("\N{NO-BREAK SPACE}", " ").replace("\n", " ")
        place = tuple(int(k) for k in title.removeprefix("voxel ").split(" CBF")[0].split(", "))
        values = {p.symbol: maps[p.name][place] for p in maps.model.parameters}
        assert f"CBF {values['CBF']:.1f} mL/100g/min, ATT {values['ATT']:.2f} s" in title
        assert title.endswith(f", T1 {values['T1']:.2f} s" if "T1" in values else " s")
        arrivals = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
        assert arrivals == [pytest.approx(values["ATT"])]  # T1 is a time, too, but no arrival


def test_fit_figure_draws_no_arrival_that_is_held():
    truth = phantom(np.ones((6, 5, 1), dtype=bool))
    data, maps = simulated(truth), result(truth)
    held = dataclasses.replace(maps, model=models.fix(maps.model, att=1.2))
    fit = fit_figure(data, held, predicted(data, held))
    assert "ATT" not in fit.axes[1].get_title()
    assert not [line for ax in fit.axes for line in ax.lines if line.get_linestyle() == ":"]


def test_group_pictures_draw_what_tells_runs_apart():
    rows = [{"participant_id": f"sub-{k}", "tsnr": str(1.0 + k), "qei": "n/a"} for k in range(5)]
    remarked = np.array([False, False, True, False, False])
    figure = distribution_figure(rows, remarked, {"tsnr": "tSNR", "qei": "QEI"})
    (ax,) = figure.axes
    assert ax.get_title() == "tSNR"
    filled, hollow = (line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(filled.get_ydata(), [1.0, 2.0, 4.0, 5.0])
    assert (hollow.get_fillstyle(), *hollow.get_ydata()) == ("none", 3.0)
    assert distribution_figure(rows[:2], remarked[:2], {"tsnr": "tSNR"}) is None
    people = {
        f"sub-{k}": {"age": str(20 + k), "sex": "FMFMF"[k], "site": "A", "code": f"x{k}"}
        for k in range(5)
    } | {"sub-9": {"age": "x"}}
    figure = covariate_figure(rows, people, {"tsnr": "tSNR"})
    age, sex, _ = figure.axes
    assert [ax.get_xlabel() for ax in figure.axes] == ["age", "sex", "code"]
    np.testing.assert_array_equal(age.lines[0].get_xdata(), [20, 21, 22, 23, 24])
    assert [label.get_text() for label in sex.get_xticklabels()] == ["F", "M"]
    assert sorted(sex.lines[0].get_ydata()) == [1.0, 3.0, 5.0]
    assert covariate_figure(rows, {}, {"tsnr": "tSNR"}) is None


@pytest.mark.parametrize("shape", [(40, 8, 1), (8, 40, 1), (20, 20, 1)])
@pytest.mark.parametrize("picture", ["maps", "sd", "probability", "status"])
def test_nothing_of_a_single_slice_is_cut_off(shape, picture):
    mask = np.zeros(shape, bool)
    mask[2:-2, 2:-2] = True
    model = models.get("buxton+arterial")
    typical = {p.name: np.where(mask, p.typical, 0.0) for p in model.parameters}
    maps = Maps(model, typical, mask.astype(np.int8), typical, probability={"abv": 0.5 * mask})
    figure = {
        "maps": lambda: map_figure(maps, mask, title="sub-01_ses-1, spatial-map"),
        "sd": lambda: map_figure(maps, mask, title="Standard deviations", sd=True),
        "probability": lambda: probability_figure(maps, mask),
        "status": lambda: status_figure(maps, mask),
    }[picture]()
    png(figure)
    width, height = figure.bbox.size
    labels = [ax.yaxis.label for ax in figure.axes] + [ax.title for ax in figure.axes]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    for text in (*labels, *legends, *filter(None, [figure._suptitle])):
        if text.get_text():
            box = text.get_window_extent()
            assert min(box.x0, box.y0) >= -1.0, text.get_text()
            assert box.x1 <= width + 1.0, text.get_text()
            assert box.y1 <= height + 1.0, text.get_text()


def test_colours_are_common_and_physiological():
    mask = np.ones((6, 6, 1), bool)
    for cbf, extend in ((40.0, "neither"), (150.0, "max")):
        values = {"cbf": np.where(mask, cbf, 0.0), "att": np.where(mask, 1.2, 0.0)}
        maps = Maps(models.get("buxton"), values, mask.astype(np.int8))
        figure = map_figure(maps, mask)
        shown = [image for ax in figure.axes for image in ax.images if image.colorbar]
        assert [image.get_clim() for image in shown] == [(0.0, 100.0), (0.0, 2.5)]
        assert shown[0].colorbar.extend == extend


def test_mean_curves_are_those_of_the_regions():
    shape = (4, 4, 1)
    delta_m = np.full((*shape, 2), 10.0, np.float32)
    delta_m[:2] *= 2.0
    data = AslData.from_arrays(
        delta_m, 1000.0, label_duration=[1.8, 1.8], pld=[1.5, 0.5], gm=None, n_averages=4
    )
    maps = Maps(
        models.get("buxton"),
        {"cbf": np.full(shape, 50.0), "att": np.full(shape, 1.0)},
        np.ones(shape, np.int8),
        noise_sd=4.0,
    )
    grey = np.zeros(shape, bool)
    grey[:2] = True
    (ax,) = mean_curve_figure(data, maps, 0.5 * delta_m, find_regions(data, grey)).axes
    fitted = {line.get_label(): line for line in ax.lines}["grey matter, fitted"]
    np.testing.assert_allclose(fitted.get_xdata(), [2.3, 3.3])
    np.testing.assert_allclose(fitted.get_ydata(), 1.0)
    points, _, (bars,) = ax.containers[0]
    np.testing.assert_allclose(points.get_ydata(), 2.0)
    low, high = bars.get_segments()[0][:, 1]
    # noise of 0.4 % of M0, of the mean of 4 repeats and 8 voxels
    assert high - low == pytest.approx(2.0 * 1.96 * 0.4 / np.sqrt(4 * 8))


def test_inputs_show_what_lies_outside_the_mask():
    truth = phantom(ellipsoid())
    delta_m = np.random.default_rng(0).normal(5.0, 1.0, (*truth.mask.shape, 2)).astype(np.float32)
    data = AslData.from_arrays(
        delta_m, np.full(truth.mask.shape, 1000.0), label_duration=1.8, pld=1.5, mask=truth.mask
    )
    figure = input_figure(data)
    m0, difference = (label for label in y_labels(figure) if label)
    assert (m0, difference.split("[")[-1]) == ("M0 [a.u.]", "% of median M0]")
    first = next(ax.images[0] for ax in figure.axes if ax.images)
    assert first.get_clim() == (0.0, 1000.0)
    assert (np.asarray(first.get_array())[5:-5, 5:-5] == 1000.0).all()


def test_the_course_of_a_training_is_drawn_where_there_is_one():
    history = {
        "loss": np.array([np.nan, 100.0, 10.0, 1.0]),
        "noise_sd": np.array([2.0, 1.9, 1.8, 1.7]),
        "dof": np.ones((4, 2)),
    }
    loss, noise = history_figure(history).axes
    assert (loss.get_title(), loss.get_yscale()) == ("loss", "log")
    assert (noise.get_title(), noise.get_yscale()) == ("noise sd", "linear")
    np.testing.assert_array_equal(noise.lines[0].get_ydata(), history["noise_sd"])
    assert history_figure({"loss": np.array([1.0])}) is None
