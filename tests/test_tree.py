"""Structures of arrays: taken apart and put together they are what they were."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scg.errors import ScgValueError
from scg.tree import children, leaves, leaves_like, map_leaves, rebuild


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Open:
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Closed:
    a: Any
    b: Any


def containers(inner):
    return st.one_of(
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Pair, inner, inner),
        st.builds(Open, inner, inner),
        st.builds(Closed, inner, inner),
    )


trees = st.recursive(st.none() | st.floats(allow_nan=False) | st.integers(), containers, max_leaves=12)


def same_types(one, other):
    inner = children(one)
    if inner is None:
        return children(other) is None
    pairs = list(zip(inner, children(other), strict=True))
    return type(one) is type(other) and all(a[0] == b[0] and same_types(a[1], b[1]) for a, b in pairs)


@given(trees)
def test_rebuilding_from_its_own_leaves_is_the_identity(tree):
    again = rebuild(tree, (leaf for _, leaf in leaves(tree)))
    assert again == tree
    assert same_types(again, tree)


@given(trees)
def test_rebuilding_takes_each_leaf_once_and_from_left_to_right(tree):
    count = len(list(leaves(tree)))
    values = iter(range(count + 1))
    again = rebuild(tree, values)
    assert [leaf for _, leaf in leaves(again)] == list(range(count))
    assert next(values) == count


@given(trees)
def test_a_path_is_the_expression_that_reaches_its_leaf(tree):
    for path, leaf in leaves(tree):
        assert eval(f"tree{path}", {"tree": tree}) is leaf


@given(trees)
def test_mapping_commutes_with_taking_apart(tree):
    mapped = map_leaves(lambda x, y: (str(x), y).__hash__(), tree, tree)
    assert [leaf for _, leaf in leaves(mapped)] == [(str(x), x).__hash__() for _, x in leaves(tree)]


def reversed_keys(tree):
    if isinstance(tree, dict):
        return type(tree)((key, reversed_keys(tree[key])) for key in reversed(tree))
    if type(tree) in (list, tuple):
        return type(tree)(map(reversed_keys, tree))
    return tree


@given(trees)
def test_leaves_are_matched_by_name(tree):
    assert list(leaves_like(tree, reversed_keys(tree), "it")) == [leaf for _, leaf in leaves(tree)]
    for odd in ({"y": tree}, [tree], {"x": tree, "y": tree}, {}):
        with pytest.raises(ScgValueError, match="it needs"):
            list(leaves_like({"x": tree}, odd, "it"))


def test_a_rebuilt_dataclass_is_not_constructed_anew():
    made = []

    @dataclass(frozen=True)
    class Strict:
        a: Any

        def __post_init__(self):
            made.append(self)

    assert rebuild(Strict(1), iter([object])).a is object
    assert len(made) == 1


def test_none_holds_no_leaf_and_an_array_is_one():
    assert list(leaves({"a": None, "b": ()})) == []
    array = np.zeros((2, 2))
    assert list(leaves([array])) == [("[0]", array)]
    assert rebuild(None, iter([])) is None
