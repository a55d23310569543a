"""Run by the environment of oxasl_optpcasl: a JSON of schedules -> JSON of its criteria of them.

Keys of a schedule: 'plds', 'lds' (one, or that of each sub-bolus) and 'size' (of the encoding
matrix; 0 for pairs of control and label). A schedule without times is first optimised by
oxasl_optpcasl itself, for the criterion that 'goal' names.
"""

import io
import json
import sys

import numpy as np
from oxasl_optpcasl.cost import ATTCost, CBFCost, DOptimalCost
from oxasl_optpcasl.kinetic_model import BuxtonPcasl
from oxasl_optpcasl.optimize import Optimizer
from oxasl_optpcasl.scan import (
    FixedLDPcaslProtocol,
    HadamardFreeLunch,
    HadamardMultiLd,
    HadamardT1Decay,
)
from oxasl_optpcasl.structures import ATTDist, Limits, PhysParams, ScanParams

COSTS = {"CBF": CBFCost, "ATT": ATTCost, "both": DOptimalCost}
KINDS = {"T1-adjusted": HadamardT1Decay, "free lunch": HadamardFreeLunch}


def protocol(kind: type, n_plds: int, lds: list[float], size: int, longest: float):
    """A protocol of theirs, with their default brain and limits."""
    scan = ScanParams(duration=300, npld=n_plds, readout=0.5, ld=lds, noise=0.002, had_size=size)
    limits = Limits(0.1, 3.0, 0.025, name="PLD"), Limits(0.1, longest, 0.025, name="LD")
    return kind(BuxtonPcasl(PhysParams()), scan, ATTDist(0.2, 2.1, 0.001, 0.3), *limits)


def evaluated(schedule: dict) -> dict:
    """The schedule with its costs."""
    size, times = schedule["size"], schedule.get("plds")
    if times is None:
        np.random.seed(0)  # noqa: NPY002 (its search draws from there)
        kind = KINDS.get(schedule["name"], FixedLDPcaslProtocol)
        made = protocol(kind, 1 if size else 6, schedule["lds"], size or 8, 1.8)
        optimizer = Optimizer(made, COSTS[schedule["goal"]](), log=io.StringIO())
        found = optimizer.optimize(np.array(made.initial_params()), reps=3)["params"]
    elif size:
        made = protocol(HadamardMultiLd, 1, schedule["lds"], size, 4.0)
        found = np.array([*times, *schedule["lds"]])
    else:
        made = protocol(FixedLDPcaslProtocol, len(times), schedule["lds"], 8, 4.0)
        found = np.array(times)
    if size:
        n_plds = made.scan_params.npld
        lds = made.all_lds(found[n_plds:], 0.025)
    else:
        n_plds, lds = len(found), np.array(schedule["lds"])
    costs = {name: float(made.cost(found, kind())) for name, kind in COSTS.items()}
    return {
        **schedule,
        "plds": [float(each) for each in found[:n_plds]],
        "lds": [float(each) for each in np.atleast_1d(lds)],
        "costs": costs,
        "averages": int(made.repeats_total_tr(found)[0]),
    }


if __name__ == "__main__":
    print(json.dumps([evaluated(schedule) for schedule in json.load(sys.stdin)]))
