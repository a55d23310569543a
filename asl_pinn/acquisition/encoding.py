"""Time encoding: Hadamard and Walsh matrices, encoding and decoding of images."""

from typing import Literal

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError

MatrixOrder = Literal["hadamard", "walsh"]

_LARGEST = 1024


def encoding_matrix(size: int, order: MatrixOrder = "hadamard") -> NDArray[np.float64]:
    """Matrix of control (+1) and label (-1) states, one row per image.

    Parameters
    ----------
    size : int
        Number of images N; 4, 8, 12, or any other order of a Hadamard matrix that the
        constructions of Sylvester and Paley reach.
    order : {'hadamard', 'walsh'}
        Columns in the order of construction (Sylvester's for powers of two), or sorted by
        sequency, the number of sign changes down the column.

    Returns
    -------
    ndarray, shape (N, N - 1)
        Columns are orthogonal and sum to zero; column j belongs to sub-bolus j + 1, the
        first being the earliest.

    Raises
    ------
    InputError
        If no such matrix can be constructed, or `order` is unknown.

    References
    ----------
    Paley, J Math Phys 12:311-320 (1933); Wells et al., Magn Reson Med 63:1111-1118 (2010).

    Examples
    --------
    >>> encoding_matrix(4)
    array([[ 1.,  1.,  1.],
           [-1.,  1., -1.],
           [ 1., -1., -1.],
           [-1., -1.,  1.]])
    """
    if order not in ("hadamard", "walsh"):
        raise InputError(f"unknown matrix order {str(order)[:40]!r}; choose hadamard or walsh")
    if size < 4:
        raise InputError(f"encoding matrix size {size} is too small; the smallest is 4")
    if size > _LARGEST:
        raise InputError(f"encoding matrix size {size} is too large; the largest is {_LARGEST}")
    full = _hadamard(size)
    columns = (full * full[:, :1])[:, 1:] * np.sign(full[0, 1:] * full[0, 0])
    if order == "walsh":
        sequency = np.count_nonzero(np.diff(columns, axis=0), axis=0)
        columns = columns[:, np.argsort(sequency, kind="stable")]
    return columns.astype(np.float64)


def check_matrix(matrix: ArrayLike) -> NDArray[np.float64]:
    """Accept a user's own encoding matrix, or say why it cannot be decoded.

    Parameters
    ----------
    matrix : array_like, shape (N, N - 1)
        Entries +1 (control) and -1 (label), a row per image.

    Returns
    -------
    ndarray, shape (N, N - 1)

    Raises
    ------
    InputError
        If shape, entries, column sums or orthogonality are not those of a time encoding.

    References
    ----------
    Wells et al., Magn Reson Med 63:1111-1118 (2010).

    Examples
    --------
    >>> check_matrix([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]]).shape
    (4, 3)
    >>> check_matrix([[1, 1, 1], [-1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    Traceback (most recent call last):
        ...
    asl_pinn.errors.InputError: encoding matrix columns must sum to zero
    """
    try:
        checked = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("encoding matrix is not a rectangular table of numbers") from None
    if checked.ndim != 2 or checked.shape[0] != checked.shape[1] + 1:
        rows, columns = (*checked.shape, 1, 1)[:2]
        transpose = "; transpose it" if columns == rows + 1 else ""
        raise InputError(
            "encoding matrix must have the shape N x (N-1), a row for each image and a column for "
            f"each sub-bolus, not {checked.shape}{transpose}"
        )
    if not np.isin(checked, (-1.0, 1.0)).all():
        raise InputError("encoding matrix may hold only +1 (control) and -1 (label)")
    if checked.sum(axis=0).any():
        raise InputError("encoding matrix columns must sum to zero")
    if not np.array_equal(checked.T @ checked, len(checked) * np.eye(checked.shape[1])):
        raise InputError("encoding matrix columns must be orthogonal")
    return checked


def encode(delta_m: FloatArray, control: ArrayLike, matrix: FloatArray) -> FloatArray:
    """Images that a time-encoded acquisition takes, S_k = C - sum of labelled sub-boluses.

    Parameters
    ----------
    delta_m : ndarray, shape (..., N - 1)
        Difference signal of each sub-bolus, earliest first [a.u.].
    control : array_like, broadcastable to (...)
        Static signal of an image in which every sub-bolus is a control [a.u.].
    matrix : ndarray, shape (N, N - 1)
        From `encoding_matrix`.

    Returns
    -------
    ndarray, shape (..., N)

    References
    ----------
    Guenther, ISMRM (2007) 380; Wells et al., Magn Reson Med 63:1111-1118 (2010).

    Examples
    --------
    >>> encode(np.array([1.0, 2.0, 3.0]), 100.0, encoding_matrix(4))
    array([100.,  96.,  95.,  97.])
    """
    labelled = (1.0 - matrix) / 2.0
    return np.asarray(control)[..., None] - np.asarray(delta_m) @ labelled.T


def decode(images: FloatArray, matrix: FloatArray, *, sign_flip: bool = False) -> FloatArray:
    """Difference signal of each sub-bolus, dM_j = (2/N) sum_k H_kj S_k.

    White noise of standard deviation sigma in the images becomes white noise of
    2 sigma / sqrt(N) in each difference.

    Parameters
    ----------
    images : ndarray, shape (..., N)
        Encoded images [a.u.].
    matrix : ndarray, shape (N, N - 1)
        From `encoding_matrix`.
    sign_flip : bool
        True for a scanner that acquired the complement of `matrix`.

    Returns
    -------
    ndarray, shape (..., N - 1)

    References
    ----------
    Guenther, ISMRM (2007) 380; Wells et al., Magn Reson Med 63:1111-1118 (2010).

    Examples
    --------
    >>> decode(np.array([100.0, 96.0, 95.0, 97.0]), encoding_matrix(4))
    array([1., 2., 3.])
    """
    sign = -1.0 if sign_flip else 1.0
    return np.asarray(images) @ (sign * 2.0 / len(matrix) * matrix)


def _hadamard(size: int) -> FloatArray:
    if size & (size - 1) == 0:
        return scipy.linalg.hadamard(size)
    if size % 4 == 0 and _is_prime(size - 1):
        return _paley_first(size - 1)
    half = size // 2
    if size % 4 == 0 and half % 4 == 2 and _is_prime(half - 1):
        return _paley_second(half - 1)
    if size % 8 == 0:
        return np.kron(scipy.linalg.hadamard(2), _hadamard(half))
    raise InputError(
        f"no Hadamard matrix of size {size} is known here; use 4, 8, 12, 16, 20, 24 or 32"
    )


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % k for k in range(2, int(number**0.5) + 1))


def _jacobsthal(prime: int) -> FloatArray:
    squares = {k * k % prime for k in range(1, prime)}
    character = np.array([0] + [1 if k in squares else -1 for k in range(1, prime)])
    return character[np.subtract.outer(np.arange(prime), np.arange(prime)) % prime]


def _paley_first(prime: int) -> FloatArray:
    """Paley's first construction, for primes 3 modulo 4; order prime + 1."""
    conference = np.zeros((prime + 1, prime + 1), dtype=int)
    conference[0, 1:], conference[1:, 0] = 1, -1
    conference[1:, 1:] = _jacobsthal(prime)
    return conference + np.eye(prime + 1, dtype=int)


def _paley_second(prime: int) -> FloatArray:
    """Paley's second construction, for primes 1 modulo 4; order 2 (prime + 1)."""
    conference = np.ones((prime + 1, prime + 1), dtype=int)
    conference[0, 0] = 0
    conference[1:, 1:] = _jacobsthal(prime)
    identity = np.eye(prime + 1, dtype=int)
    return np.kron(conference, [[1, 1], [1, -1]]) + np.kron(identity, [[1, -1], [-1, -1]])
