import dataclasses
from typing import Literal

import jax
import pytest
from absl import flags

from asl_pinn.options import by_preset, define_flags, option, options_from_flags, resolve


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


@dataclasses.dataclass(frozen=True)
class Third:
    preset: Literal["near", "far"] = option("near", "Which preset.")
    reach: float | None = by_preset("How far [s].", near=1.0, far=9.0)
    order: Literal["up", "down"] | None = by_preset("Which way.", near="up", far="down")


def test_presets_fill_in_what_the_user_left_open():
    assert resolve(Third()) == Third("near", 1.0, "up")
    assert resolve(Third("far", order="up")) == Third("far", 9.0, "up")
    assert resolve(First()) == First()
    values = flags.FlagValues()
    define_flags({"third": Third}, values)
    values(["program", "--preset=far", "--reach=3"])
    assert resolve(options_from_flags(Third, values)) == Third("far", 3.0, "down")
    assert "9.0 with --preset=far" in values["reach"].help


def test_floats_are_leaves_and_the_rest_is_static():
    assert jax.tree.leaves(First()) == [1.5]
    compiled = jax.jit(lambda options: options.scale * options.width)
    assert float(compiled(First(scale=2.0))) == 6.0
    assert float(compiled(First(scale=3.0))) == 9.0
    assert compiled._cache_size() == 1
