"""A figure for a paper: CBF and ATT of two methods beside the truth."""

import sys

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

truth, maps, output = sys.argv[1:]
columns = {
    "truth": f"{truth}/sub-01/perf/sub-01_desc-truth",
    "nlls": f"{maps}/sub-01/perf/sub-01_desc-nlls",
    "spatial-map": f"{maps}/sub-01/perf/sub-01_desc-spatialMap",
}
rows = {"cbf": ("CBF [mL/100g/min]", "inferno", 80.0), "att": ("ATT [s]", "viridis", 2.0)}
figure, axes = plt.subplots(len(rows), len(columns), figsize=(7.5, 5.2), layout="constrained")
for row, (suffix, (label, colours, top)) in zip(axes, rows.items(), strict=True):
    for ax, (name, stem) in zip(row, columns.items(), strict=True):
        volume = nib.load(f"{stem}_{suffix}.nii.gz").get_fdata()
        shown = np.rot90(np.where(volume > 0.0, volume, np.nan)[:, :, 0])
        drawn = ax.imshow(shown, cmap=colours, vmin=0.0, vmax=top, interpolation="none")
        ax.set(title=name, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=row, label=label, extend="max")
figure.savefig(output, dpi=110)
