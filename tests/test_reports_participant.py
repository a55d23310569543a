import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from asl_pinn import plots
from asl_pinn.bids import AslRun
from asl_pinn.data import AslData, PerfusionMaps, Status
from asl_pinn.estimators import ESTIMATORS
from asl_pinn.estimators.voxelwise import NllsOptions
from asl_pinn.options import resolve
from asl_pinn.protocol import Protocol, label_durations, time_encoded_protocol
from asl_pinn.reports import participant
from asl_pinn.reports.methods import methods_text, software_citation
from asl_pinn.reports.participant import html_report, report_figures
from asl_pinn.residuals import predicted
from asl_pinn.tissue import Tissues, find_tissues

NASTY = "<script>alert('x')</script> & \"co\""
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tags, images, cells and balance of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.sources, self.rows, self.text = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


@pytest.fixture
def data() -> AslData:
    shape = (4, 3, 2)
    protocol = time_encoded_protocol(label_durations("free_lunch", 3, first=2.0), 0.5)
    mask = np.ones(shape, dtype=bool)
    mask[0] = False
    return AslData(
        delta_m=np.ones((*shape, 3)),
        m0=np.full(shape, 100.0),
        mask=mask,
        t1_tissue=np.full(shape, 1.33),
        readout_delay=np.zeros(shape) + np.array([0.0, 0.04]),
        n_averages=np.array([2.0, 2.0, 3.0]),
        protocol=protocol,
        affine=np.eye(4),
    )


@pytest.fixture
def maps(data) -> PerfusionMaps:
    status = np.where(data.mask, Status.FITTED, Status.OUTSIDE).astype(np.int8)
    status[1, 0] = Status.ON_BOUND
    status[1, 1, 0] = Status.NOT_CONVERGED
    status[1, 2] = Status.SKIPPED
    cbf = np.where(status == Status.FITTED, 40.0, 999.0)
    cbf[3] = np.array([50.0, 60.0])
    return PerfusionMaps(cbf=cbf, att=cbf / 40.0, status=status)


def report(data, maps, **changes) -> str:
    arguments = {
        "title": "sub-01",
        "method": "nlls",
        "description": "Voxels were fitted with a bound [2].",
        "references": ("Somebody A. A journal 2001.",),
        "tissues": find_tissues(data),
        "figures": {"maps": b"\x89PNG picture"},
        "provenance": {"seed": 0, "bounds": [0.0, 200.0], "Options": {"cbf_max": 150.0}},
        "notes": ["two volumes were averaged"],
    }
    return html_report(data, maps, predicted(data, maps), **{**arguments, **changes})


def test_page_is_well_formed_and_self_contained(data, maps):
    text = report(data, maps)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in text
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert base64.b64decode(page.sources[0].split(",")[1]) == b"\x89PNG picture"


def test_medians_and_quartiles_are_over_voxels_fitted_within_bounds(data, maps):
    rows = Page(report(data, maps)).rows
    fitted = maps.cbf[maps.status == Status.FITTED]
    low, high = np.percentile(fitted, [25, 75])
    median = np.median(fitted)
    assert [
        "all voxels",
        "CBF [mL/100g/min]",
        f"{median:.1f}",
        f"{low:.1f} to {high:.1f}",
        "13",
    ] in rows
    assert [
        "all voxels",
        "ATT [s]",
        f"{median / 40:.2f}",
        f"{low / 40:.2f} to {high / 40:.2f}",
        "13",
    ] in rows
    assert not any("grey matter" in row for row in rows)


def test_standard_deviations_are_summarised_or_said_to_be_missing(data, maps):
    assert "This method gives no standard deviations." in Page(report(data, maps)).text
    with_sd = dataclasses.replace(maps, cbf_sd=0.5 * maps.cbf, att_sd=0.1 * maps.att)
    whole = Tissues({"everything": data.mask}, "")
    rows = Page(report(data, with_sd, tissues=whole)).rows
    assert ["everything", "CBF [mL/100g/min]", "20.0", "50"] in rows
    assert ["everything", "ATT [s]", "0.10", "10"] in rows


def test_grey_matter_is_summarised_where_given(data, maps):
    grey = np.zeros_like(data.mask)
    grey[3] = True
    rows = Page(report(data, maps, tissues=find_tissues(data, grey))).rows
    assert ["grey matter", "CBF [mL/100g/min]", "55.0", "50.0 to 60.0", "6"] in rows


def test_voxels_are_counted_by_outcome(data, maps):
    rows = {row[0]: row[1:] for row in Page(report(data, maps)).rows if row}
    assert rows["fitted within the bounds"][-2:] == ["13", "72.2"]
    assert rows["ended on a bound"][-2:] == ["2", "11.1"]
    assert rows["did not converge"][-2:] == ["1", "5.6"]
    assert rows["skipped"][-2:] == ["2", "11.1"]
    assert rows["all of the mask"][-2:] == ["18", "100.0"]
    assert "poor fit" not in rows


def test_voxels_that_the_model_does_not_describe_are_counted(data, maps):
    images = predicted(data, maps)
    delta_m = np.nan_to_num(images)
    delta_m[2, 0, 0] += 4.0
    delta_m[2, 1, 0] += 2.0
    spoiled = dataclasses.replace(data, delta_m=delta_m)
    with_noise = dataclasses.replace(maps, noise_sd=np.sqrt(7.0 / 3.0))
    rows = {row[0]: row for row in Page(report(spoiled, with_noise)).rows if row}
    assert rows["poor fit"][-2:] == ["1", "5.6"]


def test_acquisition_lists_every_delay_and_constant(data, maps):
    rows = Page(report(data, maps)).rows
    assert ["1", "2", "2.5", "4.5", "2"] in rows
    assert ["3", "1", "0.5", "1.5", "3"] in rows
    assert ["T1 of blood [s]", "1.65"] in rows
    assert ["labelling efficiency", "0.85"] in rows
    assert ["largest readout delay of a slice [s]", "0.04"] in rows


def test_provenance_and_notes_are_there(data, maps):
    paths = {"InputDataset": Path("/Größe"), "Sources": [Path("Größe")]}
    provenance = {"bounds": [0.0, 200.0], "Options": {"cbf_max": 150.0}, **paths}
    page = Page(report(data, maps, provenance=provenance))
    assert ["bounds", "[0.0, 200.0]"] in page.rows
    assert ["cbf_max", "150.0"] in page.rows
    assert ["InputDataset", "/Größe"] in page.rows
    assert ["Sources", '["Größe"]'] in page.rows
    assert "two volumes were averaged" in page.text


def test_every_text_is_escaped(data, maps):
    text = report(
        data,
        maps,
        title=NASTY,
        method=NASTY,
        description=NASTY,
        references=[NASTY],
        tissues=Tissues({NASTY: data.mask}, NASTY),
        provenance={NASTY: NASTY, "list": [NASTY], "Options": {NASTY: NASTY}},
        notes=[NASTY],
    )
    assert "<script" not in text
    assert "alert('x')" not in text
    page = Page(text)
    assert page.open == []
    assert "".join(page.text).count("alert(") == 16


def test_empty_sections_are_left_out(data, maps):
    text = report(data, maps, notes=[], figures={}, description="", provenance={})
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "Perfusion",
        "Uncertainty",
        "Flagged voxels",
        "Acquisition",
        "Methods",
        "Citation",
    ]


def test_a_result_without_fitted_voxels_is_still_described(data, maps):
    nothing = PerfusionMaps(maps.cbf * 0.0, maps.att * 0.0, np.zeros_like(maps.status))
    rows = Page(report(data, nothing)).rows
    assert ["all voxels", "CBF [mL/100g/min]", "n/a", "n/a", "0"] in rows


@pytest.mark.parametrize("method", ESTIMATORS)
def test_methods_paragraph_states_what_was_done(data, maps, method):
    entry = ESTIMATORS[method]
    options = dataclasses.asdict(resolve(entry.options()))
    text, works = methods_text(data, maps, method, entry.describe(options), entry.references)
    for fact in (method, "3 delays", "2, 1, 1 s", "2.5, 1.5, 0.5 s", "1.65 s", "of 1.33 s", "0.85"):
        assert fact in text
    assert "0.5 s, each the mean of 2 to 3 repeats)" in text
    assert "of each slice, up to 0.04 s, was added" in text
    assert "Of the 18 voxels of the mask, 13 were fitted" in text
    assert "{" not in text
    cited = {
        int(number) for group in re.findall(r"\[([\d, ]+)\]", text) for number in group.split(",")
    }
    assert cited == set(range(1, 1 + len(works)))


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        ("spatial-map", {}, "CBF following M0 and T1 as far as the data bore it out)"),
        ("spatial-map", {"guide": "none"}, "CBF unguided)"),
        ("nlls-smoothed", {}, "of the width that predicted held-out delays best."),
        ("nlls-smoothed", {"smoothing_fwhm": 6.0}, "of 6 mm full width at half maximum."),
    ],
)
def test_methods_say_options_in_words(method, changes, said):
    entry = ESTIMATORS[method]
    assert said in entry.describe(dataclasses.asdict(entry.options(**changes)))


def test_one_delay_leaves_no_residual_and_no_noise(data, maps):
    """Of several delays both are shown, and simple data have neither repeats nor slice times."""
    figures = dict.fromkeys(("fit", "residuals"), b"\x89PNG")
    with_noise = dataclasses.replace(maps, noise_sd=1.0)
    several = report(data, with_noise, figures=figures)
    assert "at 3 delays." in several
    assert "Measured less fitted" in several
    assert "Error bars" in several
    single = dataclasses.replace(
        data,
        delta_m=data.delta_m[..., :1],
        n_averages=np.ones(1),
        readout_delay=np.zeros(data.mask.shape),
        protocol=Protocol(np.array([1.8]), np.array([1.8])),
    )
    text = report(single, maps, figures=figures)
    assert "at 1 delay." in text
    for word in ("Measured less fitted", "Error bars", "repeats", "of each slice, up to"):
        assert word not in text


def test_citation_is_that_of_the_repository():
    lines = (Path(__file__).parents[1] / "CITATION.cff").read_text().splitlines()
    stated = {key: value.strip('" ') for key, _, value in (li.partition(": ") for li in lines)}
    citation = software_citation()
    for fact in (stated["title"], f"version {stated['version']}", stated["  - name"]):
        assert fact in citation


def test_figures_of_a_report(data, maps):
    tissues = find_tissues(data)
    with_sd = dataclasses.replace(maps, cbf_sd=maps.cbf, att_sd=maps.att)
    figures = report_figures(data, with_sd, predicted(data, with_sd), tissues, "sub-01")
    assert list(figures) == ["maps", "uncertainty", "status", "histograms", "fit", "residuals"]
    assert all(png.startswith(b"\x89PNG") for png in figures.values())
    assert len(Page(report(data, with_sd, figures=figures)).sources) == 6


def test_the_images_are_predicted_once(data, maps, monkeypatch, tmp_path):
    calls = []
    for name in ("map", "status", "histogram", "fit", "residual"):
        monkeypatch.setattr(plots, f"{name}_figure", lambda *_: b"picture")
    monkeypatch.setattr(participant, "predicted", lambda *of: calls.append(of) or predicted(*of))
    run = AslRun(tmp_path / "sub-01" / "perf" / "sub-01_asl.nii.gz", {"sub": "01"}, tmp_path)
    options = dataclasses.asdict(NllsOptions())
    with_noise = dataclasses.replace(maps, noise_sd=1.0)
    files = participant.report_files(run, data, with_noise, "nlls", {"Options": options}, ())
    assert b"poor fit" in files["_desc-nlls_report.html"]
    assert len(calls) == 1
