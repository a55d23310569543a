"""`asl-pinn design` and `asl.design`, as people call them."""

import csv
import dataclasses
import json

import numpy as np
import pytest

import asl_pinn as asl
from asl_pinn.errors import InputError
from asl_pinn.optimal_design.monte_carlo import Check
from asl_pinn.optimal_design.sensitivity import Sensitivity
from asl_pinn.workflow.cli import main


def design(*arguments) -> int:
    return main(["asl-pinn", "design", *map(str, arguments)])


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_command_prints_and_writes(tmp_path, capsys):
    # As many delays for all but one, so that they share their programs.
    quick = ("--matrix_size=4", "--plds=0.2,1,1.8", "--tissues=gm", "--tsnr=3", "--check=0")
    assert design(f"--output_dir={tmp_path}", *quick, "--optimise", "--restarts=0") == 0
    printed = capsys.readouterr().out
    table = rows(tmp_path / "design.tsv")
    names = list(dict.fromkeys(row["schedule"] for row in table))
    assert names == [
        "equal 4",
        "T1-adjusted 4",
        "free lunch 4",
        "sequential 3",
        "single delay",
        "optimised 4",
        "optimised sequential 3",
    ]
    for row in table:
        assert row["schedule"] in printed
        assert 0.0 < float(row["sd"]) < float(row["sd_before"])
        assert float(row["seconds"]) <= 300.0
    assert "(tSNR 3)" in printed
    assert len(rows(tmp_path / "design_curves.tsv")) == (2 * 6 + 1) * 79
    fragment = json.loads((tmp_path / "optimised-4_asl.json").read_text())
    assert fragment["LabelingDuration"] == pytest.approx(
        sum(fragment["TimeEncodedSubBolusDurations"])
    )
    assert {row["state"] for row in rows(tmp_path / "optimised-4_timing.tsv")} == {
        "label",
        "control",
    }
    averages = {row["schedule"]: int(row["averages"]) for row in table}
    listed = rows(tmp_path / "optimised-4_aslcontext.tsv")
    assert len(listed) == 4 * averages["optimised 4"]


def test_page_has_checks_and_biases(tmp_path):
    found = asl.design(matrix_size=4, plds=[0.2, 1, 1.8], tissues=["gm"], check=0)
    att = found.goal.model["att"]
    checked = dataclasses.replace(
        found,
        checks=(
            Check("equal 4", "grey matter", 1.25, att, 0.05, 0.051, 0.001),
            Check("equal 4", "grey matter", 1.75, att, 0.05, 0.115, 0.001),
        ),
        sensitivities=(Sensitivity("equal 4", "grey matter", "T1 & so on", att, 1.3, 0.1, -0.2),),
    )
    checked.save(tmp_path)
    page = (tmp_path / "design.html").read_text()
    assert "default-src 'none'" in page
    assert "At 1 of 2 points the bound is optimistic, at worst by a factor of 2.30" in page
    assert "T1 &amp; so on" in page
    assert (tmp_path / "design.png").read_bytes().startswith(b"\x89PNG")
    first, second = rows(tmp_path / "design_check.tsv")
    assert (first["verdict"], second["verdict"]) == ("as the bound says", "bound is optimistic")
    (bias,) = rows(tmp_path / "design_sensitivity.tsv")
    assert float(bias["monte_carlo_percent"]) == pytest.approx(-100 * 0.2 / 1.3, rel=1e-4)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--scan_time=-3"], "scan_time must be above 0 [s], it is -3"),
        (["--scan_time=12"], "takes 24 s, more than the scan time of 12 s"),
        (["--scan_time=300000"], "too long for seconds"),
        (["--readout=nan"], "readout must be 0 or more"),
        (["--matrix_size=7"], "no Hadamard matrix of size 7"),
        (["--matrix_size=a"], "no list of sizes"),
        (["--raster=0.5"], "raster of 0.5 s is above min_duration"),
        (["--plds=-1,2"], "it holds -1"),
        (["--tsnr=0"], "tSNR must be positive"),
        (["--tsnr=1", "--noise_sd=1"], "stated by noise_sd and by tsnr"),
        (["--noise_sd=nan"], "at most 100 % of M0"),
        (["--like=/nowhere"], "/nowhere"),
        (["--model=pulsed"], "use model buxton"),
        (["--model=partial-volume"], "use --model=buxton"),
        (["--parameters=foo"], "no parameter 'foo'"),
        (["--prior=att=9:1"], "prior of ATT"),
        (["--tissues=csf"], "unknown tissue 'csf'"),
        (["--label_duration=5"], "label_duration must be within"),
        (["--check=1"], "check must be 2 draws or more"),
        (["--label_total=4000"], "not milliseconds"),
        (["--min_delay=4"], "above max_delay"),
        (["--min_duration=0.7", "--optimise"], "7 sub-boluses of min_duration 0.7 s take 4.9 s"),
    ],
)
def test_what_cannot_be_is_one_line(flags, said, tmp_path, capsys):
    quick = [] if any(flag.startswith("--check") for flag in flags) else ["--check=0"]
    assert design(f"--output_dir={tmp_path}", *quick, *flags) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_from_python_by_name_with_arteries():
    plds = np.linspace(0.2, 2.2, 7)
    found = asl.design(model="buxton+arterial", plds=plds, tissues=["gm"], check=0)
    names = [e.parameter.name for e in found["T1-adjusted 8"].expected]
    assert names == ["cbf", "att", "abv", "abat"]
    single = found["single delay"]
    assert single.model.names == ("cbf",)
    assert single.expected[0].bias > 0.0
    assert "held" in repr(found)
    assert found.goal.parameters == ("cbf", "att", "abv")


def test_from_python_what_cannot_be_is_an_input_error():
    with pytest.raises(InputError, match="criterion"):
        asl.design(criterion="E", check=0)
