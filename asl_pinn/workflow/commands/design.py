"""`asl-pinn design`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from asl_pinn import models
from asl_pinn.errors import InputError
from asl_pinn.workflow.commands import flag_help
from asl_pinn.workflow.commands.arguments import by_name, pair, positional, require, seconds

USAGE = "--output_dir=DIR [--scan_time=300] [--readout=0.5] [--matrix_size=8] [--optimise] ..."

ARGUMENTS: dict[str, str] = {}


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command."""
    to: dict[str, Any] = {"flag_values": values, "module_name": flag_help.COMMON}
    flags.DEFINE_string("output_dir", None, "Where to write tables, page and picture.", **to)
    flags.DEFINE_float("scan_time", 300.0, "Time of the ASL series, without M0 [s].", **to)
    flags.DEFINE_float("readout", 0.5, "From the end of the delay to the next labelling [s].", **to)
    flags.DEFINE_list("matrix_size", ["8"], "Images of an encoding cycle; several as 4,8,12.", **to)
    flags.DEFINE_integer("seed", 0, "Seed of the search and of simulated noise.", 0, **to)
    to["module_name"] = "noise"
    flags.DEFINE_float(
        "noise_sd", None, "Noise of one image in % of M0; 0.14 unless the noise is stated.", **to
    )
    flags.DEFINE_float(
        "tsnr",
        None,
        "Noise by the tSNR of one cycle of the T1-adjusted schedule, as simulate has it.",
        **to,
    )
    flags.DEFINE_string("like", None, "BIDS dataset from which to measure the noise.", **to)
    to["module_name"] = "brains"
    flags.DEFINE_string(
        "model",
        models.DEFAULT_MODEL,
        "Kinetic model that is to be fitted: models joined by '+', or 'module:Class'. "
        f"Registered are {', '.join(models.available())}.",
        **to,
    )
    flags.DEFINE_list("tissues", ["gm", "wm"], "Tissues that count: gm, wm.", **to)
    flags.DEFINE_multi_string(
        "prior",
        [],
        "Mean and standard deviation of parameters in the population, in their units, in place of "
        "those of every tissue: att=1.9:0.5; one may be left out: att=1.9:.",
        **to,
    )
    to["module_name"] = "times"
    flags.DEFINE_float(
        "label_total",
        4.0,
        "Longest labelling of a time-encoded schedule before a readout [s].",
        **to,
    )
    flags.DEFINE_float(
        "label_duration",
        1.8,
        "Label of the sequential and single-delay schedules, and first bolus of free-lunch [s].",
        **to,
    )
    flags.DEFINE_string(
        "plds", "0.2,0.7,1.2,1.7,2.2", "Delays of the sequential schedule [s].", **to
    )
    flags.DEFINE_float("min_duration", 0.1, "Shortest sub-bolus [s].", **to)
    flags.DEFINE_float("min_delay", 0.1, "Shortest delay before a readout [s].", **to)
    flags.DEFINE_float("max_delay", 3.0, "Longest delay of an optimised schedule [s].", **to)
    flags.DEFINE_float("raster", 0.01, "Times are multiples of it [s].", **to)
    to["module_name"] = "optimisation"
    flags.DEFINE_bool("optimise", False, "Seek the best schedules, too.", **to)
    flags.DEFINE_list(
        "parameters", None, "Parameters to tell well; cbf, att and abv of the model if unset.", **to
    )
    flags.DEFINE_enum(
        "criterion",
        "A",
        ["A", "D"],
        "Sum of their variances, each over that in the population (A), or determinant of their "
        "covariance (D); expectation over the population.",
        **to,
    )
    flags.DEFINE_integer("restarts", 8, "Random schedules to search from.", 0, **to)
    to["module_name"] = "checks"
    flags.DEFINE_integer(
        "check",
        1000,
        "Fits of simulated noise at each transit time, to check bounds; 0: none.",
        **to,
    )
    flags.DEFINE_bool(
        "sensitivity", False, "Bias from wrong constants, missing arteries and dispersion.", **to
    )


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Compare schedules, print the table, and write everything."""
    # JAX, SciPy and Matplotlib, for which --help does not wait.
    from asl_pinn.io.atomic import require_writable
    from asl_pinn.workflow.design import design

    positional(arguments, USAGE, 0)
    output_dir = Path(require(values, "output_dir"))
    chosen: dict[str, Any] = {
        "matrix_size": _sizes(values.matrix_size),
        "priors": by_name(values.prior, "prior", pair),
        "plds": seconds(values.plds, "plds"),
    }
    names = (
        "scan_time readout seed noise_sd tsnr like model tissues label_total label_duration "
        "min_duration min_delay max_delay raster optimise parameters criterion restarts check "
        "sensitivity"
    )
    chosen |= {name: values[name].value for name in names.split()}
    require_writable(output_dir)
    found = design(**chosen)
    print(found.text())
    for note in found.notes:
        print(f"note: {note}")
    found.save(output_dir)
    for name, what in {
        "design.html": "the page: table, curves, checks",
        "design.tsv": "the table above, with bounds",
        "*_timing.tsv, *_asl.json": "timing of each schedule, for scanners and for BIDS",
    }.items():
        print(f"{output_dir / name}: {what}")
    return 0


def _sizes(texts: Sequence[str]) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError:
        listed = ",".join(texts)
        raise InputError(f"--matrix_size={listed} is no list of sizes such as 4,8,12") from None
