"""A scan in words that scanners and BIDS have: a table of its blocks, and a sidecar."""

from typing import Any

import numpy as np

from asl_pinn.acquisition.encoding import encoding_matrix
from asl_pinn.optimal_design.scan import Scan

Row = dict[str, str | int | float]


def timing_table(scan: Scan) -> list[Row]:
    """Every labelling block of one cycle.

    Parameters
    ----------
    scan : Scan
        To be played.

    Returns
    -------
    list of dict
        Image and block (from 1), 'control' or 'label', when the block starts and ends, and when the
        readout starts and the repetition ends, all from the start of the image's labelling [s].
    """
    rows: list[Row] = []
    protocol = scan.protocol
    if scan.matrix_size is not None:
        durations = protocol.label_duration
        trains = [
            (durations, row < 0.0, float(protocol.pld[-1]))
            for row in encoding_matrix(scan.matrix_size)
        ]
    else:
        trains = [
            (np.array([duration]), np.array([labelled]), float(pld))
            for duration, pld in zip(protocol.label_duration, protocol.pld, strict=True)
            for labelled in (False, True)
        ]
    for image, (durations, labelled, delay) in enumerate(trains, start=1):
        ends = np.cumsum(durations)
        for block, (end, duration, on) in enumerate(
            zip(ends, durations, labelled, strict=True), start=1
        ):
            rows.append(
                {
                    "image": image,
                    "block": block,
                    "state": "label" if on else "control",
                    "start": round(float(end - duration), 6),
                    "end": round(float(end), 6),
                    "readout_start": round(float(ends[-1] + delay), 6),
                    "repetition_end": round(float(ends[-1] + delay + scan.readout), 6),
                }
            )
    return rows


def volume_types(scan: Scan, averages: int) -> list[str]:
    """Rows of the aslcontext file of a series.

    Parameters
    ----------
    scan : Scan
        That was played.
    averages : int
        How many cycles.

    Returns
    -------
    list of str
        'control' or 'label'; of encoded images, 'control' where no sub-bolus is labelled.
    """
    rows = timing_table(scan)
    images = [
        [row["state"] for row in rows if row["image"] == image]
        for image in range(1, scan.n_images + 1)
    ]
    return ["label" if "label" in states else "control" for states in images] * averages


def sidecar(scan: Scan, averages: int) -> dict[str, Any]:
    """Keys of the BIDS sidecar of a series that say how it was labelled.

    Parameters
    ----------
    scan : Scan
        That was played.
    averages : int
        How many cycles.

    Returns
    -------
    dict
        As the package reads them; times in seconds.
    """
    protocol, common = scan.protocol, {"ArterialSpinLabelingType": "PCASL"}
    durations = [round(float(each), 6) for each in protocol.label_duration]
    plds = [round(float(each), 6) for each in protocol.pld]
    if scan.matrix_size is not None:
        total = round(sum(durations), 6)
        return {
            **common,
            "LabelingDuration": total,
            "PostLabelingDelay": plds[-1],
            "RepetitionTimePreparation": round(total + plds[-1] + scan.readout, 6),
            "TimeEncodedMatrixSize": scan.matrix_size,
            "TimeEncodedMatrixType": "hadamard",
            "TimeEncodedSubBolusDurations": durations,
        }
    return {
        **common,
        "LabelingDuration": [each for each in durations for _ in range(2)] * averages,
        "PostLabelingDelay": [each for each in plds for _ in range(2)] * averages,
        "RepetitionTimePreparation": [
            round(duration + pld + scan.readout, 6)
            for duration, pld in zip(durations, plds, strict=True)
            for _ in range(2)
        ]
        * averages,
    }
