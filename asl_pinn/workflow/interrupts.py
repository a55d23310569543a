"""Ctrl-C that ends a command, also where a library swallows the first exception."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_PATIENCE = 1.0  # seconds until an interrupt that nobody saw is repeated


@contextlib.contextmanager
def insistent() -> Iterator[None]:
    """Repeat an interrupt within a block until `seen` is called or the block ends.

    JAX calls back into Python from compiled code and from destructors; a KeyboardInterrupt that is
    raised there goes no further. Such exceptions are not printed either. Nothing is changed outside
    of the main thread, which alone gets signals.

    Yields
    ------
    None
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _PATIENCE)
        raise KeyboardInterrupt

    before = [(each, signal.signal(each, interrupt)) for each in (signal.SIGINT, signal.SIGALRM)]
    hook = sys.unraisablehook
    sys.unraisablehook = _quiet
    try:
        yield
    finally:
        seen()
        sys.unraisablehook = hook
        for number, handler in before:
            signal.signal(number, handler)


def seen() -> None:
    """Repeat an interrupt no more: it is being dealt with."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)


def _quiet(unraisable: "sys.UnraisableHookArgs") -> None:
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
