import dataclasses
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from nilearn.image import resample_img
from numpy.typing import NDArray
from scipy import ndimage

from asl_pinn import models
from asl_pinn.data import Phantom
from asl_pinn.errors import InputError
from asl_pinn.io.bids import find_runs, read_run
from asl_pinn.simulation.phantoms import (
    add_lesions,
    bats_phantom,
    complete,
    mni_phantom,
    select_slices,
    with_arteries,
    with_dispersion,
)
from asl_pinn.simulation.phantoms.bats import BATS_URL
from asl_pinn.simulation.phantoms.lesions import LESIONS
from asl_pinn.workflow.cli import main

NAMES = ("BATS_cbf_1c", "BATS_att", "BATS_m0", "BATS_t1q")
LAS = np.array([[-1.0, 0, 0, 12], [0, 1, 0, -14], [0, 0, 1, -5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def mni() -> Phantom:
    return mni_phantom()


@pytest.fixture(scope="module")
def arterial() -> Phantom:
    return with_arteries(mni_phantom(resolution=4))


@pytest.fixture
def bats_maps() -> dict[str, NDArray]:
    """Maps of a 20 x 24 x 20 mm brain in a 26 x 29 x 11 grid, 0 outside it."""
    index = np.indices((26, 29, 11)) - np.array([12.5, 14.0, 5.0])[:, None, None, None]
    brain = (index / np.array([10, 12, 4.5])[:, None, None, None]) ** 2
    inside = brain.sum(axis=0) < 1.0
    wave = np.sin(index.sum(axis=0) / 3.0)
    maps = {
        "BATS_cbf_1c": 40.0 + 20.0 * wave,
        "BATS_att": 1.2 + 0.4 * np.cos(index[0] / 4.0),
        "BATS_m0": 900.0 + 50.0 * wave,
        "BATS_t1q": 1.3 - 0.3 * wave,
    }
    return {name: np.where(inside, values, 0.0) for name, values in maps.items()}


def write(folder: Path, maps: dict[str, NDArray], affine: NDArray = LAS, ext=".nii.gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in maps.items():
        nib.save(nib.Nifti1Image(values.astype(np.float32), affine), folder / f"{name}{ext}")
    return folder


def explained(target: NDArray, by: NDArray, n_bins: int = 50) -> float:
    """Fraction of the variance of `target` that its mean in quantile bins of `by` explains."""
    edges = np.quantile(by, np.linspace(0.0, 1.0, n_bins + 1)[1:-1])
    bins = np.digitize(by, edges)
    means = np.bincount(bins, target) / np.bincount(bins)
    return means[bins].var() / target.var()


def test_mni_has_the_anatomy_of_the_template(mni):
    assert mni.mask.shape == (67, 79, 64)
    assert 62_000 < mni.mask.sum() < 67_000
    assert mni.mask[:, :, 32].sum() > 1_900
    assert not (mni.grey_matter & ~mni.mask).any()
    assert 0.55 < mni.grey_matter.sum() / mni.mask.sum() < 0.70
    np.testing.assert_allclose(nib.affines.voxel_sizes(mni.affine), 3.0)


@pytest.mark.parametrize("resolution", [3, 4])
def test_mni_leaves_background_around_the_brain_in_every_slice(resolution):
    mask = mni_phantom(resolution=resolution).mask
    for axis in (0, 1):
        filled = np.flatnonzero(mask.any(axis=(1 - axis, 2)))
        assert min(filled[0], mask.shape[axis] - 1 - filled[-1]) >= 6


def test_mni_maps_are_in_physiological_range(mni):
    cbf, att = mni.cbf[mni.mask], mni.att[mni.mask]
    assert 10.0 < cbf.min() < cbf.max() < 85.0
    assert 45.0 < np.median(mni.cbf[mni.grey_matter]) < 60.0
    assert 18.0 < np.percentile(cbf, 10) < 24.0
    assert 0.6 < att.min() < 0.65
    assert 1.75 < att.max() < 1.8
    assert 0.83 <= mni.t1_tissue[mni.mask].min() < mni.t1_tissue[mni.mask].max() < 2.5
    assert 700.0 <= mni.m0[mni.mask].min() < mni.m0[mni.mask].max() < 1000.0


def test_mni_maps_are_zero_outside_the_mask_but_for_t1(mni):
    for volume in (mni.cbf, mni.att, mni.m0):
        assert not volume[~mni.mask].any()
    assert (mni.t1_tissue > 0.0).all()


def test_mni_cbf_and_att_are_not_functions_of_one_another(mni):
    cbf, att = mni.cbf[mni.mask], mni.att[mni.mask]
    assert explained(att, cbf) < 0.25
    assert explained(cbf, att) < 0.25


def test_mni_cbf_varies_within_each_tissue(mni):
    grey = mni.mask & (mni.m0 > 815.0) & (mni.m0 < 821.0) & (mni.t1_tissue > 1.28)
    assert 0.08 < mni.cbf[grey].std() / mni.cbf[grey].mean() < 0.14


def test_mni_att_is_short_at_the_arteries_and_long_at_the_watershed(mni):
    def att_at(*xyz: float) -> float:
        index = np.linalg.inv(mni.affine) @ [*xyz, 1.0]
        return mni.att[tuple(np.round(index[:3]).astype(int))]

    assert att_at(36, 2, -20) < 0.85
    assert att_at(28, -30, 30) > 1.5
    assert att_at(26, 46, 20) > att_at(4, 44, 4) + 0.1


def test_mni_att_is_nearly_symmetric(mni):
    mirrored = mni.att[::-1]
    shift = round((2 * mni.affine[0, 3] + 3.0 * (mni.mask.shape[0] - 1)) / 3.0)
    mirrored = np.roll(mirrored, -shift, axis=0)
    both = (mni.att > 0.0) & (mirrored > 0.0)
    difference = mni.att[both] - mirrored[both]
    assert np.corrcoef(mni.att[both], mirrored[both])[0, 1] > 0.9
    assert 0.01 < difference.std() < 0.2


def test_mni_att_is_smooth(mni):
    step = np.abs(np.diff(mni.att, axis=0))[mni.mask[1:] & mni.mask[:-1]]
    assert step.max() < 0.3


def test_mni_is_reproducible_to_the_bit_and_follows_its_seed(mni):
    again, other = mni_phantom(), mni_phantom(seed=1)
    for ours, theirs in zip(*map(jax.tree.leaves, (again, mni)), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert np.array_equal(other.mask, mni.mask)
    assert np.array_equal(other.m0, mni.m0)
    assert np.abs(other.cbf - mni.cbf).max() > 5.0
    assert np.abs(other.att - mni.att).max() > 0.1


def test_mni_variation_is_the_same_at_another_resolution(mni):
    coarse = mni_phantom(resolution=4)
    index = np.argwhere(coarse.mask)
    xyz = nib.affines.apply_affine(coarse.affine, index)
    fine = np.round(nib.affines.apply_affine(np.linalg.inv(mni.affine), xyz)).astype(int)
    kept = mni.mask[tuple(fine.T)]
    there, here = mni.att[tuple(fine[kept].T)], coarse.att[tuple(index[kept].T)]
    assert np.corrcoef(there, here)[0, 1] > 0.98


@pytest.mark.parametrize("resolution", [0, 5, 2.5])
def test_mni_refuses_resolutions_out_of_range(resolution):
    with pytest.raises(InputError, match="resolution"):
        mni_phantom(resolution=resolution)


def test_mni_knows_its_tissues(mni):
    gm, wm, csf = (mni.fractions[name] for name in ("gm", "wm", "csf"))
    np.testing.assert_allclose((gm + wm + csf)[mni.mask], 1.0)
    assert not any(part[~mni.mask].any() for part in (gm, wm, csf))
    mixed = gm * mni["cbf_gm"] + wm * mni["cbf_wm"]
    np.testing.assert_allclose(mixed[mni.mask], mni.cbf[mni.mask], rtol=0.02)
    assert np.median(mni["cbf_gm"][mni.mask]) == pytest.approx(60.0, abs=3.0)
    np.testing.assert_array_equal(mni["att_gm"], mni.att)
    np.testing.assert_allclose((mni["att_wm"] - mni.att)[mni.mask], 0.25)


def test_arteries_are_few_and_small(arterial):
    abv = arterial["abv"][arterial.mask]
    assert 0.0 <= abv.min() < abv.max() < 0.03
    assert (abv == 0.0).mean() > 0.6
    assert 0.10 < (abv > 1e-3).mean() < 0.20
    assert 0.02 < (abv > 1e-2).mean() < 0.06
    assert not arterial["abv"][~arterial.mask].any()
    assert not arterial["abat"][~arterial.mask].any()


def test_arteries_are_connected_vessels_and_no_specks(arterial):
    _, n_parts = ndimage.label(arterial["abv"] > 3e-3, np.ones((3, 3, 3)))
    n_voxels = (arterial["abv"] > 3e-3).sum()
    scattered = np.random.default_rng(0).permutation(arterial.mask.sum()) < n_voxels
    specks = np.zeros(arterial.mask.shape, bool)
    specks[arterial.mask] = scattered
    assert n_parts < 0.5 * ndimage.label(specks, np.ones((3, 3, 3)))[1]


def test_blood_arrives_in_arteries_before_tissue_and_later_in_smaller_ones(arterial):
    mask, abv, abat = arterial.mask, arterial["abv"], arterial["abat"]
    assert (arterial.att - abat)[mask].min() > 0.15 - 1e-9
    assert 0.3 < abat[mask].min() < abat[mask].max() < 1.6
    medians = [np.median(abat[mask & (abv > low) & (abv <= 2.0 * low)]) for low in (1e-3, 1e-2)]
    assert medians[0] > medians[1] + 0.05
    step = np.abs(np.diff(abat, axis=0))[mask[1:] & mask[:-1]]
    assert np.median(step) < 0.05


def test_large_arteries_lie_where_they_do_in_people(arterial):
    def most_about(*xyz: float) -> float:
        index = np.linalg.inv(arterial.affine) @ [*xyz, 1.0]
        x, y, z = np.round(index[:3]).astype(int)
        return arterial["abv"][x - 2 : x + 3, y - 2 : y + 3, z - 2 : z + 3].max()

    for xyz in [(36, 0, -18), (-35, 1, -17), (4, 30, 4), (22, -32, -8), (1, -26, -40)]:
        assert most_about(*xyz) > 0.015
    assert most_about(28, -30, 30) < 0.01  # deep white matter


def test_arteries_follow_their_seed_at_every_resolution(mni, arterial):
    other = with_arteries(arterial, seed=1)
    assert np.corrcoef(other["abv"].ravel(), arterial["abv"].ravel())[0, 1] < 0.7
    fine = with_arteries(mni)
    index = np.argwhere(arterial.mask)
    xyz = nib.affines.apply_affine(arterial.affine, index)
    there = tuple(np.round(nib.affines.apply_affine(np.linalg.inv(mni.affine), xyz)).astype(int).T)
    here = tuple(index.T)
    kept = mni.mask[there]
    for name, least in {"abv": 0.6, "abat": 0.95}.items():
        assert np.corrcoef(fine[name][there][kept], arterial[name][here][kept])[0, 1] > least


def test_dispersion_grows_with_att(mni):
    brain = with_dispersion(mni)
    rate, time_to_peak, sd = (
        brain[f"dispersion_{name}"][brain.mask] for name in ("rate", "time_to_peak", "sd")
    )
    np.testing.assert_allclose(sd, 0.15 * brain.att[brain.mask])
    np.testing.assert_allclose(np.sqrt(1.0 + rate * time_to_peak) / rate, sd)
    for p in (
        p
        for name in ("dispersion", "dispersion-gaussian")
        for p in models.MODELS[name]().parameters
    ):
        values = brain[p.name][brain.mask]
        assert p.lower < values.min() < values.max() < p.upper
    with pytest.raises(InputError, match="must be positive"):
        with_dispersion(mni, 0.0)


@pytest.mark.parametrize("add", [with_arteries, with_dispersion])
def test_components_that_need_att_say_so(mni, add):
    with pytest.raises(InputError, match="ATT"):
        add(dataclasses.replace(mni, values={"cbf": mni.cbf}))


def test_complete_adds_what_the_model_lacks_and_no_more(arterial):
    assert complete(arterial, models.get("buxton+arterial+t1")) is arterial
    model = models.get("exchange+arterial+dispersion+t1_blood")
    whole = complete(arterial, model)
    assert whole["abv"] is arterial["abv"]
    assert set(model.names) <= set(whole.values)
    assert set(whole["t1_blood"][whole.mask]) == {1.65}


def test_the_truth_of_arteries_is_written_beside_their_images(arterial, tmp_path):
    flags = ["--resolution=4", "--model=buxton+arterial", "--encoded"]
    assert main(["asl-pinn", "simulate", f"--output_dir={tmp_path}", *flags]) == 0
    perf = tmp_path / "derivatives" / "truth" / "sub-01" / "perf"
    for name, volume in select_slices(arterial, "central").values.items():
        path = perf / f"sub-01_desc-truth_{name}.nii.gz"
        if name in ("cbf", "att", "abv", "abat"):
            np.testing.assert_array_equal(nib.load(path).get_fdata(), volume.astype(np.float32))
        else:
            assert not path.exists()
    (run,) = find_runs(tmp_path)
    assert read_run(run)[0].protocol.n_delays == 7


@pytest.mark.parametrize(("which", "index"), [("central", 32), ("20", 20)])
def test_select_slices_keeps_a_slice_in_its_place(mni, which, index):
    one = select_slices(mni, which)
    assert one.cbf.shape == (67, 79, 1)
    whole, kept = (dataclasses.replace(brain, affine=None) for brain in (mni, one))
    for ours, theirs in zip(*map(jax.tree.leaves, (kept, whole)), strict=True):
        np.testing.assert_array_equal(ours[:, :, 0], theirs[:, :, index])
    np.testing.assert_allclose(one.affine @ [3, 4, 0, 1], mni.affine @ [3, 4, index, 1])
    np.testing.assert_array_equal(one.affine[:, :3], mni.affine[:, :3])


def test_select_slices_all_is_the_phantom(mni):
    assert select_slices(mni, "all") is mni


@pytest.mark.parametrize("which", ["64", "-1", "middle", "", "1.5", "²"])
def test_select_slices_refuses_what_is_not_there(mni, which):
    with pytest.raises(InputError, match="0 to 63"):
        select_slices(mni, which)


def test_select_slices_refuses_a_slice_without_brain(mni):
    with pytest.raises(InputError, match=r"slice 63 .* no brain; choose one from 1 to 51"):
        select_slices(mni, "63")


@pytest.mark.parametrize("ext", [".nii", ".nii.gz"])
@pytest.mark.parametrize("parent", [False, True])
def test_bats_reads_either_folder_and_extension(tmp_path, bats_maps, ext, parent):
    folder = write(tmp_path / "BATS_1mm_unsymmetrized", bats_maps, ext=ext)
    phantom, unit = bats_phantom(tmp_path if parent else folder)
    assert unit == "s"
    assert phantom.cbf.shape == (9, 10, 11)
    np.testing.assert_allclose(nib.affines.voxel_sizes(phantom.affine), [3.0, 3.0, 1.0])


@pytest.mark.parametrize("affine", [LAS, np.eye(4)])
def test_bats_maps_are_those_of_an_interpolation(tmp_path, bats_maps, affine):
    phantom, _ = bats_phantom(write(tmp_path, bats_maps, affine))
    for name, volume in (("BATS_cbf_1c", phantom.cbf), ("BATS_att", phantom.att)):
        expected = resample_img(
            nib.load(tmp_path / f"{name}.nii.gz"),
            target_affine=np.diag([3.0, 3.0, 1.0]),
            interpolation="continuous",
            copy_header=True,
            force_resample=True,
        )
        np.testing.assert_allclose(expected.affine, phantom.affine)
        nx, ny, nz = volume.shape
        np.testing.assert_allclose(volume, expected.get_fdata()[:nx, :ny, :nz], atol=1e-3)


def test_bats_mask_is_where_every_map_is_positive_and_finite(tmp_path, bats_maps):
    assert bats_maps["BATS_cbf_1c"][15, 15, 5] > 0.0
    bats_maps["BATS_cbf_1c"][15, 15, 5] = np.nan
    bats_maps["BATS_m0"][12, 12, 5] = -1.0
    phantom, _ = bats_phantom(write(tmp_path, bats_maps, np.eye(4)))
    expected = (bats_maps["BATS_att"] > 0.0)[::3, ::3]
    expected[5, 5, 5] = expected[4, 4, 5] = False
    np.testing.assert_array_equal(phantom.mask, expected)
    for volume in (phantom.cbf, phantom.att, phantom.m0):
        assert (volume[expected] > 0.0).all()
        assert not volume[~expected].any()
    assert (phantom.t1_tissue > 0.0).all()
    grey = phantom.cbf[phantom.grey_matter]
    assert grey.min() > phantom.cbf[phantom.mask & ~phantom.grey_matter].max()


def test_bats_times_in_milliseconds_give_the_same_phantom(tmp_path, bats_maps):
    seconds, _ = bats_phantom(write(tmp_path / "s", bats_maps))
    for name in ("BATS_att", "BATS_t1q"):
        bats_maps[name] = bats_maps[name] * 1000.0
    milliseconds, unit = bats_phantom(write(tmp_path / "ms", bats_maps))
    assert unit == "ms"
    np.testing.assert_allclose(milliseconds.att, seconds.att, rtol=1e-6)
    np.testing.assert_allclose(milliseconds.t1_tissue, seconds.t1_tissue, rtol=1e-6)


@pytest.mark.parametrize("factor", [0.01, 20.0, 1e5])
def test_bats_refuses_times_in_no_known_unit(tmp_path, bats_maps, factor):
    bats_maps["BATS_att"] = bats_maps["BATS_att"] * factor
    with pytest.raises(InputError, match=r"BATS_att.*run from .* to .* neither seconds nor"):
        bats_phantom(write(tmp_path, bats_maps))


def test_bats_names_what_is_missing_and_where_to_get_it(tmp_path, bats_maps):
    del bats_maps["BATS_att"], bats_maps["BATS_t1q"]
    with pytest.raises(InputError) as caught:
        bats_phantom(write(tmp_path, bats_maps))
    message = str(caught.value)
    assert "missing BATS_att, BATS_t1q (" in message
    assert BATS_URL in message
    assert "\n" not in message
    with pytest.raises(InputError, match=", ".join(NAMES)):
        bats_phantom(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"no image", b"truncated"])
@pytest.mark.parametrize("ext", [".nii", ".nii.gz"])
def test_bats_names_an_unreadable_file(tmp_path, bats_maps, content, ext):
    broken = write(tmp_path, bats_maps, ext=ext) / f"BATS_m0{ext}"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2] if content == b"truncated" else content)
    with pytest.raises(InputError, match=r"BATS_m0\.nii.*unreadable") as caught:
        bats_phantom(tmp_path)
    assert "\n" not in str(caught.value)


def test_bats_refuses_maps_on_different_grids(tmp_path, bats_maps):
    write(tmp_path, bats_maps)
    write(tmp_path, {"BATS_m0": bats_maps["BATS_m0"][:-1]})
    with pytest.raises(InputError, match=r"BATS_m0.*shape or affine"):
        bats_phantom(tmp_path)
    write(tmp_path, {"BATS_m0": bats_maps["BATS_m0"]}, np.eye(4))
    with pytest.raises(InputError, match=r"BATS_m0.*shape or affine"):
        bats_phantom(tmp_path)


def test_bats_refuses_voxels_that_are_not_1_mm(tmp_path, bats_maps):
    with pytest.raises(InputError, match="1 mm voxels"):
        bats_phantom(write(tmp_path, bats_maps, np.diag([2.0, 2.0, 2.0, 1.0])))


def test_bats_refuses_an_empty_brain(tmp_path, bats_maps):
    bats_maps["BATS_m0"] = bats_maps["BATS_m0"] * 0.0
    with pytest.raises(InputError, match="no voxel"):
        bats_phantom(write(tmp_path, bats_maps))


def test_bats_can_be_simulated_from_the_command_line(tmp_path, bats_maps, capsys):
    folder = write(tmp_path / "bats", bats_maps)
    output = tmp_path / "simulated"
    arguments = [f"--output_dir={output}", "--phantom=bats", f"--bats_dir={folder}"]
    assert main(["asl-pinn", "simulate", *arguments]) == 0
    assert "transit times are in" in capsys.readouterr().out
    (run,) = find_runs(output)
    assert read_run(run)[0].valid.any()


def test_lesions_change_perfusion_inside_them_alone():
    brain = mni_phantom(resolution=4)
    values = {**brain.values, "abv": np.full_like(brain.cbf, 0.01)}
    brain = dataclasses.replace(brain, values=values)
    ill, where = add_lesions(brain, 24)
    anywhere = np.any(list(where.values()), axis=0)
    assert (ill.cbf == brain.cbf)[~anywhere].all()
    assert (ill.att == brain.att)[~anywhere].all()
    assert (ill.m0 == brain.m0).all()
    assert (ill["abv"] == brain["abv"]).all()
    assert np.allclose(ill["att_wm"] - brain["att_wm"], ill.att - brain.att)
    assert np.allclose(ill["cbf_gm"] * brain.cbf, brain["cbf_gm"] * ill.cbf)
    for lesion in LESIONS:
        voxels = where[lesion.name]
        assert voxels.any()
        assert np.allclose(ill.cbf[voxels], lesion.cbf_factor * brain.cbf[voxels])
        assert np.allclose(ill.att[voxels], brain.att[voxels] + lesion.att_delay)


def test_lesions_that_overlap_or_find_no_grey_matter_are_refused():
    brain = mni_phantom(resolution=4)
    with pytest.raises(InputError, match="over another"):
        add_lesions(brain, 24, (LESIONS[0], LESIONS[0]))
    with pytest.raises(InputError, match="no grey matter"):
        add_lesions(brain, 0)
