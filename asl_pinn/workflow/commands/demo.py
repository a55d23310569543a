"""`asl-pinn demo`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from asl_pinn.acquisition.protocol import label_durations, time_encoded_protocol
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.io import bids
from asl_pinn.io.atomic import require_writable, write_bytes, write_json
from asl_pinn.simulation.acquire import simulate
from asl_pinn.simulation.phantoms import mni_phantom, select_slices
from asl_pinn.viz import plots
from asl_pinn.workflow import provenance
from asl_pinn.workflow.commands import flag_help
from asl_pinn.workflow.commands.arguments import positional
from asl_pinn.workflow.commands.evaluate import as_json, evaluate, table
from asl_pinn.workflow.config import Config
from asl_pinn.workflow.run import quantify

USAGE = "[--output_dir=out/demo] [--methods=nlls,spatial-map,neural-field]"

ARGUMENTS: dict[str, str] = {}

_TSNR = 1.5


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command."""
    to: dict[str, Any] = {"flag_values": values, "module_name": flag_help.COMMON}
    flags.DEFINE_string("output_dir", "out/demo", "Where to write.", **to)
    flags.DEFINE_list(
        "methods", ["nlls", "spatial-map", "neural-field"], "Estimators to compare.", **to
    )


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Simulate the central slice, quantify what was written, score it and draw it."""
    positional(arguments, USAGE, 0)
    output_dir = Path(values.output_dir)
    estimators = {method: get_estimator(method) for method in values.methods}
    require_writable(output_dir)
    phantom = select_slices(mni_phantom(), "central")
    protocol = time_encoded_protocol(label_durations("t1_adjusted", 7))
    simulated, quantified = output_dir / "simulated", output_dir / "quantified"
    bids.write_simulation(
        simulated,
        phantom,
        simulate(phantom, protocol, tsnr=_TSNR, seed=0),
        seed=0,
        description={"Phantom": "mni", "TemporalSNR": _TSNR},
    )
    (asl_run,) = bids.find_runs(simulated)
    reading = provenance.reading(t1_tissue="map")
    data, notes = bids.read_run(asl_run, **reading)
    anatomy = bids.read_anatomy(asl_run, data, (), [])
    maps = {}
    for method, estimator in estimators.items():
        config = Config(method, estimator.options(), reading=reading)
        origin = provenance.describe(config, asl_run.bids_dir, notes, data)
        context = config.context(progress=True)
        maps[method], _ = quantify(data, notes, config, origin, quantified, context, anatomy)
    scored = evaluate(quantified, simulated / "derivatives" / "truth")
    write_json(output_dir / "scores.json", as_json(scored))
    title = f"Phantom mni, central slice, tSNR {_TSNR}"
    figure = plots.comparison_figure(phantom, maps, title)
    write_bytes(output_dir / "demo.png", plots.png(figure))
    print(table(scored))
    for name, what in {
        "demo.png": "truth, estimates and errors",
        "scores.json": "the scores above",
        "quantified": "maps and reports",
        "simulated": "the BIDS dataset and its truth",
    }.items():
        print(f"{output_dir / name}: {what}")
    return 0
