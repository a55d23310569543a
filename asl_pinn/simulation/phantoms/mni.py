"""The embedded phantom: ICBM 152 anatomy with a made-up, plausible perfusion."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logsumexp

from asl_pinn.arrays import FloatArray
from asl_pinn.data import Phantom, to_volume
from asl_pinn.errors import InputError

Points = NDArray[np.float64]

_CBF = {"grey": 60.0, "white": 20.0}  # mL/100g/min
_CBF_VARIATION = 0.11
_T1 = {"grey": 1.33, "white": 0.83, "csf": 4.3}  # s at 3 T
_M0 = {"grey": 820.0, "white": 700.0, "csf": 1000.0}  # proton density, CSF = 1000
_ATT_RANGE = (0.6, 1.8)  # s
_WHITE_MATTER_DELAY = 0.25  # s by which blood arrives later in pure white matter
_CORRELATION_LENGTH = 20.0  # mm
_N_WAVES = 96

# The two sides differ by a few millimetres, as they do in people.
ARTERIES = {
    "anterior": [
        (0, 8, -14, 0),
        (4, 30, 4, 12),
        (-4, 31, 6, 12),
        (4, 14, 34, 24),
        (-4, 12, 35, 24),
        (5, -18, 42, 34),
        (-5, -20, 41, 35),
        (6, -34, 62, 44),
        (-6, -36, 63, 45),
    ],
    "middle": [
        (15, 2, -17, 0),
        (-15, 3, -16, 0),
        (36, 0, -18, 4),
        (-35, 1, -17, 5),
        (43, -6, 0, 10),
        (-42, -8, 1, 11),
        (47, -22, 16, 20),
        (-45, -24, 17, 20),
        (42, -12, 48, 38),
        (-41, -14, 47, 39),
    ],
    "posterior": [
        (8, -17, -17, 2),
        (-8, -16, -18, 2),
        (22, -32, -8, 10),
        (-22, -30, -9, 9),
        (11, -62, 3, 22),
        (-10, -64, 2, 23),
        (9, -90, 6, 36),
        (-10, -92, 4, 37),
    ],
    "vertebrobasilar": [
        (0, -18, -22, 0),
        (1, -26, -40, 0),
        (17, -44, -26, 10),
        (-17, -43, -27, 10),
        (15, -52, -52, 12),
        (-16, -50, -52, 12),
    ],
}
"""Way points (x, y, z) in MNI space and the path from the circle of Willis to them, all in mm."""


def mni_phantom(*, resolution: int = 3, seed: int = 0) -> Phantom:
    """Make a brain of ICBM 152 anatomy with known, plausible perfusion.

    CBF follows the tissue fractions (60 mL/100g/min in grey, 20 in white matter) with
    smooth regional variation of its own in each tissue. ATT rises with the distance from
    the large arteries, more so between their territories and deep in white matter, with
    another smooth variation, from 0.6 to 1.8 s. M0 and T1 mix those of grey matter, white
    matter and, in what remains of a voxel, cerebrospinal fluid: M0 by volume, T1 by its
    rate. The variations are functions of position in millimetres, the same at every
    resolution.

    Beside them are the fractions of the tissues, and CBF and ATT of pure grey and white
    matter, 'cbf_gm', 'att_gm', 'cbf_wm' and 'att_wm', in every voxel of the brain: ATT of
    pure grey matter is that of the voxel, and of white matter 0.25 s longer.

    Parameters
    ----------
    resolution : int
        Edge of the cubic voxels, 1 to 4 [mm].
    seed : int
        Of the regional variations.

    Returns
    -------
    Phantom
        Maps in float64, in MNI space; the mask holds the voxels that are at least half
        grey or white matter, and 6 or more voxels of background surround it in each
        axial slice. M0 is 1000 in fluid.

    Raises
    ------
    InputError
        If `resolution` is not in range.

    References
    ----------
    Anatomy: Fonov et al., NeuroImage 54:313-327 (2011), as shipped with nilearn.
    T1 of grey and white matter: Wansapura et al., J Magn Reson Imaging 9:531-538 (1999).
    """
    if resolution not in (1, 2, 3, 4):
        raise InputError(f"the phantom's resolution is 1, 2, 3 or 4 mm, not {resolution!r}")
    grey, white, affine = _tissue_fractions(resolution)
    mask = grey + white >= 0.5
    position = _positions(mask, affine)
    streams = np.random.default_rng(seed).spawn(3)
    grey_variation, white_variation = (_smooth_field(position, stream) for stream in streams[:2])
    att_variation = _nearly_symmetric_field(position, streams[2])
    fraction = {"grey": grey, "white": white, "csf": np.clip(1.0 - grey - white, 0.0, 1.0)}
    factors = {"grey": 1.0 + _CBF_VARIATION * grey_variation}
    factors["white"] = 1.0 + _CBF_VARIATION * white_variation
    cbf = fraction["grey"][mask] * _CBF["grey"] * factors["grey"]
    cbf += fraction["white"][mask] * _CBF["white"] * factors["white"]
    depth = gaussian_filter(white, 7.0 / resolution)[mask]
    att = _transit_time(position, depth, att_variation)
    m0 = sum(fraction[tissue] * _M0[tissue] for tissue in _M0)
    rate = np.sum([fraction[tissue] / _T1[tissue] for tissue in _T1], axis=0)
    values = {
        "cbf": cbf,
        "att": att,
        "cbf_gm": _CBF["grey"] * factors["grey"],
        "att_gm": att,
        "cbf_wm": _CBF["white"] * factors["white"],
        "att_wm": att + _WHITE_MATTER_DELAY,
    }
    whole = np.where(mask, np.sum(list(fraction.values()), axis=0), 1.0)
    return Phantom(
        values={name: to_volume(value, mask) for name, value in values.items()},
        m0=np.where(mask, m0, 0.0),
        t1_tissue=1.0 / rate,
        mask=mask,
        grey_matter=mask & (grey > 0.5),
        affine=affine,
        fractions={
            name: np.where(mask, fraction[tissue] / whole, 0.0)
            for name, tissue in {"gm": "grey", "wm": "white", "csf": "csf"}.items()
        },
    )


def _tissue_fractions(resolution: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Grey and white matter per voxel, and the affine."""
    from nilearn import datasets  # takes seconds to import

    grey = datasets.load_mni152_gm_template(resolution=resolution)
    white = datasets.load_mni152_wm_template(resolution=resolution)
    return grey.get_fdata(), white.get_fdata(), grey.affine


def _positions(mask: NDArray[np.bool_], affine: FloatArray) -> Points:
    """Coordinates of the mask's voxels, shape (3, V) [mm]."""
    index = np.argwhere(mask).T.astype(np.float64)
    return np.stack(
        [row[0] * index[0] + row[1] * index[1] + row[2] * index[2] + row[3] for row in affine[:3]]
    )


def _smooth_field(position: Points, rng: np.random.Generator) -> FloatArray:
    """Random field of mean 0 and variance 1, with a Gaussian correlation in space.

    A sum of cosines of random direction and phase, whose wave numbers follow the spectrum
    of that correlation (Rahimi and Recht, NeurIPS 2007).
    """
    waves = rng.standard_normal((_N_WAVES, 3)) / _CORRELATION_LENGTH
    phases = rng.uniform(0.0, 2.0 * np.pi, _N_WAVES)
    x, y, z = position
    field = np.zeros_like(x)
    for (kx, ky, kz), phase in zip(waves, phases, strict=True):
        field += np.cos(kx * x + ky * y + kz * z + phase)
    return field * np.sqrt(2.0 / _N_WAVES)


def _nearly_symmetric_field(position: Points, rng: np.random.Generator) -> FloatArray:
    """Random field whose values left and right correlate at 0.94."""
    field = _smooth_field(np.hstack([position, position * [[-1.0], [1.0], [1.0]]]), rng)
    here, mirrored = np.split(field, 2)
    return (here + 0.7 * mirrored) / np.hypot(1.0, 0.7)


def _transit_time(position: Points, depth: FloatArray, variation: FloatArray) -> FloatArray:
    """ATT [s] from the way from the arteries, the depth in white matter and a variation."""
    territories = [_artery_distance(position, points) for points in ARTERIES.values()]
    nearness = -np.stack(territories)
    distance = -5.0 * logsumexp(nearness / 5.0, axis=0)
    weight = np.exp(nearness / 6.0 - logsumexp(nearness / 6.0, axis=0))
    contested = -(weight * np.log(weight)).sum(axis=0) / np.log(2.0)
    score = (distance - 46.0) / 14.0 + 1.2 * contested + 2.2 * (depth - 0.4) + 0.5 * variation
    low, high = _ATT_RANGE
    return low + (high - low) * expit(score)


def _artery_distance(position: Points, points: list[tuple[int, int, int, int]]) -> FloatArray:
    """Smooth minimum over an artery's points of the way that blood has to run [mm]."""
    ways = [
        path + np.sqrt(((position - np.array(xyz, dtype=float)[:, None]) ** 2).sum(axis=0) + 1.0)
        for *xyz, path in points
    ]
    return -3.0 * logsumexp(-np.stack(ways) / 3.0, axis=0)
