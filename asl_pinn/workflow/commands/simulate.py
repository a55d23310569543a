"""`asl-pinn simulate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from asl_pinn import models
from asl_pinn.acquisition import encoding
from asl_pinn.acquisition.protocol import Protocol, label_durations, time_encoded_protocol
from asl_pinn.arrays import FloatArray
from asl_pinn.data import Phantom
from asl_pinn.errors import InputError
from asl_pinn.io import bids
from asl_pinn.models.base import KineticModel
from asl_pinn.simulation.acquire import simulate, simulate_encoded
from asl_pinn.simulation.phantoms import bats_phantom, complete, mni_phantom, select_slices
from asl_pinn.simulation.phantoms.bats import BATS_URL
from asl_pinn.workflow.commands import flag_help
from asl_pinn.workflow.commands.arguments import positional, require, seconds

USAGE = "--output_dir=DIR [--phantom=mni|bats] [--model=buxton] [--tsnr=1.5] [--seed=0] ..."

ARGUMENTS: dict[str, str] = {}

_NAMED_SCHEDULES = ("equal", "t1_adjusted", "free_lunch")


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command."""
    to: dict[str, Any] = {"flag_values": values, "module_name": flag_help.COMMON}
    flags.DEFINE_string("output_dir", None, "Where to write the dataset.", **to)
    to["module_name"] = "phantom and noise"
    flags.DEFINE_enum("phantom", "mni", ["mni", "bats"], "Brain to simulate.", **to)
    flags.DEFINE_string(
        "model",
        models.DEFAULT_MODEL,
        "Kinetic model of the signal: models joined by '+', or 'module:Class'. The phantom gets "
        "arteries, dispersion and constants that the model needs; a parameter of which it has no "
        f"map is an error. Registered are {', '.join(models.available())}.",
        **to,
    )
    flags.DEFINE_string("bats_dir", None, "Folder of the Boston ASL Template.", **to)
    flags.DEFINE_integer("resolution", 3, "Voxel size of the phantom mni [mm].", **to)
    flags.DEFINE_integer(
        "phantom_seed", 0, "Seed of the phantom's variations and arteries.", 0, 2**32 - 1, **to
    )
    flags.DEFINE_float("tsnr", 1.5, "Mean grey-matter signal of tissue over noise.", **to)
    flags.DEFINE_integer("seed", 0, "Seed of the noise.", 0, 2**32 - 1, **to)
    flags.DEFINE_string("slice", "central", "central, all, or the index of a slice.", **to)
    to["module_name"] = "acquisition"
    flags.DEFINE_string(
        "schedule",
        "t1_adjusted",
        "equal, t1_adjusted, free_lunch, or sub-bolus durations in s, earliest first: 1.8,0.8,...",
        **to,
    )
    flags.DEFINE_integer("matrix_size", 8, "Images of an encoding cycle.", **to)
    flags.DEFINE_enum(
        "matrix_type", "hadamard", ["hadamard", "walsh"], "Order of the encoding.", **to
    )
    flags.DEFINE_float("label_total", 4.0, "Labelling time in all [s].", **to)
    flags.DEFINE_float("first_bolus", 1.8, "First bolus of the schedule free_lunch [s].", **to)
    flags.DEFINE_float("final_delay", 0.1, "From the last sub-bolus to readout [s].", **to)
    flags.DEFINE_bool("encoded", False, "Write encoded images instead of differences.", **to)


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Write the dataset and say where."""
    positional(arguments, USAGE, 0)
    output_dir = Path(require(values, "output_dir"))
    matrix = encoding.encoding_matrix(values.matrix_size, values.matrix_type)
    protocol = _protocol(values, matrix.shape[1])
    model = models.get(values.model)
    phantom = _phantom(values, model)
    tsnr, seed = values.tsnr, values.seed
    images: FloatArray | None = None
    keys: dict[str, Any] | None = None
    if values.encoded:
        images = simulate_encoded(phantom, protocol, matrix, tsnr=tsnr, seed=seed, model=model)
        keys = {
            "TimeEncodedMatrixSize": len(matrix),
            "TimeEncodedMatrixType": values.matrix_type,
        }
    bids.write_simulation(
        output_dir,
        phantom,
        simulate(phantom, protocol, tsnr=tsnr, seed=seed, model=model),
        seed=seed,
        model=model,
        images=images,
        encoding=keys,
        description={"Phantom": values.phantom, "Model": values.model, "TemporalSNR": tsnr},
    )
    print(f"{output_dir}: {np.count_nonzero(phantom.mask)} voxels, {protocol.n_delays} delays")
    return 0


def _phantom(values: flags.FlagValues, model: KineticModel) -> Phantom:
    if values.phantom == "mni":
        phantom = mni_phantom(resolution=values.resolution, seed=values.phantom_seed)
    else:
        folder = values.bats_dir
        if folder is None:
            raise InputError(f"--bats_dir is missing; the data are at {BATS_URL}")
        phantom, unit = bats_phantom(Path(folder))
        print(f"{folder}: transit times are in {unit}")
    whole = complete(phantom, model, seed=values.phantom_seed)
    return select_slices(whole, values.slice)


def _protocol(values: flags.FlagValues, n_delays: int) -> Protocol:
    schedule = values.schedule
    if schedule in _NAMED_SCHEDULES:
        total, first = values.label_total, values.first_bolus
        durations = label_durations(schedule, n_delays, total, first=first)
    elif any(mark.isdigit() for mark in schedule):
        durations = np.array(seconds(schedule, "schedule"))
    else:
        choices = ", ".join(_NAMED_SCHEDULES)
        raise InputError(f"--schedule={schedule} is none of {choices}, nor a list of seconds")
    if len(durations) != n_delays:
        raise InputError(
            f"--schedule has {len(durations)} sub-boluses; "
            f"--matrix_size={n_delays + 1} needs {n_delays}"
        )
    return time_encoded_protocol(durations, values.final_delay)
