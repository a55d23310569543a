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
    mapping.set_brain_mask(ImageIO(f"{folder}/mask.nii.gz"))
    begin = time.perf_counter()
    mapping.create_map(cores=int(cores))
    print(time.perf_counter() - begin)
