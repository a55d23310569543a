import dataclasses
import io

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from asl_pinn import kinetics
from asl_pinn.data import AslData, PerfusionMaps, Phantom, Status
from asl_pinn.plots import (
    axial_view,
    comparison_figure,
    fit_figure,
    histogram_figure,
    map_figure,
    residual_figure,
    status_figure,
)
from asl_pinn.plots.axial import framed
from asl_pinn.plots.style import limits
from asl_pinn.protocol import label_durations, time_encoded_protocol
from asl_pinn.residuals import predicted
from asl_pinn.tissue import find_tissues

RAS = np.array([[2.0, 0, 0, -10], [0, 3, 0, -12], [0, 0, 4, -8], [0, 0, 0, 1]])
SHAPE = (11, 9, 5)


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
        cbf=np.where(mask, 30.0 + 40.0 * x, 0.0),
        att=np.where(mask, 1.8 - x, 0.0),
        m0=np.where(mask, 1000.0, 0.0),
        t1_tissue=np.full(mask.shape, 1.33),
        mask=mask,
        grey_matter=mask,
        affine=RAS,
    )


def result(truth: Phantom, error: float = 0.1, *, with_sd: bool = False) -> PerfusionMaps:
    return PerfusionMaps(
        cbf=truth.cbf * (1.0 + error),
        att=truth.att * (1.0 - error),
        status=np.where(truth.mask, Status.FITTED, Status.OUTSIDE).astype(np.int8),
        cbf_sd=truth.cbf * error if with_sd else None,
        att_sd=truth.att * error if with_sd else None,
        noise_sd=2.0,
    )


def decode(png: bytes) -> NDArray:
    """Pixels in 0 to 1, shape (rows, columns, 4)."""
    assert png.startswith(b"\x89PNG")
    return imread(io.BytesIO(png), format="png")


def n_coloured(png: bytes) -> int:
    rgb = decode(png)[..., :3]
    return int((np.ptp(rgb, axis=-1) > 0.15).sum())


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
    mask = np.ones((20, 20, 1), dtype=bool)
    cbf = np.ones(mask.shape)
    cbf[2:6, 14:18] = 100.0
    cbf, affine = reoriented(cbf, RAS, axes)
    maps = PerfusionMaps(cbf, np.ones_like(cbf), np.ones(cbf.shape, dtype=np.int8))
    pixels = decode(map_figure(maps, mask, affine, "left"))
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


def test_map_figure_grows_with_its_rows_and_is_deterministic():
    truth = phantom(ellipsoid())
    plain = map_figure(result(truth), truth.mask, RAS, "sub-01")
    with_sd = map_figure(result(truth, with_sd=True), truth.mask, RAS, "sub-01")
    assert map_figure(result(truth), truth.mask, RAS, "sub-01") == plain
    assert b"Matplotlib" not in plain
    height, width, _ = decode(plain).shape
    assert width > 500
    assert decode(with_sd).shape[0] > 1.7 * height
    assert n_coloured(with_sd) > 1.5 * n_coloured(plain) > 10_000


@pytest.mark.parametrize("shape", [(11, 9, 1), (11, 9, 5), (12, 10, 30)])
@pytest.mark.parametrize("full", [False, True])
def test_map_figure_takes_any_number_of_slices_and_masks_at_the_edge(shape, full):
    truth = phantom(np.ones(shape, dtype=bool) if full else ellipsoid(shape))
    pixels = decode(map_figure(result(truth), truth.mask, RAS, "sub-01"))
    assert max(pixels.shape) < 2500


def test_map_figure_takes_constant_maps_and_voxels_without_estimate():
    mask = ellipsoid()
    flat = PerfusionMaps(mask * 50.0, mask * 1.0, mask.astype(np.int8))
    skipped = dataclasses.replace(flat, status=(mask * Status.SKIPPED).astype(np.int8))
    assert n_coloured(map_figure(flat, mask, RAS, "flat")) > 2 * n_coloured(
        map_figure(skipped, mask, RAS, "skipped")
    )


def test_comparison_figure_has_a_column_per_method():
    truth = phantom(ellipsoid((30, 36, 5)))
    one = comparison_figure(truth, {"nlls": result(truth)}, "tSNR 1.5")
    two = comparison_figure(truth, {"nlls": result(truth), "pinn": result(truth, 0.3)}, "tSNR 1.5")
    assert decode(two).shape[1] > 1.3 * decode(one).shape[1]
    assert comparison_figure(truth, {"nlls": result(truth)}, "tSNR 1.5") == one
    assert n_coloured(one) > 10_000


def test_comparison_figure_paints_the_sign_of_errors():
    truth = phantom(ellipsoid((30, 36, 1)))
    pixels = decode(comparison_figure(truth, {"high": result(truth, 0.2)}, "sign"))
    half = pixels.shape[0] // 2
    right = slice(int(0.45 * pixels.shape[1]), int(0.8 * pixels.shape[1]))
    cbf_errors = pixels[half : half + pixels.shape[0] // 4, right, :3]
    att_errors = pixels[half + pixels.shape[0] // 4 :, right, :3]
    assert (cbf_errors[..., 0] - cbf_errors[..., 2]).mean() > 0.05
    assert (att_errors[..., 2] - att_errors[..., 0]).mean() > 0.05


def test_comparison_figure_takes_perfect_and_missing_estimates():
    truth = phantom(ellipsoid())
    missing = dataclasses.replace(result(truth), status=np.zeros(SHAPE, dtype=np.int8))
    decode(comparison_figure(truth, {"exact": result(truth, 0.0), "none": missing}, "extremes"))


@pytest.mark.parametrize("n_fitted", [0, 1, 400])
def test_histogram_and_fit_figures_take_any_number_of_voxels(n_fitted):
    truth = phantom(np.ones((20, 20, 1), dtype=bool))
    protocol = time_encoded_protocol(label_durations("t1_adjusted", 7))
    delta_m = kinetics.delta_m(
        truth.cbf[..., None],
        truth.att[..., None],
        protocol.t,
        protocol.label_duration,
        m0=truth.m0[..., None],
    )
    data = AslData(
        np.asarray(delta_m),
        truth.m0,
        truth.mask,
        truth.t1_tissue,
        np.zeros(truth.mask.shape),
        np.ones(7),
        protocol,
        RAS,
    )
    status = np.where(np.arange(400) < n_fitted, Status.FITTED, Status.SKIPPED)
    maps = dataclasses.replace(result(truth), status=status.reshape(20, 20, 1).astype(np.int8))
    tissues, images = find_tissues(data), predicted(data, maps)
    histogram, fit = histogram_figure(maps, tissues), fit_figure(data, maps, images)
    assert (n_coloured(histogram) > 1000) == (n_fitted > 0)
    assert (n_coloured(fit) > 100) == (n_fitted > 0)
    status_row = status_figure(maps, truth.mask, RAS)
    assert n_coloured(status_row) > 1000
    assert len(residual_figure(data, maps, images, tissues)) > 1000
