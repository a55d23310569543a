import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from asl_pinn.data import AslData, PerfusionMaps, Status
from asl_pinn.protocol import label_durations, time_encoded_protocol
from asl_pinn.report import html_report

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
        "figures": {"the maps": b"\x89PNG picture"},
        "provenance": {"seed": 0, "bounds": [0.0, 200.0], "source": "bids::sub-01"},
        "notes": ["two volumes were averaged"],
    }
    return html_report(data, maps, **{**arguments, **changes})


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


def test_grey_matter_is_summarised_where_given(data, maps):
    grey = np.zeros_like(data.mask)
    grey[3] = True
    rows = Page(report(data, maps, grey_matter=grey)).rows
    assert ["grey matter", "CBF [mL/100g/min]", "55.0", "50.0 to 60.0", "6"] in rows


def test_voxels_are_counted_by_outcome(data, maps):
    rows = {row[0]: row[1:] for row in Page(report(data, maps)).rows if row}
    assert rows["fitted within the bounds"] == ["13", "72.2"]
    assert rows["ended on a bound"] == ["2", "11.1"]
    assert rows["did not converge"] == ["1", "5.6"]
    assert next(row for name, row in rows.items() if name.startswith("skipped"))[0] == "2"
    assert rows["mask"] == ["18", "100.0"]


def test_acquisition_lists_every_delay_and_constant(data, maps):
    rows = Page(report(data, maps)).rows
    assert ["1", "2", "2.5", "4.5", "2"] in rows
    assert ["3", "1", "0.5", "1.5", "3"] in rows
    assert ["T1 of blood [s]", "1.65"] in rows
    assert ["labelling efficiency", "0.85"] in rows
    assert ["largest readout delay of a slice [s]", "0.04"] in rows


def test_provenance_and_notes_are_there(data, maps):
    page = Page(report(data, maps))
    assert ["bounds", "[0.0, 200.0]"] in page.rows
    assert ["source", "bids::sub-01"] in page.rows
    assert "two volumes were averaged" in page.text


def test_every_text_is_escaped(data, maps):
    text = report(
        data,
        maps,
        title=NASTY,
        method=NASTY,
        figures={NASTY: b""},
        provenance={NASTY: NASTY, "list": [NASTY]},
        notes=[NASTY],
    )
    assert "<script" not in text
    assert "alert('x')" not in text
    page = Page(text)
    assert page.open == []
    assert "".join(page.text).count("alert(") == 9


def test_empty_sections_are_left_out(data, maps):
    headings = re.findall("<h2>(.*?)</h2>", report(data, maps, notes=[], figures={}, provenance={}))
    assert headings == ["Perfusion", "Voxels", "Acquisition"]


def test_a_result_without_fitted_voxels_is_still_described(data, maps):
    nothing = PerfusionMaps(maps.cbf * 0.0, maps.att * 0.0, np.zeros_like(maps.status))
    rows = Page(report(data, nothing)).rows
    assert ["all voxels", "CBF [mL/100g/min]", "n/a", "n/a", "0"] in rows
