"""The pages as a browser shows them, and the page about a group."""

import dataclasses
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_chromium
from matplotlib.image import imread

from asl_pinn import models
from asl_pinn.data import Maps, Phantom, Status
from asl_pinn.estimators.base import Estimator
from asl_pinn.evaluation.prediction import predicted
from asl_pinn.io.bids import write_maps
from asl_pinn.models import KineticModel
from asl_pinn.simulation.acquire import simulate
from asl_pinn.viz.regions import find_regions
from asl_pinn.viz.reports.group import group_page, read_group, write_group_page
from asl_pinn.viz.reports.participant import html_report, report_figures

GAINS = {"sub-01": 1.0, "sub-02": 1.02, "sub-03": 0.98, "sub-04": 3.0, "sub-05": 1.01}
LONG = "a_name_that_is_as_long_as_those_of_files_deep_in_a_dataset_may_be_" * 3


def truth_as_maps(
    phantom: Phantom, name: str, gain: float = 1.0, model: KineticModel | None = None
) -> Maps:
    model = model or models.get("buxton")
    truth = {key: phantom.mask * value for key, value in phantom.truth(model).items()}
    values = {**truth, "cbf": gain * truth["cbf"]}
    return Maps(
        model,
        values,
        np.where(phantom.mask, Status.FITTED, Status.OUTSIDE).astype(np.int8),
        {key: 0.1 * value for key, value in values.items()},
        noise_sd=1.0,
        affine=phantom.affine,
        method="nlls",
        stem=f"{name}/perf/{name}",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, phantom, protocol) -> Path:
    """Derivatives of five runs, the first with its own page, and the page of the group."""
    root = tmp_path_factory.mktemp("derivatives")
    data = simulate(phantom, protocol, tsnr=5.0, seed=0)
    for name, gain in GAINS.items():
        maps, extra = truth_as_maps(phantom, name, gain), {}
        if name == "sub-05":
            maps = dataclasses.replace(maps, status=np.minimum(4 * maps.status, Status.SKIPPED))
        if name == "sub-01":
            regions, images = find_regions(data, phantom.grey_matter), predicted(data, maps)
            page = html_report(
                data,
                maps,
                images,
                title=name,
                estimator=Estimator(lambda *_: None, object, "", "Fitted with dogleg."),
                regions=regions,
                figures=report_figures(data, maps, images, regions, name),
                provenance={"Options": {"solver": "dogleg"}, "Sources": [LONG], LONG: LONG},
                notes=[LONG],
            )
            extra = {"_desc-nlls_report.html": page.encode()}
        write_maps(root, maps, {}, extra)
    (root / "group.html").write_text(group_page(read_group(root, "nlls"), "nlls"))
    return root


def test_group_lists_runs_with_medians_and_remarks(folder, phantom):
    members = read_group(folder, "nlls")
    assert [member.name for member in members] == sorted(GAINS)
    median = np.median(phantom.cbf[phantom.mask])
    for member in members[:4]:
        assert member.quartiles["cbf"][1] == pytest.approx(GAINS[member.name] * median, rel=1e-5)
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


def test_group_lists_every_parameter_of_every_model(tmp_path, phantom):
    three = models.get("buxton+t1")
    for name, model in {
        "sub-01": three,
        "sub-02": models.get("buxton"),
        "sub-03": models.fix(three, att=1.2),
        "sub-04": three,
        "sub-05": three,
    }.items():
        origin = {"Model": model.name, "Bounds": {"att": [0.05, 3.0 if "4" in name else 4.0]}}
        write_maps(tmp_path, truth_as_maps(phantom, name, model=model), origin)
    members = read_group(tmp_path, "nlls")
    names = [tuple(p.name for p in member.parameters) for member in members]
    assert names == [three.names, ("cbf", "att"), ("cbf", "t1_tissue"), three.names, three.names]
    text = group_page(members, "nlls")
    header = text.split("<thead>")[1].split("</thead>")[0]
    assert "maps of CBF, ATT, T1" in header
    assert header.index("CBF [mL/100g/min]") < header.index("ATT [s]") < header.index("T1 [s]")
    t1 = f"{np.median(phantom.t1_tissue[phantom.mask]):.2f} ("
    rows = text.split("<tbody>")[1].split("</tr>")
    assert ["n/a" in row for row in rows[:5]] == [False, True, True, False, False]
    assert [t1 in row for row in rows[:5]] == [True, False, True, True, True]
    assert "made with other options than most: Model=buxton<" in rows[1]
    assert "made with other options than most: Bounds of att=[0.05, 3.0]<" in rows[3]
    assert "2 with remarks" in text


def test_group_of_nothing_and_of_broken_maps(folder, tmp_path, phantom):
    assert "0 runs" in group_page(read_group(tmp_path, "nlls"), "nlls")
    write_maps(tmp_path, truth_as_maps(phantom, "sub-01"))
    seal = tmp_path / "sub-01" / "perf" / "sub-01_desc-nlls_cbf.json"
    whole = seal.read_text()
    seal.unlink()
    assert read_group(tmp_path, "nlls") == []  # it lacks what is written last
    seal.write_text(whole)
    seal.with_suffix(".nii.gz").write_bytes(b"nothing")
    (damaged,) = read_group(tmp_path, "nlls")
    assert "sub-01_desc-nlls_cbf.nii.gz" in damaged.fault
    assert "its outputs are damaged: " in group_page([damaged], "nlls")


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
    write_maps(folder, truth_as_maps(phantom, "sub-06"))
    assert write_group_page(folder, "nlls").read_bytes() != before[0]


def test_group_page_imports_no_model_that_a_sidecar_names(folder, phantom):
    maps = truth_as_maps(phantom, "sub-07")
    write_maps(folder, maps, {"Model": "antigravity:geohash", "Options": {}})
    members = {member.name: member for member in read_group(folder, "nlls")}
    assert members["sub-07"].parameters == ()
    assert len(members["sub-01"].parameters) == 2
    page = write_group_page(folder, "nlls").read_text()
    assert "its model is not registered here" in page
    assert "antigravity" not in sys.modules
