"""The pages as a browser shows them, and the page about a group."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_chromium
from matplotlib.image import imread

from asl_pinn.bids import AslRun, write_maps
from asl_pinn.data import PerfusionMaps, Status
from asl_pinn.errors import InputError
from asl_pinn.reports.group import group_page, read_group, write_group_page
from asl_pinn.reports.participant import html_report, report_figures
from asl_pinn.residuals import predicted
from asl_pinn.simulate import simulate
from asl_pinn.tissue import find_tissues

GAINS = {"sub-01": 1.0, "sub-02": 1.02, "sub-03": 0.98, "sub-04": 3.0, "sub-05": 1.01}
LONG = "a_name_that_is_as_long_as_those_of_files_deep_in_a_dataset_may_be_" * 3


def truth_as_maps(phantom, gain: float = 1.0) -> PerfusionMaps:
    status = np.where(phantom.mask, Status.FITTED, Status.OUTSIDE).astype(np.int8)
    cbf, att = gain * phantom.cbf, phantom.att
    return PerfusionMaps(cbf, att, status, 0.1 * cbf, 0.1 * att, noise_sd=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, phantom, protocol) -> Path:
    """Derivatives of five runs, the first with its own page, and the page of the group."""
    root = tmp_path_factory.mktemp("derivatives")
    data = simulate(phantom, protocol, tsnr=5.0, seed=0)
    for name, gain in GAINS.items():
        maps, extra = truth_as_maps(phantom, gain), {}
        if name == "sub-05":
            maps = dataclasses.replace(maps, status=np.minimum(4 * maps.status, Status.SKIPPED))
        if name == "sub-01":
            tissues, images = find_tissues(data, phantom.grey_matter), predicted(data, maps)
            page = html_report(
                data,
                maps,
                images,
                title=name,
                method="nlls",
                description="Fitted with dogleg.",
                references=(),
                tissues=tissues,
                figures=report_figures(data, maps, images, tissues, name),
                provenance={"Options": {"solver": "dogleg"}, "Sources": [LONG], LONG: LONG},
                notes=[LONG],
            )
            extra = {"_desc-nlls_report.html": page.encode()}
        run = AslRun(root / name / "perf" / f"{name}_asl.nii.gz", {"sub": name[4:]}, root)
        write_maps(root, run, maps, phantom.affine, "nlls", {}, extra)
    (root / "group.html").write_text(group_page(read_group(root, "nlls"), "nlls"))
    return root


def test_group_lists_runs_with_medians_and_remarks(folder, phantom):
    members = read_group(folder, "nlls")
    assert [member.name for member in members] == sorted(GAINS)
    median = np.median(phantom.cbf[phantom.mask])
    for member in members[:4]:
        assert member.cbf[1] == pytest.approx(GAINS[member.name] * median, rel=1e-5)
        assert member.fitted == 1.0
        assert member.n_voxels == phantom.mask.sum()
    text = (folder / "group.html").read_text()
    assert f"{median:.1f} (" in text
    assert text.count('<a href="sub-01/perf/sub-01_desc-nlls_report.html">') == 1
    assert text.count("<img") == 1 + len(GAINS)
    assert "5 runs, 1 with remarks" in text
    assert "<td>5</td><td>sub-05</td>" in text
    rows = {name: text.split(f">{name}<")[1].split("</tr>")[0] for name in GAINS if name > "sub-01"}
    assert "only 0 % of the voxels" in rows["sub-05"]
    assert "n/a" in rows["sub-05"]
    assert "only" not in rows["sub-04"]


def test_group_remarks_runs_far_from_the_others(folder, tmp_path, phantom):
    members = [m for m in read_group(folder, "nlls") if m.fitted]
    members.append(dataclasses.replace(members[0], name="sub-06"))
    text = group_page(members, "nlls")
    assert text.count("CBF is far above the others") == 1
    assert "5 runs, 1 with remarks" in text


def test_group_remarks_runs_made_with_other_options(folder):
    members = [
        dataclasses.replace(m, name=f"sub-0{n}", options={"cbf_max": 150.0 if n == 3 else 200.0})
        for n, m in enumerate(read_group(folder, "nlls"), start=1)
    ]
    text = group_page(members, "nlls")
    assert text.count("made with other options than most: cbf_max=150.0") == 1
    assert "cbf_max=200.0" not in text


def test_group_of_nothing_and_of_broken_maps(folder, tmp_path):
    assert "0 runs" in group_page(read_group(tmp_path, "nlls"), "nlls")
    broken = tmp_path / "sub-01" / "perf" / "sub-01_desc-nlls_cbf.nii.gz"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"nothing")
    assert read_group(tmp_path, "nlls") == []  # it lacks what is written last
    broken.with_name("sub-01_desc-nlls_cbf.json").touch()
    with pytest.raises(InputError, match=r"sub-01_desc-nlls_cbf\.nii\.gz"):
        read_group(tmp_path, "nlls")


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed to render pages")
@pytest.mark.parametrize("name", ["group.html", "sub-01/perf/sub-01_desc-nlls_report.html"])
def test_pages_in_a_browser(folder, tmp_path, name):
    """Nothing is asked for, complained about, wider than the window, or left blank."""
    page = folder / name
    with Browser(tmp_path / "profile") as browser:
        for width in (1100, 390):
            browser.open(page, width)
            assert browser.requests() == [page.as_uri()]
            assert browser.complaints() == []
            assert browser.value("document.documentElement.scrollWidth") <= width
            loaded = "[...document.images].every(image => image.complete && image.naturalWidth)"
            assert browser.value(loaded)
        assert browser.value("document.images.length") >= 6
        pixels = imread(io.BytesIO(browser.screenshot()), format="png")[..., :3]
        assert (np.ptp(pixels, axis=-1) > 0.3).mean() > 0.005
        assert browser.pdf().startswith(b"%PDF")


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed to render pages")
def test_the_browser_tells_requests_scripts_and_width(tmp_path):
    """What the test above relies on."""
    page = tmp_path / "page.html"
    page.write_text(
        "<script>console.error('no')</script><div style='width: 2000px'>wide</div>"
        f"<img src='{(tmp_path / 'missing.png').as_uri()}'>"
    )
    with Browser(tmp_path / "profile") as browser:
        browser.open(page, 800)
        assert len(browser.requests()) == 2
        assert browser.complaints()
        assert browser.value("document.documentElement.scrollWidth") >= 2000


def test_group_page_is_left_alone_until_a_result_changes(folder, phantom):
    page = write_group_page(folder, "nlls")
    before = page.read_bytes(), page.stat().st_mtime_ns
    assert write_group_page(folder, "nlls").stat().st_mtime_ns == before[1]
    run = AslRun(folder / "sub-06" / "perf" / "sub-06_asl.nii.gz", {"sub": "06"}, folder)
    write_maps(folder, run, truth_as_maps(phantom), phantom.affine, "nlls", {}, {})
    assert write_group_page(folder, "nlls").read_bytes() != before[0]
