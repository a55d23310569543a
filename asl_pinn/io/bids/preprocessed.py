"""A series as another program has preprocessed it, in place of the one that was acquired."""

import dataclasses

from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import IMAGE_EXTENSIONS, AslRun
from asl_pinn.io.bids.places import anatomy_folders, is_of_run

_DESCRIPTION = "desc-preproc_asl"


def preprocessed(run: AslRun) -> AslRun:
    """The run with the images of its preprocessed series, as ASLPrep writes it.

    Parameters
    ----------
    run : AslRun
        Acquired; its sidecar, its aslcontext and its M0 remain those of the run.

    Returns
    -------
    AslRun

    Raises
    ------
    InputError
        If there is no `derivatives/*/<folder of the run>/*_desc-preproc_asl.nii[.gz]` in the space
        of the series, or there are several.
    """
    found = [
        path
        for place, shared in anatomy_folders(run)
        if place.name == run.folder.name
        for path in sorted(place.glob(f"*_{_DESCRIPTION}.nii*"))
        if path.name.endswith(IMAGE_EXTENSIONS) and is_of_run(run, path, shared, ("desc", "space"))
    ]
    if len(found) != 1:
        names = ", ".join(path.relative_to(run.bids_dir).as_posix() for path in found) or "none"
        raise InputError(
            f"{run.path}: --preprocessed needs one *_{_DESCRIPTION}.nii.gz in the space of the "
            f"series, in derivatives/*/{run.folder.as_posix()}; found: {names}"
        )
    return dataclasses.replace(run, images=found[0])
