"""Times that were stated once for a pattern of volumes that repeats."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asl_pinn.io.bids.volume_types import is_perfusion

_LONGEST_LINE = 600


def repeated_hint(key: str, values: NDArray[np.float64], types: Sequence[str]) -> str:
    """The line to paste where values were given once for a pattern that repeats.

    Parameters
    ----------
    key : str
        Of the sidecar.
    values : ndarray, shape (P,)
        What it holds.
    types : sequence of str, length V
        Volume types.

    Returns
    -------
    str
        A question with the whole list, or '' where no pattern fits.

    Examples
    --------
    >>> repeated_hint("PostLabelingDelay", np.array([1.0, 2.0]), ["control", "label"] * 4)
    '; is the pattern PLD x (control, label) x 2? Then paste "PostLabelingDelay": \
[1, 1, 2, 2, 1, 1, 2, 2]'
    """
    used = is_perfusion(types)
    kinds = [kind for kind, counts in zip(types, used, strict=True) if counts]
    inner = list(dict.fromkeys(kinds))
    times, rest = divmod(len(kinds), len(values) * max(len(inner), 1))
    if rest or not times or kinds != inner * (len(kinds) // len(inner)) or len(values) < 2:
        return ""
    name = "PLD" if key == "PostLabelingDelay" else key
    entries = np.zeros(len(types))
    entries[used] = np.tile(np.repeat(values, len(inner)), times)
    line = f"[{', '.join(f'{entry:g}' for entry in entries)}]"
    asked = f"; is the pattern {name} x ({', '.join(inner)}) x {times}?"
    if len(line) > _LONGEST_LINE:
        return asked
    return f'{asked} Then paste "{key}": {line}'
