"""Time the package beside what a user would pick instead, in one run on one machine.

    python experiments/benchmark.py [--quick] [--asltk] [--output=out/benchmark.json]

Prints a table in Markdown, and writes it (.md), the numbers (.json) and the plot of cost
against size (.png). Compilation is told apart; the compilation cache is off. `--asltk` makes an
environment for asltk, which needs NumPy 1, in out/asltk. PyTorch is compared with where it is
installed: pip install '.[bench]'.
"""

import io
from pathlib import Path

import jax
from absl import app, flags
from bench import estimators, network, scaling, startup, voxelwise
from bench.measure import COLUMNS, limits
from cases import foot, make_case, provenance, table

from asl_pinn.io.atomic import write_bytes, write_json

_QUICK = flags.DEFINE_bool("quick", False, "Fewer runs, and the quick rows alone: 4 minutes.")
_ASLTK = flags.DEFINE_bool("asltk", False, "Compare with asltk, in an environment of its own.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of each row, after the first.", 1)
_VOLUME_REPEATS = flags.DEFINE_integer("volume_repeats", 5, "The same for whole volumes.", 1)
_OUTPUT = flags.DEFINE_string("output", "out/benchmark.json", "Where to write the JSON.")
_TSNR = 1.5


def main(argv: list[str]) -> None:
    """Run the benchmark."""
    jax.config.update("jax_compilation_cache_dir", None)
    quick, repeats = _QUICK.value, _REPEATS.value
    brain, central = make_case("all", _TSNR, 0), make_case("central", _TSNR, 0)
    bounds = limits(repeats)
    environment = Path("out/asltk").absolute() if _ASLTK.value else None
    rows = [
        *voxelwise.rows(brain.data, repeats, 200 if quick else 2000, environment, bounds),
        *network.rows(central.data, repeats, 20 if quick else 100, bounds),
        *startup.rows(repeats, quick),
        *estimators.rows(central.data, brain.data, repeats, _VOLUME_REPEATS.value, quick, bounds),
    ]
    measured = scaling.curves(
        brain.data, brain.phantom, min(repeats, 3) if quick else repeats, quick
    )
    about = provenance()
    lines = [
        *table(COLUMNS, [list(row.values()) for row in rows]),
        "",
        f"Limits in the same run: {bounds['multiply_adds_per_s'] / 1e9:.0f} billion multiply-adds "
        f"a second (product of two 2048 x 2048 matrices; for networks, those of their layers), "
        f"{bounds['copied_bytes_per_s'] / 1e9:.1f} GB/s (copy of 256 MB, read and written; for "
        "estimators, images read and maps written once).",
        "",
        *table(
            ("nlls against", "size", "first [s]", "median [s]", "peak memory [GB]"),
            [
                [what, point["size"], *(f"{point[k]:.3g}" for k in ("first", "median", "peak_gb"))]
                for what, points in measured.items()
                for point in points
            ],
        ),
        "",
        foot(about),
        "",
    ]
    text = "\n".join(lines)
    print(text)
    output = Path(_OUTPUT.value)
    picture = io.BytesIO()
    scaling.draw(measured).savefig(picture, format="png", dpi=120)
    write_json(output, {"about": about, "limits": bounds, "rows": rows, "scaling": measured})
    write_bytes(output.with_suffix(".md"), text.encode())
    write_bytes(output.with_suffix(".png"), picture.getvalue())
    print(f"{output} and, beside it, the same as .md and .png")


if __name__ == "__main__":
    app.run(main)
