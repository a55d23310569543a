import dataclasses
from typing import Literal

import jax
import pytest
from absl import flags

from asl_pinn.options import define_flags, option, options_from_flags


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class First:
    solver: Literal["a", "b"] = option("a", "Which solver.")
    width: int = option(3, "How wide.")
    scale: float = option(1.5, "How large [s].")
    sharp: bool = option(False, "Whether sharp.")


@dataclasses.dataclass(frozen=True)
class Second:
    width: int = option(7, "How wide.")
    name: str = option("x", "What name.")


@pytest.fixture
def values():
    values = flags.FlagValues()
    define_flags({"first": First, "second": Second}, values)
    return values


def test_defaults_are_each_methods_own(values):
    values(["program"])
    assert options_from_flags(First, values) == First()
    assert options_from_flags(Second, values) == Second()


def test_what_the_user_sets_goes_to_every_method_that_has_it(values):
    values(["program", "--width=9", "--scale=2", "--sharp", "--solver=b", "--name=y"])
    assert options_from_flags(First, values) == First("b", 9, 2.0, True)
    assert options_from_flags(Second, values) == Second(9, "y")


def test_help_states_each_methods_default(values):
    assert values["width"].help == "How wide. Default: 3 (first); 7 (second)."


@pytest.mark.parametrize("argument", ["--width=wide", "--solver=c", "--scale=much"])
def test_values_of_the_wrong_kind_are_refused(values, argument):
    with pytest.raises(flags.IllegalFlagValueError):
        values(["program", argument])


def test_floats_are_leaves_and_the_rest_is_static():
    assert jax.tree.leaves(First()) == [1.5]
    compiled = jax.jit(lambda options: options.scale * options.width)
    assert float(compiled(First(scale=2.0))) == 6.0
    assert float(compiled(First(scale=3.0))) == 9.0
    assert compiled._cache_size() == 1
