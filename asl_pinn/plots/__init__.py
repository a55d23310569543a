"""Pictures of perfusion maps and of the fit behind them, as PNG bytes."""

from asl_pinn.plots.axial import AxialView, axial_view
from asl_pinn.plots.checks import residual_figure, status_figure
from asl_pinn.plots.fit import fit_figure, histogram_figure
from asl_pinn.plots.maps import comparison_figure, map_figure

__all__ = [
    "AxialView",
    "axial_view",
    "comparison_figure",
    "fit_figure",
    "histogram_figure",
    "map_figure",
    "residual_figure",
    "status_figure",
]
