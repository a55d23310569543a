"""A protocol with what it costs: images, seconds, and the noise of its differences."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from asl_pinn.acquisition.protocol import Protocol, check_timing, time_encoded_protocol
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError

_ROUNDING = 1e-9  # of the number of averages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """A schedule that is repeated until the scan time is used up.

    Attributes
    ----------
    name : str
        'T1-adjusted 8'.
    protocol : Protocol
        Of the D differences that one cycle yields.
    n_images : int
        Images of a cycle.
    cycle_time : float
        Duration of a cycle, readouts included [s].
    noise_factor : float
        Standard deviation of a difference over that of an image.
    readout : float
        From the end of the delay to the next labelling [s].
    matrix_size : int or None
        Size of the encoding matrix; None where controls and labels are subtracted in pairs.
    held : dict of str to float
        Parameters that its fit has to hold, as a single delay cannot determine them.
    """

    name: str
    protocol: Protocol
    n_images: int
    cycle_time: float
    noise_factor: float
    readout: float
    matrix_size: int | None = None
    held: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def averages(self, scan_time: float) -> int:
        """Whole cycles that fit a scan.

        Parameters
        ----------
        scan_time : float
            Of the ASL series, without that of M0 [s].

        Returns
        -------
        int
            One at least.

        Raises
        ------
        InputError
            If not one does.
        """
        count = whole_cycles(self.cycle_time, scan_time)
        if count < 1:
            raise InputError(
                f"one cycle of {self.name} takes {self.cycle_time:g} s, more than the scan time of "
                f"{scan_time:g} s; give more time, a smaller matrix, or less labelling time"
            )
        return count


def whole_cycles(cycle_time: float, scan_time: float) -> int:
    """Whole cycles that fit a scan, be it none, in spite of rounding.

    Parameters
    ----------
    cycle_time, scan_time : float
        [s].

    Returns
    -------
    int
    """
    return math.floor(scan_time / cycle_time * (1.0 + _ROUNDING))


def time_encoded_scan(
    name: str, durations: FloatArray | Sequence[float], final_delay: float, readout: float
) -> Scan:
    """A Hadamard-encoded train of sub-boluses.

    Differences are decoded from N images each, so that their noise is 2 / sqrt(N) times that of an
    image.

    Parameters
    ----------
    name : str
        For people.
    durations : array_like, shape (N - 1,)
        Of the sub-boluses, earliest first [s].
    final_delay : float
        From the end of the last one to readout [s].
    readout : float
        From there to the next labelling [s].

    Returns
    -------
    Scan

    Raises
    ------
    InputError
        If a time is not one of an acquisition.
    """
    protocol = time_encoded_protocol(np.asarray(durations, np.float64), final_delay)
    size = protocol.n_delays + 1
    repetition = float(np.sum(protocol.label_duration)) + final_delay + readout
    return Scan(
        name=name,
        protocol=protocol,
        n_images=size,
        cycle_time=size * repetition,
        noise_factor=2.0 / math.sqrt(size),
        readout=readout,
        matrix_size=size,
    )


def paired_scan(
    name: str,
    label_duration: float,
    pld: FloatArray | Sequence[float],
    readout: float,
    held: Mapping[str, float] | None = None,
) -> Scan:
    """Pairs of a control and a label at one delay after the other.

    Parameters
    ----------
    name : str
        For people.
    label_duration : float
        Of all [s].
    pld : array_like, shape (D,)
        Delays from the end of labelling to readout [s].
    readout : float
        From there to the next labelling [s].
    held : mapping of str to float, optional
        Parameters that the fit holds.

    Returns
    -------
    Scan

    Raises
    ------
    InputError
        If a time is not one of an acquisition.
    """
    delays = np.asarray(pld, np.float64)
    protocol = Protocol(np.full(delays.shape, float(label_duration)), delays)
    check_timing(protocol)
    return Scan(
        name=name,
        protocol=protocol,
        n_images=2 * len(delays),
        cycle_time=2.0 * float(np.sum(protocol.t + readout)),
        noise_factor=math.sqrt(2.0),
        readout=readout,
        held=dict(held or {}),
    )
