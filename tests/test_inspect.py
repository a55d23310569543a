"""`asl-pinn inspect`, and all faults of a scanner's sidecar at once."""

import json

import numpy as np
import pytest
from bids_fixtures import DELTA_M, MASK, SHAPE, save_json, write_dataset

from asl_pinn.errors import InputError
from asl_pinn.io.bids import find_runs, read_run
from asl_pinn.io.bids.faults import describe_volumes
from asl_pinn.workflow.cli import main

ASL = "sub-01/perf/sub-01_asl.json"
PLDS = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
TYPES = ("label", "control") * 48
PAIRS = np.where(MASK[..., None], 500.0, 5.0) + np.where(
    np.array(TYPES) == "label", -5.0, 0.0
) * np.ones((*SHAPE, 1))

SIEMENS = {
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "Prisma",
    "PulseSequenceName": "tgse_pcasl_ve11c",
    "ImageType": ["ORIGINAL", "PRIMARY", "ASL", "NONE"],
    "MRAcquisitionType": "3D",
    "MagneticFieldStrength": 3,
    "EchoTime": 0.0219,
    "RepetitionTime": 6.5,
    "FlipAngle": 180,
    "TagDuration": 1.4,
    "BolusDuration": 0.7,
    "InitialPostLabelDelay": PLDS,
}
"""What dcm2niix writes; nothing of it is a key of BIDS for labelling or M0."""

MENDED = {
    "ArterialSpinLabelingType": "PCASL",
    "LabelingDuration": 1.4,
    "RepetitionTimePreparation": 6.5,
    "BackgroundSuppression": False,
    "M0Type": "Separate",
    "LabelingEfficiency": 0.85,
}


def vendor(root, **changes):
    """A series as a scanner leaves it, with what a user has added."""
    write_dataset(root, volumes=PAIRS.astype(np.float32), types=TYPES)
    keys = {**SIEMENS, **changes}
    save_json(root / ASL, {key: value for key, value in keys.items() if value is not None})
    save_json(root / "sub-01/perf/sub-01_m0scan.json", {"EchoTime": 0.0219, "RepetitionTime": 8.0})
    return root


def refusal(root) -> str:
    with pytest.raises(InputError) as refused:
        read_run(find_runs(root)[0])
    return str(refused.value)


def test_all_faults_of_a_vendor_s_sidecar_come_at_once_with_hints(tmp_path):
    message = refusal(vendor(tmp_path))
    assert message.startswith(f"{tmp_path / ASL}: 4 faults: (1) ")
    for said in (
        "'ArterialSpinLabelingType' is missing",
        "'LabelingDuration' is missing; TagDuration is 1.4: is that it?",
        "'PostLabelingDelay' is missing; InitialPostLabelDelay is [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]",
        "'M0Type' is missing; there is sub-01_m0scan.nii.gz: is it Separate?",
    ):
        assert said in message
    assert "\n" not in message


def test_a_missing_context_is_one_fault_among_the_others(tmp_path):
    root = vendor(tmp_path)
    (root / "sub-01/perf/sub-01_aslcontext.tsv").unlink()
    message = refusal(root)
    assert "5 faults: (1) " in message
    assert "sub-01_aslcontext.tsv: no such file" in message


def test_the_line_to_paste_ends_the_search(tmp_path):
    root = vendor(tmp_path, **MENDED, PostLabelingDelay=PLDS)
    message = refusal(root)
    assert "6 values for a series of 96 volumes" in message
    assert "is the pattern PLD x (label, control) x 8? Then paste " in message
    line = message.split("Then paste ")[1]
    pasted = json.loads(f"{{{line}}}")
    assert pasted["PostLabelingDelay"] == np.tile(np.repeat(PLDS, 2), 8).tolist()
    data, _ = read_run(find_runs(vendor(tmp_path, **MENDED, **pasted))[0])
    np.testing.assert_allclose(data.protocol.pld, PLDS)
    np.testing.assert_array_equal(data.n_averages, 8.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LabelingDuration": 1400}, "not milliseconds: is it 1.4?"),
        ({"LabelingDuration": None, "TagDuration": None, "Tag0": 1.4}, "Tag0 is 1.4: is that it?"),
        ({"LabelingDuration": 0.7}, "LabelingDuration is 0.7, but TagDuration is 1.4"),
        ({"PostLabelingDelay": [500, 1000] * 48}, "not milliseconds: is it 1?"),
        ({"InitialPostLabelDelay": None, "PLD0": 1.8}, "PLD0 is 1.8: is that it?"),
    ],
)
def test_hints_name_the_vendor_s_key_and_adopt_nothing(tmp_path, changes, said):
    assert said in refusal(vendor(tmp_path, **{**MENDED, **changes}))


def test_vendors_sidecars_that_were_mended_are_usable(tmp_path, capsys):
    delays = np.tile(np.repeat(PLDS, 2), 8).tolist()
    root = vendor(tmp_path, **MENDED, PostLabelingDelay=delays)
    assert main(["asl-pinn", "inspect", str(root)]) == 0
    said = capsys.readouterr().out
    assert "96      control  1.4                 3          500" in said
    assert "M0Type: Separate; median over the mask 1000" in said
    assert said.rstrip().endswith("usable")


def test_inspect_shows_faults_and_what_can_be_seen_besides(tmp_path, capsys):
    root = vendor(tmp_path, M0Type="Separate")
    (root / "sub-01/perf/sub-01_m0scan.nii.gz").unlink()
    assert main(["asl-pinn", "inspect", str(root), "--participant_label=01"]) == 1
    said = capsys.readouterr().out
    assert "label    ?                   ?" in said
    assert "(1) " in said
    assert "TagDuration is 1.4: is that it?" in said
    assert "sub-01_m0scan.nii.gz: no such file, though M0Type is 'Separate'" in said
    assert not (tmp_path / "out").exists()


def test_inspect_goes_on_after_what_cannot_be_read(tmp_path, capsys):
    root = write_dataset(tmp_path)
    write_dataset(tmp_path, stem="sub-02", folder="sub-02/perf")
    (root / ASL).write_text("{ not JSON")
    assert main(["asl-pinn", "inspect", str(root)]) == 1
    first, second = capsys.readouterr().out.split("sub-02/perf/sub-02_asl.nii.gz\n", 1)
    assert "cannot be read as JSON" in first
    assert "faults" not in second
    assert main(["asl-pinn", "inspect", str(root), "extra"]) == 2
    assert main(["asl-pinn", "inspect", str(root / "none")]) == 2


def test_faults_of_a_sound_series_are_none(tmp_path):
    (run,) = find_runs(write_dataset(tmp_path))
    types, faults = describe_volumes(run, (*SHAPE, DELTA_M.shape[-1]))
    assert (types, faults) == (["deltam"] * 3, [])
