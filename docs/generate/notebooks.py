"""The notebooks as pages, with the outputs that are stored in them."""

import functools
from pathlib import Path

from nbconvert import MarkdownExporter

_NOTEBOOKS = Path("experiments/notebooks")


@functools.cache
def pages() -> dict[str, str | bytes]:
    """Markdown of each notebook and its pictures, by their paths."""
    found: dict[str, str | bytes] = {}
    for path in sorted(_NOTEBOOKS.glob("*.ipynb")):
        names = {"unique_key": path.stem, "output_files_dir": path.stem}
        text, resources = MarkdownExporter().from_filename(str(path), resources=names)
        found[f"notebooks/{path.stem}.md"] = text
        for name, picture in resources["outputs"].items():
            found[f"notebooks/{name}"] = picture
    return found
