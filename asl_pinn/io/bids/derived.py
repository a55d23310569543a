"""Images that the scanner computed from the acquired ones, told by ImageType."""

from collections.abc import Sequence

from asl_pinn.errors import InputError
from asl_pinn.io.bids.sidecar import Sidecar, brief

_PERFUSION_MAPS = {
    "RCBF",
    "CBF",
    "RELCBF",
    "RELATIVE_CBF",
    "CBV",
    "RCBV",
    "MTT",
    "TTP",
    "ATT",
    "BAT",
}
_DIFFERENCES = {"SUBTRACTION", "PERFUSION", "PERFUSION_WEIGHTED", "PWI", "DELTAM", "ASL_PERFUSION"}


def check_image_type(sidecar: Sidecar, types: Sequence[str], remarks: list[str]) -> None:
    """Refuse maps that the scanner made, and differences that are said to be control and label.

    Parameters
    ----------
    sidecar : Sidecar
        ImageType counts: the values of DICOM's Image Type.
    types : sequence of str
        Volume types.
    remarks : list of str
        Gets a sentence where the differences are the scanner's own.

    Raises
    ------
    InputError
        If the series is a map of perfusion, or of differences where control and label are listed.
    """
    stated = sidecar.metadata.get("ImageType")
    if stated is None:
        return
    words = {str(word).upper() for word in (stated if isinstance(stated, list) else [stated])}
    if words & _PERFUSION_MAPS:
        raise InputError(
            f"{sidecar.path}: ImageType is {brief(stated)}: a map that the scanner computed, and "
            "no differences; use the acquired images"
        )
    if "DERIVED" not in words or not words & _DIFFERENCES:
        return
    if "deltam" not in types:
        raise InputError(
            f"{sidecar.path}: ImageType is {brief(stated)}: differences that the scanner computed, "
            "but aslcontext.tsv lists control and label; use the acquired images, or list deltam"
        )
    remarks.append(
        f"ImageType is {brief(stated)}: differences that the scanner computed, whose scale need "
        "not be that of M0"
    )
