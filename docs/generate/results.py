"""The generated files of `experiments/results` as pages."""

import functools
import re
from pathlib import Path

_RESULTS = Path("experiments/results")
_ABOVE = re.compile(r"\[[^\]]+\]\(\.\./([^)]+)\)")


@functools.cache
def pages() -> dict[str, str | bytes]:
    """Markdown, pictures and tables, by their paths."""
    found: dict[str, str | bytes] = {}
    for path in sorted(_RESULTS.iterdir()):
        if path.suffix == ".md":
            # Only the folder itself is part of the site: links out of it become names.
            found[f"results/{path.name}"] = _ABOVE.sub(r"`experiments/\1`", path.read_text())
        elif path.suffix in (".png", ".csv"):
            found[f"results/{path.name}"] = path.read_bytes()
    return found
