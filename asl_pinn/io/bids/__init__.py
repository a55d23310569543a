"""BIDS datasets in, BIDS derivatives out."""

from asl_pinn.acquisition.calibration import Calibration
from asl_pinn.io.bids.anatomy import Anatomy, read_anatomy
from asl_pinn.io.bids.dataset import AslRun, find_runs
from asl_pinn.io.bids.masks import read_grey_matter
from asl_pinn.io.bids.participants import read_participants
from asl_pinn.io.bids.read import ReadNotes, read_run
from asl_pinn.io.bids.write import (
    SOURCE_DATASET,
    desc_label,
    holds_derivatives,
    map_base,
    maps_sidecar,
    read_finished,
    write_maps,
    write_simulation,
)

__all__ = [
    "SOURCE_DATASET",
    "Anatomy",
    "AslRun",
    "Calibration",
    "ReadNotes",
    "desc_label",
    "find_runs",
    "holds_derivatives",
    "map_base",
    "maps_sidecar",
    "read_anatomy",
    "read_finished",
    "read_grey_matter",
    "read_participants",
    "read_run",
    "write_maps",
    "write_simulation",
]
