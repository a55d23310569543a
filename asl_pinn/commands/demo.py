"""`asl-pinn demo`."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from asl_pinn import bids, plots
from asl_pinn.commands.arguments import positional
from asl_pinn.commands.evaluate import as_json, evaluate, table
from asl_pinn.commands.quantify import quantify
from asl_pinn.estimators import get_estimator
from asl_pinn.execution import Execution
from asl_pinn.files import require_writable, write_bytes, write_json
from asl_pinn.phantoms import mni_phantom, select_slices
from asl_pinn.protocol import label_durations, time_encoded_protocol
from asl_pinn.simulate import simulate

USAGE = "[--output_dir=out/demo] [--methods=nlls,spatial-map,pinn]"

_TSNR = 1.5


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command."""
    flags.DEFINE_string("output_dir", "out/demo", "Where to write.", flag_values=values)
    flags.DEFINE_list(
        "methods", ["nlls", "spatial-map", "pinn"], "Estimators to compare.", flag_values=values
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
    data, notes = bids.read_run(asl_run, t1_tissue="map")
    maps = {
        method: quantify(
            asl_run, data, notes, quantified, method, estimator.options(), Execution(progress=True)
        )
        for method, estimator in estimators.items()
    }
    scored = evaluate(quantified, simulated / "derivatives" / "truth")
    write_json(output_dir / "scores.json", as_json(scored))
    title = f"Phantom mni, central slice, tSNR {_TSNR}"
    write_bytes(output_dir / "demo.png", plots.comparison_figure(phantom, maps, title))
    print(table(scored))
    for name, what in {
        "demo.png": "truth, estimates and errors",
        "scores.json": "the scores above",
        "quantified": "maps and reports",
        "simulated": "the BIDS dataset and its truth",
    }.items():
        print(f"{output_dir / name}: {what}")
    return 0
