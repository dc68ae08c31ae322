"""Structures of arrays: taken apart and put together they are what they were."""

import collections
import functools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import scg
from scg.core.tree import children, leaves, leaves_like, map_leaves, rebuild
from scg.errors import ScgValueError

pytestmark = pytest.mark.fast


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


@dataclass
class Scaled:
    w: Any

    def __post_init__(self):
        self.scale = 3.0

    @functools.cached_property
    def total(self):
        return np.sum(self.w)


floats = st.floats(-10, 10) | arrays(
    st.sampled_from([np.float32, np.float64]),
    array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    elements=st.floats(-8, 8, width=32),
)


@given(st.recursive(st.none() | floats, containers, max_leaves=8))
def test_a_flattened_structure_comes_back_with_its_shapes_and_dtypes(tree):
    vector, unflatten = scg.tree.flatten(tree)
    found = [np.asarray(leaf) for _, leaf in leaves(tree)]
    assert vector.shape == (sum(leaf.size for leaf in found),)
    assert vector.dtype == (np.result_type(*[leaf.dtype for leaf in found]) if found else float)
    again = unflatten(vector)
    assert same_types(again, tree)
    for (_, a), b in zip(leaves(again), found, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_flatten_is_differentiable_both_ways():
    params = {"a": np.arange(6.0).reshape(2, 3), "b": [np.float32(2.0), 3.0]}
    weights = np.arange(8.0)
    gradient = scg.grad(lambda p: np.sum(weights * scg.tree.flatten(p)[0] ** 2))(params)
    np.testing.assert_allclose(scg.tree.flatten(gradient)[0], 2 * weights * scg.tree.flatten(params)[0], rtol=1e-6)
    vector, unflatten = scg.tree.flatten(params)
    np.testing.assert_allclose(
        scg.grad(lambda v: np.sum(unflatten(v)["a"] ** 3) + unflatten(v)["b"][1])(vector),
        [*3 * np.arange(6.0) ** 2, 0, 1],
    )


def test_scipy_minimizes_a_structure_through_its_vector():
    def loss(p):
        return np.sum((p["w"] - np.array([1.0, -2.0])) ** 2) + (p["b"] - 3.0) ** 2

    vector, unflatten = scg.tree.flatten({"w": np.zeros(2), "b": 0.0})

    def both(v):
        value, gradient = scg.value_and_grad(loss)(unflatten(v))
        return value, scg.tree.flatten(gradient)[0]

    found = unflatten(scipy.optimize.minimize(both, vector, jac=True).x)
    np.testing.assert_allclose(found["w"], [1.0, -2.0], atol=1e-6)
    np.testing.assert_allclose(found["b"], 3.0, atol=1e-6)


@pytest.mark.parametrize("tree", [{"n": 3}, [np.arange(2)], "ab", [1j], [True]])
def test_flatten_refuses_what_is_no_real_number(tree):
    with pytest.raises(scg.errors.ScgTypeError, match="floating-point"):
        scg.tree.flatten(tree)


def test_unflatten_refuses_a_vector_of_another_length():
    with pytest.raises(ScgValueError, match=r"\(2,\)"):
        scg.tree.flatten([1.0, 2.0])[1](np.zeros(3))


def test_a_defaultdict_and_what_stands_beside_the_fields_of_a_dataclass_stay():
    gradient = scg.grad(lambda p: p["a"] * p["b"])(collections.defaultdict(float, a=1.0, b=2.0))
    assert type(gradient) is collections.defaultdict and gradient == {"a": 2.0, "b": 1.0} and gradient["new"] == 0.0
    np.testing.assert_array_equal(scg.grad(lambda p: np.sum(p.w) * p.scale)(Scaled(np.ones(2))).w, [3.0, 3.0])


def test_what_was_computed_from_old_leaves_does_not_stay():
    params = Scaled(np.ones(2))
    assert params.total == 2.0  # now kept beside the fields
    np.testing.assert_array_equal(scg.grad(lambda p: p.total**2)(params).w, [4.0, 4.0])
    params.unit = params.w / 2
    with pytest.raises(scg.errors.ScgTypeError, match="Scaled.unit"):
        scg.grad(lambda p: np.sum(p.unit))(params)
