"""The tables of docs/bids.md are those that the tests of the reader and the constants make.

`python tests/test_bids_table.py` writes them anew.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import test_bids_bad_input
import test_bids_read

from asl_pinn.acquisition.constants import RELAXATION_TIMES

PAGE = Path(__file__).parents[1] / "docs" / "bids.md"
TABLES = {
    "accepted": (test_bids_read, ("What is there", "Test")),
    "refused": (test_bids_bad_input, ("What is there", "The line says", "Test")),
}


def rows(module: ModuleType, mark: str) -> Iterator[tuple[str, ...]]:
    """Rows that the marks of a module's tests and of their parameters make, in its order."""
    functions = [f for name, f in vars(module).items() if name.startswith("test_")]
    for function in sorted(functions, key=lambda f: inspect.getsourcelines(f)[1]):
        test = f"`{function.__name__}`"
        for found in getattr(function, "pytestmark", []):
            if found.name == mark:
                yield (*found.args, test)
            elif found.name == "parametrize":
                yield from _parameters(found, mark, test)


def _parameters(parametrize: pytest.Mark, mark: str, test: str) -> Iterator[tuple[str, ...]]:
    names, cases = parametrize.args
    for case in cases:
        for own in getattr(case, "marks", ()):
            if own.name == mark:
                values = dict(
                    zip([names] if isinstance(names, str) else names, case.values, strict=True)
                )
                said = values.get("fault", values.get("remedy"))
                yield (*own.args, *([said] if mark == "refused" else []), test)


def relaxation_rows() -> Iterator[tuple[str, ...]]:
    """T1 by field strength, and where it comes from."""
    for known in RELAXATION_TIMES:
        blood = f"{known.t1_blood:.2f} s ({known.blood_source})"
        tissue = f"{known.t1_tissue:.2f} s ({known.tissue_source})"
        yield f"{known.field_strength:g} T", blood, tissue


def tables() -> dict[str, str]:
    """Markdown of each table."""
    header = ("Field strength", "T1 of arterial blood", "T1 of tissue (grey matter)")
    made = {mark: markdown(header, rows(module, mark)) for mark, (module, header) in TABLES.items()}
    return {**made, "relaxation": markdown(header, relaxation_rows())}


def markdown(header: tuple[str, ...], body: Iterator[tuple[str, ...]]) -> str:
    """A table of cells."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def written(text: str) -> str:
    """The page with its tables made anew."""
    for mark, table in tables().items():
        begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{table}\n\n{end}{rest.split(end)[1]}"
    return text


def test_tables_of_the_page_are_those_of_the_tests():
    text = PAGE.read_text()
    assert text == written(text), "docs/bids.md is old: python tests/test_bids_table.py"


@pytest.mark.parametrize("mark", TABLES)
def test_every_row_is_said_once(mark):
    texts = [row[0] for row in rows(TABLES[mark][0], mark)]
    assert len(texts) > 40
    assert len(set(texts)) == len(texts)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
