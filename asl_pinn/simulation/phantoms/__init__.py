"""Brains whose perfusion is known, to simulate from."""

from asl_pinn.simulation.phantoms.arteries import with_arteries
from asl_pinn.simulation.phantoms.bats import bats_phantom
from asl_pinn.simulation.phantoms.components import complete, with_dispersion
from asl_pinn.simulation.phantoms.lesions import add_lesions
from asl_pinn.simulation.phantoms.mni import mni_phantom
from asl_pinn.simulation.phantoms.slices import select_slices

__all__ = [
    "add_lesions",
    "bats_phantom",
    "complete",
    "mni_phantom",
    "select_slices",
    "with_arteries",
    "with_dispersion",
]
