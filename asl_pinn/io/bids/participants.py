"""What participants.tsv tells of the participants of a dataset: T1 of their blood, for one."""

from pathlib import Path
from typing import NamedTuple

from asl_pinn.acquisition.constants import T1_BLOOD_AT, hematocrit_to_t1
from asl_pinn.acquisition.protocol import MAX_SECONDS
from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.tables import MISSING, as_number, read_table

_T1_COLUMN = "t1_blood"
_HEMATOCRIT_COLUMNS = ("hematocrit", "haematocrit", "hct")
_LEAST_HEMATOCRIT, _MOST_HEMATOCRIT = 0.15, 0.7


class Constant(NamedTuple):
    """A relaxation time and where it comes from.

    Attributes
    ----------
    value : float
        In seconds.
    source : str
        A flag, or a work and the field strength.
    """

    value: float
    source: str


def read_participants(bids_dir: Path, notes: list[str]) -> dict[str, dict[str, str]]:
    """What participants.tsv tells of each participant.

    Parameters
    ----------
    bids_dir : Path
        The dataset.
    notes : list of str
        Gets a line where there is such a table and it cannot be read.

    Returns
    -------
    dict of str to dict of str to str
        Cells by column, by 'sub-01'; empty where there is no table.
    """
    path = bids_dir / "participants.tsv"
    if not path.is_file():
        return {}
    try:
        rows = read_table(path)
    except InputError as error:
        notes.append(f"participants are not known: {error}")
        return {}
    return {
        row["participant_id"]: {key: cell for key, cell in row.items() if key != "participant_id"}
        for row in rows
        if "participant_id" in row
    }


def blood_of_participant(run: AslRun, field_strength: float, notes: list[str]) -> Constant | None:
    """T1 of arterial blood of a participant, from the columns of participants.tsv.

    Parameters
    ----------
    run : AslRun
        Of the participant.
    field_strength : float
        Of the scanner [T].
    notes : list of str
        Gets a line with the value, or with why there is none.

    Returns
    -------
    Constant or None
        From the column t1_blood [s], else from hematocrit (a fraction, or percent); None where
        there is neither.

    Raises
    ------
    InputError
        If a value is out of range.
    """
    path, participant = run.bids_dir / "participants.tsv", f"sub-{run.entities['sub']}"
    known = read_participants(run.bids_dir, notes).get(participant, {})
    cells = {name.lower(): cell for name, cell in known.items() if cell not in (MISSING, "")}
    if _T1_COLUMN in cells:
        t1 = as_number(cells[_T1_COLUMN])
        if t1 is None or not 0.0 < t1 <= MAX_SECONDS:
            raise InputError(
                f"{path}: {_T1_COLUMN} of {participant} is {cells[_T1_COLUMN]!r}; give seconds"
            )
        notes.append(f"T1 of arterial blood {t1:.4g} s, that of {participant} in {path.name}")
        return Constant(t1, f"{path.name}, {_T1_COLUMN}")
    column = next((name for name in _HEMATOCRIT_COLUMNS if name in cells), None)
    if column is None:
        return None
    hematocrit = as_number(cells[column])
    if hematocrit is not None and hematocrit > 1.0:
        hematocrit /= 100.0  # percent
    if hematocrit is None or not _LEAST_HEMATOCRIT <= hematocrit <= _MOST_HEMATOCRIT:
        raise InputError(
            f"{path}: {column} of {participant} is {cells[column]!r}; give a fraction from "
            f"{_LEAST_HEMATOCRIT:g} to {_MOST_HEMATOCRIT:g}, or percent"
        )
    t1 = hematocrit_to_t1(hematocrit, field_strength)
    if t1 is None:
        notes.append(
            f"{column} of {participant} in {path.name} is not used: how T1 of blood depends on it "
            f"is known at {T1_BLOOD_AT:g} T alone; a column {_T1_COLUMN} [s] is used at any field"
        )
        return None
    notes.append(
        f"T1 of arterial blood {t1:.4g} s, from a hematocrit of {hematocrit:g} in {path.name}"
    )
    return Constant(t1, f"{column} of {path.name} (Lu et al., Magn Reson Med 2004;52:679-682)")
