import dataclasses
import json
from typing import Literal

import jax
import numpy as np
import pytest
from absl import flags

from asl_pinn.errors import InputError
from asl_pinn.estimators.options import (
    ByParameter,
    as_mapping,
    by_preset,
    define_flags,
    from_mapping,
    option,
    options_from_flags,
    resolve,
)

NAMES = ("cbf", "att")
WEIGHT = ByParameter.of(2.0, cbf=1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class First:
    solver: Literal["a", "b"] = option("a", "Which solver.")
    width: int = option(3, "How wide.")
    scale: float = option(1.5, "How large [s].")
    sharp: bool = option(False, "Whether sharp.")
    weight: ByParameter = option(WEIGHT, "How heavy.")


@dataclasses.dataclass(frozen=True)
class Second:
    width: int = option(7, "How wide.")
    scale: float = option(1.5, "How large [mm].")
    solver: Literal["b", "c"] = option("b", "Which solver.")
    name: str = option("x", "What name.")


TYPES = {"first": First, "second": Second}


@pytest.fixture
def values():
    values = flags.FlagValues()
    define_flags(TYPES, values)
    return values


def parsed(values, method, *arguments):
    values(["program", *arguments])
    return options_from_flags(TYPES, method, values, NAMES)


def test_defaults_are_each_methods_own(values):
    assert parsed(values, "first") == First()
    assert parsed(values, "second") == Second()


def test_what_the_user_sets_replaces_the_default(values):
    arguments = ("--width=9", "--scale=2", "--sharp", "--solver=b", "--weight=att=5")
    expected = First("b", 9, 2.0, True, ByParameter.of(2.0, cbf=1.0, att=5.0))
    assert parsed(values, "first", *arguments) == expected


def test_shared_flags_serve_each_method(values):
    assert parsed(values, "second", "--width=9", "--name=y") == Second(9, name="y")


def test_a_number_without_a_name_holds_for_all_parameters(values):
    weight = parsed(values, "first", "--weight=5").weight
    assert weight(("cbf", "att", "t1_tissue")) == (5.0, 5.0, 5.0)


def test_options_of_other_methods_are_refused_with_the_methods_that_have_them(values):
    with pytest.raises(InputError, match="--name is no option of first, but of second"):
        parsed(values, "first", "--name=y")
    with pytest.raises(InputError, match="--sharp is no option of second, but of first"):
        parsed(values, "second", "--nosharp")


def test_a_choice_of_another_method_is_refused(values):
    with pytest.raises(InputError, match="first: option solver is one of a, b, not 'c'"):
        parsed(values, "first", "--solver=c")


def test_parameters_that_the_model_does_not_have_are_refused(values):
    with pytest.raises(InputError, match="weight: the model has no parameter 'abv', only cbf, att"):
        parsed(values, "first", "--weight=abv=1")


def test_help_states_the_text_and_default_of_each_method(values):
    assert values["width"].help == "How wide. Default: 3 (first); 7 (second)."
    assert values["name"].help == "What name. Default: x."
    assert values["weight"].help == "How heavy. Default: cbf=1,other=2."
    assert values["scale"].help == (
        "first: How large [s]. Default: 1.5. second: How large [mm]. Default: 1.5."
    )


@pytest.mark.parametrize(
    "argument", ["--width=wide", "--solver=d", "--scale=much", "--weight=cbf=much", "--weight=cbf"]
)
def test_values_of_the_wrong_kind_are_refused(values, argument):
    with pytest.raises(flags.IllegalFlagValueError):
        values(["program", argument])


@dataclasses.dataclass(frozen=True)
class Conflicting:
    width: str = option("wide", "How wide.")


def test_methods_whose_options_of_one_name_differ_in_type_are_refused():
    with pytest.raises(InputError, match="option width has different types in methods first, odd"):
        define_flags({"first": First, "odd": Conflicting}, flags.FlagValues())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"colour": "red"}, "first has no option 'colour', only solver, width, scale"),
        ({"width": 2.5}, "first: option width is a whole number, not 2.5"),
        ({"width": True}, "first: option width is a whole number, not True"),
        ({"scale": "2"}, "first: option scale is a number, not '2'"),
        ({"sharp": 1}, "first: option sharp is True or False, not 1"),
        ({"solver": "c"}, "first: option solver is one of a, b"),
        ({"weight": "2"}, "first: option weight is a number, or a number by parameter, not '2'"),
        ({"weight": {"cbf": "2"}}, "first: option weight: cbf is a number, not '2'"),
        ({"weight": {"abv": 2}}, "the model has no parameter 'abv'"),
    ],
)
def test_options_by_name_are_checked(given, message):
    with pytest.raises(InputError) as caught:
        from_mapping(First, given, NAMES, "first")
    assert message in str(caught.value)


def test_options_by_name_may_be_numbers_of_numpy():
    made = from_mapping(First, {"width": np.int64(4), "scale": np.float32(2)}, NAMES, "first")
    assert made == First(width=4, scale=2.0)
    assert type(made.width) is int


def test_what_a_sidecar_states_gives_the_same_options_again():
    options = First(scale=0.1, weight=WEIGHT.with_named(att=7.0))
    stated = json.loads(json.dumps(as_mapping(options, NAMES)))
    assert stated["weight"] == {"cbf": 1.0, "att": 7.0}
    assert from_mapping(First, stated, NAMES, "first") == options


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
    options = options_from_flags({"third": Third}, "third", values, NAMES)
    assert resolve(options) == Third("far", 3.0, "down")
    assert as_mapping(options, NAMES) == {"preset": "far", "reach": 3.0, "order": "down"}
    assert "9.0 with --preset=far" in values["reach"].help


def test_floats_are_leaves_and_the_rest_is_static():
    assert jax.tree.leaves(First()) == [1.5]
    traced = []

    @jax.jit
    def scaled(options):
        traced.append(options)
        return options.scale * options.width * options.weight["cbf"]

    assert float(scaled(First(scale=2.0))) == 6.0
    assert float(scaled(First(scale=3.0))) == 9.0
    assert len(traced) == 1
