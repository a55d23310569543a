import io
import sys
import types

import pytest
from tqdm import notebook

from asl_pinn.numerics.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def count_to_three(**kwargs):
    with progress_bar(3, "counting", **kwargs) as bar:
        for _ in range(3):
            bar.update()


@pytest.mark.parametrize("shown", [True, False])
def test_it_is_drawn_on_a_terminal_where_it_is_wanted(monkeypatch, capsys, shown):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    count_to_three(unit="voxel", shown=shown)
    assert ("counting" in terminal.getvalue() and "3/3" in terminal.getvalue()) == shown
    assert capsys.readouterr().out == ""


def test_nothing_is_written_where_there_is_no_terminal(capsys):
    count_to_three()
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def kernel(monkeypatch):
    """As in a notebook: IPython runs as a kernel, and standard error is no terminal."""
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


def test_a_notebook_has_a_widget(kernel, monkeypatch):
    made = []

    class Widget:
        def __init__(self, **kwargs):
            made.append(kwargs)

    monkeypatch.setattr(notebook, "IProgress", object())
    monkeypatch.setattr(notebook, "tqdm", Widget)
    assert isinstance(progress_bar(3, "counting"), Widget)
    assert made[0]["total"] == 3
    assert not isinstance(progress_bar(3, "counting", shown=False), Widget)


def test_a_notebook_without_widgets_is_left_alone(kernel, monkeypatch, capsys):
    monkeypatch.setattr(notebook, "IProgress", None)
    count_to_three()
    assert capsys.readouterr() == ("", "")
