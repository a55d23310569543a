"""Keys that scanners and converters write in place of those of BIDS: hints, never adopted."""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

_INSTEAD = {
    "LabelingDuration": (r"TagDuration", r"LabelDuration", r"Tag\d+", r"BolusDuration"),
    "PostLabelingDelay": (
        r"InitialPostLabelDelay",
        r"PostLabelDelay",
        r"PLD\d+",
        r"InversionTime",
    ),
    "BolusCutOffDelayTime": (r"BolusDuration", r"InversionTime1"),
    "RepetitionTimePreparation": (r"RepetitionTime",),
    "ArterialSpinLabelingType": (r"ASLContrastTechnique", r"ASLLabelingTechnique", r"ASLType"),
    "M0Type": (r"M0", r"M0Scan"),
}
"""Patterns of vendors' keys, by the key of BIDS that they may stand for; the likeliest first."""


def hint(metadata: Mapping[str, Any], key: str) -> str:
    """What in a sidecar may have been meant by a key that is missing.

    Parameters
    ----------
    metadata : mapping
        Of the sidecar.
    key : str
        What BIDS calls it.

    Returns
    -------
    str
        '; TagDuration is 1.4: is that it?', or '' where nothing is alike.

    Examples
    --------
    >>> hint({"TagDuration": 1.4}, "LabelingDuration")
    '; TagDuration is 1.4: is that it?'
    """
    for pattern in _INSTEAD.get(key, ()):
        found = {name: metadata[name] for name in metadata if re.fullmatch(pattern, str(name))}
        if found:
            told = " and ".join(f"{name} is {_short(value)}" for name, value in found.items())
            return f"; {told}: is that it?"
    return ""


def contradiction(metadata: Mapping[str, Any]) -> str:
    """Durations of the label that exclude one another, as when the wrong key was copied.

    Parameters
    ----------
    metadata : mapping
        Of the sidecar.

    Returns
    -------
    str
        A sentence, or ''.

    Examples
    --------
    >>> contradiction({"LabelingDuration": 0.7, "BolusDuration": 0.7, "TagDuration": 1.4})
    'LabelingDuration is 0.7, but TagDuration is 1.4'
    """
    stated = metadata.get("LabelingDuration")
    for name in ("TagDuration", "LabelDuration"):
        other = metadata.get(name)
        if _is_plain(stated) and _is_plain(other):
            scale = 1e-3 if other > 100.0 else 1.0  # some state milliseconds
            if abs(scale * other - stated) > 1e-3 * max(abs(stated), 1.0):
                return f"LabelingDuration is {stated:g}, but {name} is {other:g}"
    return ""


def _is_plain(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
