import dataclasses

import numpy as np
import pytest
from bids_fixtures import MASK, asl_data, save_nifti, write_dataset

from asl_pinn.io.bids import find_runs, read_grey_matter, read_run
from asl_pinn.viz.regions import find_regions


def test_known_grey_matter_comes_first():
    data = asl_data()
    grey = np.zeros(MASK.shape, bool)
    grey[:3] = True
    regions = find_regions(data, grey)
    assert list(regions.masks) == ["grey matter", "other tissue"]
    np.testing.assert_array_equal(regions.masks["grey matter"], grey & MASK)
    np.testing.assert_array_equal(regions.masks["other tissue"], ~grey & MASK)
    assert "derivatives" in regions.origin


def test_a_map_of_t1_tells_tissues_apart():
    t1 = np.full(MASK.shape, 1.33, np.float32)
    t1[2], t1[3, 1] = 0.83, 4.0
    regions = find_regions(dataclasses.replace(asl_data(), t1_tissue=t1))
    assert list(regions.masks) == ["grey matter", "white matter", "fluid"]
    np.testing.assert_array_equal(regions.masks["white matter"], MASK & (t1 < 1.0))
    np.testing.assert_array_equal(regions.masks["fluid"], MASK & (t1 > 2.0))
    assert "by T1" in regions.origin


def test_without_either_the_split_is_by_signal_and_says_so():
    data = asl_data()
    regions = find_regions(data)
    mean = data.delta_m.mean(axis=-1)
    upper, lower = regions.masks["upper half"], regions.masks["lower half"]
    assert mean[upper].min() > mean[lower].max()
    assert abs(int(upper.sum()) - int(lower.sum())) <= 1
    assert "No tissue segmentation was found" in regions.origin


def test_regions_cover_the_valid_voxels_once_and_are_never_empty():
    data = asl_data()
    for grey in (None, np.zeros(MASK.shape, bool)):
        masks = find_regions(data, grey).masks
        np.testing.assert_array_equal(sum(r.astype(int) for r in masks.values()), data.valid)
        assert all(region.any() for region in masks.values())
    nothing = dataclasses.replace(data, mask=np.zeros_like(MASK))
    assert find_regions(nothing).masks == {}


@pytest.mark.parametrize("name", ["label-GM_probseg", "label-GM_mask", "desc-greymatter_mask"])
def test_grey_matter_of_the_derivatives(tmp_path, name):
    root = write_dataset(tmp_path)
    probability = np.where(MASK, np.linspace(0.0, 1.0, MASK.size).reshape(MASK.shape), 0.0)
    (run,) = find_runs(root)
    data, _ = read_run(run)
    assert read_grey_matter(run, data) is None
    folder = root / "derivatives" / "anatomy" / "sub-01" / "perf"
    save_nifti(folder / f"sub-01_space-MNI_{name}.nii.gz", probability.astype(np.float32))
    assert read_grey_matter(run, data) is None
    save_nifti(folder / f"sub-01_{name}.nii.gz", np.ones((2, 2, 2), np.float32))
    assert read_grey_matter(run, data) is None
    save_nifti(folder / f"sub-01_{name}.nii.gz", probability.astype(np.float32))
    np.testing.assert_array_equal(read_grey_matter(run, data), probability > 0.5)
