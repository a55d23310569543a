"""Run by asltk's own environment: folder, timing as JSON, cores -> seconds of the fit."""

import json
import sys
import time

from asltk.asldata import ASLData
from asltk.reconstruction import CBFMapping
from asltk.utils.io import ImageIO

if __name__ == "__main__":
    folder, timing, cores = sys.argv[1:]
    delays = json.loads(timing)
    data = ASLData(
        pcasl=f"{folder}/pcasl.nii.gz",
        m0=f"{folder}/m0.nii.gz",
        ld_values=delays["ld"],
        pld_values=delays["pld"],
    )
    mapping = CBFMapping(data)
    mask = ImageIO(f"{folder}/mask.nii.gz")
    mapping.set_brain_mask(mask)
    begin = time.perf_counter()
    maps = mapping.create_map(cores=int(cores))
    seconds = time.perf_counter() - begin
    fitted = maps["att"].get_as_numpy()[mask.get_as_numpy() > 0]
    if (fitted > 0.0).mean() < 0.5:
        sys.exit("asltk fitted less than half of the voxels")
    print(seconds)
