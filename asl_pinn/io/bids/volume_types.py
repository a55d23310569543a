"""What each volume of a series is, as its aslcontext file lists them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asl_pinn.errors import InputError
from asl_pinn.io.bids.sidecar import brief, check_text_file

VOLUME_TYPES = ("control", "label", "deltam", "m0scan", "noRF", "n/a")
LEFT_OUT = ("norf", "n/a")


def read_volume_types(path: Path, series_path: Path, n_volumes: int) -> list[str]:
    """Volume types that an aslcontext file lists.

    Parameters
    ----------
    path : Path
        The aslcontext.tsv file.
    series_path : Path
        The series that it describes.
    n_volumes : int
        Number of volumes of the series.

    Returns
    -------
    list of str
        'control', 'label', 'deltam', 'm0scan', 'norf' or 'n/a', one per volume, in small letters.

    Raises
    ------
    InputError
        If the file is unreadable, empty, lacks the column, lists another number of volumes,
        or a type that cannot be quantified.
    """
    try:
        check_text_file(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); repair the file") from None
    if not rows or "volume_type" not in rows[0]:
        raise InputError(f"{path}: no volumes listed under a column 'volume_type'; list each one")
    types = [(row["volume_type"] or "").strip().lower() for row in rows]
    if len(types) != n_volumes:
        raise InputError(
            f"{path}: lists {len(types)} volumes, but {series_path.name} has {n_volumes}; "
            "list one type per volume"
        )
    unknown = sorted(set(types) - {known.lower() for known in VOLUME_TYPES})
    if unknown:
        raise InputError(
            f"{path}: volume type {brief(unknown[0])} cannot be quantified; "
            f"known types: {', '.join(VOLUME_TYPES)}"
        )
    if not is_perfusion(types).any():
        listed = " and ".join(known for known in VOLUME_TYPES if known.lower() in types)
        raise InputError(f"{path}: lists only {listed} volumes; there is nothing to quantify")
    if "deltam" in types and not {"control", "label"}.isdisjoint(types):
        raise InputError(
            f"{path}: mixes deltam with control and label volumes; keep one kind in a series"
        )
    return types


def is_perfusion(types: Sequence[str]) -> NDArray[np.bool_]:
    """Which volumes are control, label or difference images, and no M0 or noise.

    Parameters
    ----------
    types : sequence of str, length V
        From `read_volume_types`.

    Returns
    -------
    ndarray of bool, shape (V,)
    """
    return np.array([kind not in ("m0scan", *LEFT_OUT) for kind in types], bool)
