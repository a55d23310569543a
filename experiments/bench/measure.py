"""Times from the shortest to the longest, and what the machine can do at most."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asl_pinn.data import AslData

COLUMNS = (
    "work",
    "first call [s]",
    "compilation [s]",
    "median [s]",
    "min-max [s]",
    "runs",
    "alternative",
    "its median [s]",
    "ratio",
    "share of limit",
    "peak memory [GB]",
)


@dataclasses.dataclass(frozen=True)
class Timing:
    """Wall times of a call [s].

    Attributes
    ----------
    first : float
        Of the first call, with whatever it compiles.
    seconds : tuple of float
        Of the calls after it.
    """

    first: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the calls after the first."""
        return statistics.median(self.seconds)

    def per(self, count: float) -> "Timing":
        """The same for one of `count` things that a call does, but for the first call."""
        return Timing(self.first, tuple(second / count for second in self.seconds))


def time_calls(function: Callable[[], Any], repeats: int) -> Timing:
    """Time a call and its repetitions; what JAX returns is waited for."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - begin)
    return Timing(seconds[0], tuple(seconds[1:]))


def row(
    work: str,
    ours: Timing,
    alternative: str = "",
    theirs: float | None = None,
    *,
    calls: float = 1.0,
    of_limit: str = "",
    peak: float | None = None,
) -> dict[str, Any]:
    """One row of the table.

    Parameters
    ----------
    work : str
        What was done.
    ours : Timing
        Ours, for one unit of the work.
    alternative : str
        What it is compared with.
    theirs : float or None
        Its median for the same work [s].
    calls : float
        Units of work in the first call, so that compilation can be told from it.
    of_limit : str
        How much of the machine's limit ours reaches, from `of_product` or `of_copy`.
    peak : float or None
        Peak memory of the process [GB].

    Returns
    -------
    dict
        Cells by `COLUMNS`; empty where there is nothing to tell.
    """
    cells = (
        work,
        _digits(ours.first),
        _digits(max(ours.first - calls * ours.median, 0.0)),
        _digits(ours.median),
        f"{_digits(min(ours.seconds))}-{_digits(max(ours.seconds))}",
        len(ours.seconds),
        alternative,
        "" if theirs is None else _digits(theirs),
        "" if theirs is None else _digits(theirs / ours.median),
        of_limit,
        "" if peak is None else _digits(peak),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def limits(repeats: int) -> dict[str, float]:
    """Measured limits of the machine for float32.

    Parameters
    ----------
    repeats : int
        Runs of each; the best counts, as a limit is meant.

    Returns
    -------
    dict
        `multiply_adds_per_s` of a product of two 2048 x 2048 matrices, and `copied_bytes_per_s`,
        read and written, of an array of 256 MB.
    """
    size, length = 2048, 1 << 26
    square, long = jnp.ones((size, size), jnp.float32), jnp.ones(length, jnp.float32)
    matmul, negative = jax.jit(jnp.matmul), jax.jit(jnp.negative)
    product = time_calls(lambda: matmul(square, square), repeats)
    copy = time_calls(lambda: negative(long), repeats)
    return {
        "multiply_adds_per_s": size**3 / min(product.seconds),
        "copied_bytes_per_s": 2.0 * long.nbytes / min(copy.seconds),
    }


def of_product(multiply_adds: float, seconds: float, bounds: dict[str, float]) -> str:
    """Fraction of the limit of matrix products, for work that needs so many multiply-adds."""
    return f"{multiply_adds / seconds / bounds['multiply_adds_per_s']:.0%} of product"


def of_copy(data: AslData, seconds: float, bounds: dict[str, float]) -> str:
    """Fraction of the limit of copies, if images and constants were read and maps written once.

    A voxel has its differences, M0, T1 and the delay of its slice, and gets CBF, ATT, their
    standard deviations and a status, of 4 bytes each.
    """
    n_bytes = 4 * int(data.valid.sum()) * (data.protocol.n_delays + 8)
    return f"{100.0 * n_bytes / seconds / bounds['copied_bytes_per_s']:.1g}% of copy"


def _digits(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")
