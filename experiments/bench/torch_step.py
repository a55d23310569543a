"""The published training step, written plainly in PyTorch."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from asl_pinn.acquisition import constants
from asl_pinn.acquisition.bolus import fit_bolus, label_duration_at
from asl_pinn.data import AslData
from asl_pinn.estimators.neural import PinnOptions


class Sine(nn.Module):
    """The sine as an activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Sine of each element."""
        return torch.sin(x)


def siren(n_inputs: int, width: int, depth: int, n_outputs: int) -> nn.Sequential:
    """Sine layers and a linear one, with weights of SIREN's size."""
    layers: list[nn.Module] = []
    for inputs in [n_inputs] + [width] * (depth - 1):
        linear = nn.Linear(inputs, width)
        nn.init.uniform_(linear.weight, -math.sqrt(6.0 / inputs), math.sqrt(6.0 / inputs))
        layers += [linear, Sine()]
    return nn.Sequential(*layers, nn.Linear(width, n_outputs))


class TorchStep:
    """State of the training; a call takes one step and returns its loss."""

    def __init__(self, data: AslData, options: PinnOptions):
        torch.manual_seed(0)
        valid = data.valid
        grid = np.argwhere(valid)[:, :2]
        self.options = options
        self.position = _tensor((grid - grid.mean(axis=0)) / 40.0)
        self.delta_m = _tensor(data.delta_m[valid])
        self.unit = float(np.abs(data.delta_m[valid].mean(axis=0)).max())
        self.m0, self.t1 = _tensor(data.m0[valid]), _tensor(data.t1_tissue[valid])
        self.t = _tensor(data.protocol.t)
        # The spline is cheap: a table of it is enough, and kinder to PyTorch.
        self.times = np.linspace(data.protocol.t.min(), data.protocol.t.max(), 4096)
        spline = fit_bolus(data.protocol.t, data.protocol.label_duration, "spline5")
        self.table = _tensor(label_duration_at(spline, self.times)[0])
        self.signal = siren(3, options.signal_width, options.signal_depth, 1)
        self.maps = siren(2, options.ode_width, options.ode_depth, 2)
        self.parameters = [*self.signal.parameters(), *self.maps.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, options.learning_rate)

    def __call__(self) -> float:
        """Take a step."""
        options = self.options
        row = torch.randint(len(self.position), (options.batch_size,))
        delay = torch.randint(len(self.t), (options.batch_size,))
        position, m0, t1 = self.position[row], self.m0[row], self.t1[row]
        predicted = self._signal(self.t[delay], position)
        data_loss = torch.mean((predicted - self.delta_m[row, delay] / self.unit) ** 2)

        half = options.slope_window / 2.0
        first, last = self.times[0] + half, self.times[-1] - half
        t = (first + (last - first) * torch.rand(options.batch_size)).requires_grad_()
        learned = self._signal(t, position)
        (slope,) = torch.autograd.grad(learned.sum(), t, create_graph=True)
        logarithm = self.maps(position)
        cbf = 45.0 * torch.exp(options.output_scale["cbf"] * logarithm[:, 0])
        att = 1.2 * torch.exp(options.output_scale["att"] * logarithm[:, 1])
        rise = self._buxton(cbf, att, t.detach() + half, m0, t1)
        rise = rise - self._buxton(cbf, att, t.detach() - half, m0, t1)
        physics_loss = torch.mean((slope - rise / (options.slope_window * self.unit)) ** 2)

        loss = options.signal_weight * data_loss + options.physics_weight * physics_loss
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()

    def _signal(self, t: Tensor, position: Tensor) -> Tensor:
        return self.signal(torch.cat([t[:, None], position], dim=1))[:, 0]

    def _buxton(self, cbf: Tensor, att: Tensor, t: Tensor, m0: Tensor, t1: Tensor) -> Tensor:
        place = (t - self.times[0]) / (self.times[-1] - self.times[0]) * (len(self.times) - 1)
        tau = self.table[place.round().long().clamp(0, len(self.times) - 1)]
        flow = cbf / 6000.0
        t1_app = 1.0 / (1.0 / t1 + flow / constants.PARTITION_COEFFICIENT)
        since = t - att
        inflow = torch.clamp(torch.minimum(since, tau), min=0.0)
        washout = torch.clamp(since - tau, min=0.0)
        arterial = m0 / constants.PARTITION_COEFFICIENT
        delivered = 2.0 * constants.LABELING_EFFICIENCY * arterial * flow
        delivered = delivered * torch.exp(-att / constants.T1_BLOOD) * t1_app
        return delivered * -torch.expm1(-inflow / t1_app) * torch.exp(-washout / t1_app)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(values, np.float32))
