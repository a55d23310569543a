"""Progress bars: on a terminal, in a notebook, and nowhere else."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, label: str, *, unit: str = "it", shown: bool = True) -> "tqdm[Any]":
    """Make a progress bar, to be used in a `with` block.

    Parameters
    ----------
    total : int
        Updates in all.
    label : str
        What it says before the bar.
    unit : str
        What is counted.
    shown : bool
        False for a bar that is never drawn.

    Returns
    -------
    tqdm.tqdm
        Drawn on standard error if that is a terminal, or as a widget in a notebook that can
        show one; elsewhere nothing is written.
    """
    if shown and _in_notebook():
        # Of tqdm.notebook and not of tqdm.auto, which warns where a notebook has no widgets.
        from tqdm import notebook

        if vars(notebook)["IProgress"] is not None:
            return notebook.tqdm(total=total, desc=label, unit=unit)
    disable = None if shown else True  # None hides the bar where there is no terminal
    return tqdm(total=total, desc=label, unit=unit, disable=disable, file=sys.stderr)


def _in_notebook() -> bool:
    """Whether IPython runs as the kernel of a notebook; it is not imported for the question."""
    shell = sys.modules.get("IPython")
    running = None if shell is None else shell.get_ipython()
    return running is not None and "IPKernelApp" in running.config
