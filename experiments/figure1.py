"""Figure 1: maps of CBF and ATT and their relative errors, beside the truth.

python experiments/figure1.py [--methods=nlls,spatial-map,neural-field] [--tsnr=1.5,0.5] ...
"""

from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from cases import RESULTS, foot, make_case, provenance, run_method

from asl_pinn.io.atomic import write_bytes
from asl_pinn.viz.plots import comparison_figure, png

_METHODS = flags.DEFINE_list(
    "methods", ["nlls", "spatial-map", "neural-field"], "Methods, from experiments/cases.py."
)
_TSNR = flags.DEFINE_list("tsnr", ["1.5", "0.5"], "Temporal signal-to-noise ratios.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise.")
_SLICE = flags.DEFINE_string("slice", "central", "Slice of the phantom.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", str(RESULTS), "Where to write.")


def main(argv: Sequence[str]) -> None:
    """Fit, draw, and say how it was done."""
    del argv
    output_dir = Path(_OUTPUT_DIR.value)
    lines = ["# Maps beside the truth", ""]
    for tsnr in map(float, _TSNR.value):
        case = make_case(_SLICE.value, tsnr, _SEED.value)
        maps = {name: run_method(name, case.data)[0] for name in _METHODS.value}
        picture = output_dir / f"figure1_tsnr-{tsnr:g}.png"
        title = f"Phantom mni, {_SLICE.value} slice, tSNR {tsnr:g}"
        write_bytes(picture, png(comparison_figure(case.phantom, maps, title)))
        lines += [f"![{title}]({picture.name})", ""]
        print(picture)
    write_bytes(output_dir / "figure1.md", "\n".join([*lines, foot(provenance()), ""]).encode())


if __name__ == "__main__":
    app.run(main)
