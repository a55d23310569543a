"""Verdicts over measured facts."""

import dataclasses

import pytest

from asl_pinn.evaluation.verdict import CBF_PLAUSIBLE, Facts, Level, MedianOf, judge

CBF = MedianOf("CBF", "mL/100g/min", 45.0, 0.0, 200.0, plausible=CBF_PLAUSIBLE)
SOUND = Facts(
    on_bound=0.19,
    not_converged=0.01,
    medians=(CBF, MedianOf("aBV", "1", 0.0, 0.0, 1.0, sparse=True)),
    mean_difference=4e-3,
    mean_difference_error=1e-4,
    signal_over_m0=6e-3,
    control_over_m0=0.05,
    suppression=True,
    last_readout=3.67,
    repetition_time=3.71,
    control_spread=0.006,
    control_spread_if_reordered=0.006,
    reordered="the delays in turn",
    misfit=1.1,
)


def median(value: float, **changes) -> dict:
    return {"medians": (dataclasses.replace(CBF, median=value, **changes),)}


def test_sound_facts_and_none_at_all_are_usable():
    for facts in (SOUND, Facts()):
        assert judge(facts).level is Level.USABLE
        assert judge(facts).reasons == ()
        assert judge(facts).sentence == "usable"


@pytest.mark.parametrize(
    ("changes", "level", "reason"),
    [
        (median(0.0), "unusable", "the median CBF is on its bound of 0 mL/100g/min"),
        (median(200.0), "unusable", "the median CBF is on its bound of 200"),
        (median(4.5), "unusable", "the median CBF is 4.5 mL/100g/min, and that of a brain 10 to"),
        (median(366.0, upper=500.0), "unusable", "the median CBF is 366"),
        (median(130.0), "doubtful", "the median CBF is 130"),
        (median(float("nan")), "unusable", "no voxel has a CBF"),
        ({"on_bound": 0.6}, "doubtful", "60 % of the voxels are on a bound"),
        ({"on_bound": 0.9}, "unusable", "90 % of the voxels are on a bound"),
        ({"not_converged": 0.3}, "doubtful", "30 % of the voxels did not converge"),
        ({"signal_over_m0": 0.08}, "doubtful", "is 8 % of M0"),
        ({"signal_over_m0": 400.0}, "unusable", "check that series and M0 have the same scale"),
        ({"signal_over_m0": 9e-8}, "unusable", "check that series and M0 have the same scale"),
        (
            {"control_over_m0": 66_000.0, "suppression": False},
            "unusable",
            "the control images are 6.6e+06 % of M0",
        ),
        ({"control_over_m0": 1e-5}, "unusable", "the control images are 0.001 % of M0"),
        ({"suppression": None}, "doubtful", "background suppression, which is not stated"),
        ({"suppression": False}, "doubtful", "which is stated as false"),
        ({"control_over_m0": 0.99}, "doubtful", "though background suppression is stated"),
        ({"mean_difference": -2e-4, "mean_difference_error": 1e-6}, "doubtful", "is negative"),
        ({"last_readout": 21.8, "repetition_time": 2.5}, "unusable", "longer than the repetition"),
        (
            {"last_readout": 3.8, "repetition_time_is_total": False},
            "doubtful",
            "longer than the repetition time of 3.71 s",
        ),
        ({"control_spread": 0.2}, "unusable", "by 0.6 % with the delays in turn: the order"),
        (
            {"control_spread": 0.2, "control_spread_if_reordered": 0.19},
            "doubtful",
            "control images of one delay differ by 20 %",
        ),
        ({"misfit": 2.5}, "doubtful", "misses the data by 2.5 times"),
        ({"remarks": ("M0 is odd",)}, "doubtful", "M0 is odd"),
    ],
)
def test_each_fact_can_spoil_a_result(changes, level, reason):
    verdict = judge(dataclasses.replace(SOUND, **changes))
    assert verdict.level == level
    (said,) = verdict.reasons
    assert reason in said
    assert verdict.sentence == f"{level}: {said}"


def test_the_gravest_reason_comes_first_and_decides():
    verdict = judge(dataclasses.replace(SOUND, on_bound=0.6, control_over_m0=1e-9))
    assert verdict.level is Level.UNUSABLE
    assert ["% of M0" in said for said in verdict.reasons] == [True, False]


def test_noise_without_perfusion_is_not_called_interchanged():
    faint = dataclasses.replace(SOUND, mean_difference=-1e-6, mean_difference_error=1e-6)
    assert judge(faint).level is Level.USABLE
