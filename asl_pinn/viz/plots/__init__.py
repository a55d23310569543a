"""Pictures of parameter maps and of the fit behind them, as matplotlib figures."""

from asl_pinn.viz.plots.axial import AxialView, axial_view
from asl_pinn.viz.plots.checks import probability_figure, residual_figure, status_figure
from asl_pinn.viz.plots.fit import fit_figure, histogram_figure, mean_curve_figure
from asl_pinn.viz.plots.group import covariate_figure, distribution_figure
from asl_pinn.viz.plots.inputs import history_figure, input_figure
from asl_pinn.viz.plots.maps import comparison_figure, map_figure
from asl_pinn.viz.plots.style import png

__all__ = [
    "AxialView",
    "axial_view",
    "comparison_figure",
    "covariate_figure",
    "distribution_figure",
    "fit_figure",
    "histogram_figure",
    "history_figure",
    "input_figure",
    "map_figure",
    "mean_curve_figure",
    "png",
    "probability_figure",
    "residual_figure",
    "status_figure",
]
