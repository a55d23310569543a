import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.acquisition.protocol import Protocol, label_durations, time_encoded_protocol
from asl_pinn.data import AslData, Maps, Status
from asl_pinn.estimators.base import Estimator
from asl_pinn.estimators.options import ByParameter, as_mapping
from asl_pinn.estimators.registry import ESTIMATORS, get_estimator
from asl_pinn.evaluation.prediction import predicted
from asl_pinn.viz.regions import Regions, find_regions
from asl_pinn.viz.reports import participant
from asl_pinn.viz.reports.methods import methods_text, software_citation
from asl_pinn.viz.reports.participant import html_report, report_figures, report_files

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
def maps(data) -> Maps:
    status = np.where(data.mask, Status.FITTED, Status.OUTSIDE).astype(np.int8)
    status[1, 0] = Status.ON_BOUND
    status[1, 1, 0] = Status.NOT_CONVERGED
    status[1, 2] = Status.SKIPPED
    cbf = np.where(status == Status.FITTED, 40.0, 999.0)
    cbf[3] = np.array([50.0, 60.0])
    values = {"cbf": cbf, "att": cbf / 40.0}
    return Maps(models.get("buxton"), values, status, method="nlls")


@pytest.fixture
def three(maps) -> Maps:
    """The same with T1 of tissue as a third parameter, and standard deviations."""
    values = {**maps.values, "t1_tissue": maps.cbf / 30.0}
    sd = {"cbf": 0.5 * maps.cbf, "att": 0.1 * maps.att, "t1_tissue": 0.2 * values["t1_tissue"]}
    return dataclasses.replace(maps, model=models.get("buxton+t1"), values=values, sd=sd)


def estimator(description="Voxels were fitted [2].", references=("Somebody A. 2001.",), **more):
    return Estimator(lambda *_: None, object, "", description, references, **more)


def report(data, maps, **changes) -> str:
    arguments = {
        "title": "sub-01",
        "estimator": estimator(),
        "regions": find_regions(data),
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


def test_medians_and_quartiles_are_over_all_estimates_beside_the_share_on_bounds(data, maps):
    rows = Page(report(data, maps)).rows
    estimates = maps.cbf[data.mask & (maps.status != Status.SKIPPED)]
    low, high = np.percentile(estimates, [25, 75])
    median = np.median(estimates)
    assert [
        "all voxels",
        "CBF [mL/100g/min]",
        f"{median:.1f}",
        f"{low:.1f} to {high:.1f}",
        "12",
        "16",
    ] in rows
    assert [
        "all voxels",
        "ATT [s]",
        f"{median / 40:.2f}",
        f"{low / 40:.2f} to {high / 40:.2f}",
        "12",
        "16",
    ] in rows
    assert not any("grey matter" in row for row in rows)


def test_standard_deviations_are_summarised_or_said_to_be_missing(data, maps, three):
    assert "This method gives no standard deviations." in Page(report(data, maps)).text
    whole = Regions({"everything": data.mask}, "")
    rows = Page(report(data, three, regions=whole)).rows
    assert ["everything", "CBF [mL/100g/min]", "20.0", "50"] in rows
    assert ["everything", "ATT [s]", "0.10", "10"] in rows
    assert ["everything", "T1 [s]", "0.27", "20"] in rows


def test_every_parameter_of_the_model_is_described(data, three):
    text = report(data, three)
    assert ["all voxels", "T1 [s]", "1.67", "1.33 to 2.00", "12", "16"] in Page(text).rows
    assert "CBF, ATT and T1, method nlls, model buxton+t1, 3 delays." in text
    assert "That of CBF, ATT or T1: no perfusion" in text


def test_grey_matter_is_summarised_where_given(data, maps):
    grey = np.zeros_like(data.mask)
    grey[3] = True
    rows = Page(report(data, maps, regions=find_regions(data, grey))).rows
    assert ["grey matter", "CBF [mL/100g/min]", "55.0", "50.0 to 60.0", "0", "6"] in rows


def test_voxels_are_counted_by_outcome(data, maps):
    rows = {row[0]: row[1:] for row in Page(report(data, maps)).rows if row}
    assert rows["fitted within the bounds"][-2:] == ["13", "72.2"]
    assert rows["on or beyond a bound"][-2:] == ["2", "11.1"]
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
        dataclasses.replace(maps, method=NASTY),
        title=NASTY,
        estimator=estimator(NASTY, (NASTY,)),
        regions=Regions({NASTY: data.mask}, NASTY),
        provenance={NASTY: NASTY, "list": [NASTY], "Options": {NASTY: NASTY}},
        notes=[NASTY],
    )
    assert "<script" not in text
    assert "alert('x')" not in text
    page = Page(text)
    assert page.open == []
    assert "".join(page.text).count("alert(") == 16


def test_empty_sections_are_left_out(data, maps):
    text = report(data, maps, notes=[], figures={}, provenance={})
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "Perfusion",
        "Uncertainty",
        "Flagged voxels",
        "Acquisition",
        "Methods",
        "Citation",
    ]


def test_a_result_without_fitted_voxels_is_still_described(data, maps):
    values = {"cbf": maps.cbf * 0.0, "att": maps.att * 0.0}
    nothing = dataclasses.replace(maps, values=values, status=np.zeros_like(maps.status))
    rows = Page(report(data, nothing)).rows
    assert ["all voxels", "CBF [mL/100g/min]", "n/a", "n/a", "n/a", "0"] in rows


@pytest.mark.parametrize("model", ["buxton", "buxton+t1"])
@pytest.mark.parametrize("method", ESTIMATORS)
def test_methods_paragraph_states_what_was_done(data, three, method, model):
    entry, chosen = get_estimator(method), models.get(model)
    provenance = {"Options": as_mapping(entry.options(), chosen.names)}
    maps = dataclasses.replace(three, model=chosen, method=method)
    text, works = methods_text(data, maps, entry, provenance)
    for fact in (method, "3 delays", "2, 1, 1 s", "2.5, 1.5, 0.5 s", "1.65 s", "1.33 s", "0.85"):
        assert fact in text
    assert "0.5 s; each the mean of 2 to 3 repeats)" in text
    assert "of each slice, up to 0.04 s, was added" in text
    assert "Of the 18 voxels in the mask, 13 were fitted" in text
    assert "0\N{EN DASH}200 mL/100g/min for CBF" in text
    assert "{" not in text
    cited = [
        int(number) for group in re.findall(r"\[([\d, ]+)\]", text) for number in group.split(",")
    ]
    assert list(dict.fromkeys(cited)) == list(range(1, 1 + len(works)))


def test_methods_paragraph_names_bounds_priors_and_what_is_held(data, three):
    dash = "\N{EN DASH}"

    def said(model, **changes) -> str:
        maps = dataclasses.replace(three, model=model)
        return methods_text(data, maps, estimator(**changes), {})[0]

    both = said(models.get("buxton+t1"))
    assert "Cerebral blood flow (CBF), arterial transit time (ATT) and longitudinal" in both
    assert f"0.05{dash}4 s for ATT (weak normal prior: mean 1.2 s, SD 1 s)" in both
    assert f"0.3{dash}5 s for T1 (normal prior: mean 1.33 s, SD 0.1 s)." in both
    assert "assuming a T1 of arterial blood of 1.65 s, a labelling efficiency" in both
    narrow = models.with_priors(
        models.with_bounds(models.get("buxton"), att=(0.1, 3.0)), att=(1, 2)
    )
    assert f"0.1{dash}3 s for ATT (weak normal prior: mean 1 s, SD 2 s)." in said(narrow)
    learnt = said(models.get("buxton+t1"), weak_priors=False)
    assert f"0.05{dash}4 s for ATT and 0.3{dash}5 s for T1 (normal prior" in learnt
    held = said(models.fix(models.get("buxton+t1"), att=1.5, t1_tissue=1.4))
    assert "ATT was held at 1.5 s and T1 was held at 1.4 s." in held
    assert held.startswith("Cerebral blood flow (CBF) was estimated with")
    assert f"The bounds were 0{dash}200 mL/100g/min for CBF." in held
    assert "T1 of tissue of 1.33" not in held


def test_methods_paragraph_states_what_was_done_to_m0(data, maps):
    stated = {"M0RepetitionTime": [2.0, 2.0], "M0RelaxationCorrectionPercent": 28.6}
    stated |= {"M0RimVoxels": 1, "M0SmoothingFWHM": 8.0, "M0Reference": "voxel"}
    text, _ = methods_text(data, maps, estimator(), stated)
    assert "repetition time 2 s (by 28.6 % in the median), extrapolated into the outermost" in text
    assert "1 voxel and smoothed by a Gaussian of 8 mm FWHM." in text
    stated = {"M0Reference": "csf", "M0ReferenceVoxels": 50}
    text, _ = methods_text(data, maps, estimator(), stated)
    assert "M0 was taken from 50 voxels of cerebrospinal fluid." in text


def test_methods_paragraph_states_where_t1_comes_from(data, maps):
    work = "Somebody, A journal 2005, at 3 T"
    provenance = {"T1BloodSource": work, "T1TissueSource": "--t1_tissue"}
    text, _ = methods_text(data, maps, estimator(), provenance)
    assert f"blood of 1.65 s ({work}), a T1 of tissue of 1.33 s, a labelling" in text
    t1 = data.t1_tissue + np.arange(2.0)
    varied = dataclasses.replace(data, t1_tissue=t1)
    assert (
        "a T1 of tissue from a map (median 1.83 s)"
        in methods_text(varied, maps, estimator(), {})[0]
    )
    inferred = dataclasses.replace(maps, model=models.get("buxton+t1"))
    assert (
        "(normal prior: mean from the given map, SD 0.1 s)"
        in methods_text(varied, inferred, estimator(), {})[0]
    )


@pytest.mark.parametrize(
    ("method", "option", "values"),
    [
        ("spatial-map", "covariates", ("tissue", "none")),
        ("neural-field", "covariates", ("tissue", "none")),
        ("nlls-smoothed", "smoothing_fwhm", (-1.0, 6.0)),
    ],
)
def test_methods_say_options_in_words(method, option, values):
    entry = get_estimator(method)
    chosen = [
        entry.describe(as_mapping(entry.options(**{option: value}), ("cbf", "att")))
        for value in values
    ]
    assert chosen[0] != chosen[1]
    assert not re.search(r"[{}_]|\bnone\b|-1", " ".join(chosen))
    if option == "smoothing_fwhm":
        assert "of 6 mm full width at half maximum" in chosen[1]


def test_methods_call_parameters_by_their_symbols(data, three):
    model, entry = models.get("buxton+t1"), get_estimator("spatial-map")
    options = as_mapping(entry.options(order=ByParameter.of(2.0, cbf=1.0)), model.names)
    maps = dataclasses.replace(three, model=model)
    text, _ = methods_text(data, maps, entry, {"Options": options})
    assert "1 for CBF, 2 for ATT, 2 for T1" in text
    assert not re.search(r"t1_tissue", text, re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Cited(models.Buxton):
    """A model of other works."""

    description = "a model"
    references = ()


@pytest.mark.parametrize("n_works", [0, 1, 3])
def test_references_of_the_estimator_are_numbered_behind_those_of_the_model(data, maps, n_works):
    works = tuple(f"Work {n}" for n in range(n_works))
    model = type("Model", (Cited,), {"references": works})()
    entry = estimator(
        "Fitted [2] {how}, as others did [2, 3].",
        ("Fit A", "Fit B"),
        words={"how": lambda value: f"by {value} [3]"},
    )
    named = dataclasses.replace(maps, model=model)
    text, references = methods_text(data, named, entry, {"Options": {"how": "force"}})
    assert references == [*works, "Fit A", "Fit B"]
    first, second = n_works + 1, n_works + 2
    assert f"Fitted [{first}] by force [{second}], as others did [{first}, {second}]." in text
    own = "" if not works else f" [{', '.join(str(n + 1) for n in range(n_works))}]"
    assert f"described by a model{own}." in text


def test_one_delay_leaves_no_residual_and_no_noise(data, maps):
    """Of several delays both are shown, and simple data have neither repeats nor slice times."""
    figures = dict.fromkeys(("fit", "residuals"), b"\x89PNG")
    with_noise = dataclasses.replace(maps, noise_sd=1.0)
    several = report(data, with_noise, figures=figures)
    assert "3 delays." in several
    assert "Measured minus fitted" in several
    assert "Error bars" in several
    single = dataclasses.replace(
        data,
        delta_m=data.delta_m[..., :1],
        n_averages=np.ones(1),
        readout_delay=np.zeros(data.mask.shape),
        protocol=Protocol(np.array([1.8]), np.array([1.8])),
    )
    images = predicted(single, maps)
    drawn = report_figures(single, maps, images, find_regions(single), "sub-01")
    assert "residuals" not in drawn
    text = report(single, maps, figures=drawn)
    assert "1 delay." in text
    for word in ("Measured minus fitted", "Error bars", "repeats", "of each slice, up to"):
        assert word not in text


def test_citation_is_that_of_the_repository():
    lines = (Path(__file__).parents[1] / "CITATION.cff").read_text().splitlines()
    stated = {key: value.strip('" ') for key, _, value in (li.partition(": ") for li in lines)}
    citation = software_citation()
    for fact in (stated["title"], f"version {stated['version']}", stated["  - name"]):
        assert fact in citation


def test_figures_of_a_report(data, three):
    regions = find_regions(data)
    figures = report_figures(data, three, predicted(data, three), regions, "sub-01")
    names = ["maps", "uncertainty", "status", "histograms", "fit", "curves", "residuals"]
    names += ["inputs"]
    assert list(figures) == names
    assert all(png.startswith(b"\x89PNG") for png in figures.values())
    text = report(data, three, figures=figures)
    assert len(Page(text).sources) == len(names)
    assert "the dotted line (ATT) has begun to arrive" in text


def test_files_of_a_result_and_the_images_predicted_once(data, maps, monkeypatch, plain_pictures):
    calls = []
    monkeypatch.setattr(participant, "predicted", lambda *of: calls.append(of) or predicted(*of))
    provenance = {"Options": as_mapping(get_estimator("nlls").options(), maps.model.names)}
    with_noise = dataclasses.replace(maps, noise_sd=1.0)
    named = dataclasses.replace(data, stem="sub-02/ses-1/perf/sub-02_ses-1")
    files = report_files(named, with_noise, provenance, ["a note"], data.mask)
    assert list(files) == ["_desc-nlls_maps.png", "_desc-nlls_report.html"]
    text = files["_desc-nlls_report.html"].decode()
    assert "<h1>sub-02_ses-1</h1>" in text
    for words in ("poor fit", "a note", "Grey matter is that of the dataset"):
        assert words in text
    assert len(calls) == 1
